"""The training loop under blows, and whole runs on made-up faces."""

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import QUICK
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers import distil, models, runs, train
from helpers.devices import precision
from helpers.faces import FaceStore, load_faces
from helpers.files import ROOT, StudyError
from helpers.train import CHECKPOINT, Stopped, Trainer, distil_student, train_teacher

EPOCHS, STEPS = 3, 4
TIMES = ["seconds", "images_per_second"]


SMALL = """
import timm
from helpers import models
create, models.TEACHERS["resnet50"] = timm.create_model, "test_resnet.r160_in1k"
timm.create_model = lambda name, **o: create(name, **o | ({"depth": 1} if "deit" in name else {}))
"""


@pytest.fixture(scope="module", autouse=True)
def small():
    """A ResNet of 0.4 million parameters for ResNet-50, a single block for DeiT's twelve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.TEACHERS, "resnet50", models.TEACHERS["resnet50"])
        patch.setattr(timm, "create_model", timm.create_model)
        exec(SMALL, {})
        yield


@pytest.fixture(scope="module")
def faces(crops_dir):
    return load_faces(crops_dir, 32)


@pytest.fixture(scope="module")
def teacher(crops_dir, tmp_path_factory):
    torch.set_num_threads(1)
    p = {k: v for k, v in QUICK.items() if k != "student"} | {"crops_dir": str(crops_dir)}
    p |= {"teacher_epochs": 6, "lr_step": 4}
    return train_teacher(SimpleNamespace(**p), tmp_path_factory.mktemp("teacher") / "run")


@pytest.fixture
def taught(quick, teacher):
    quick.teacher_dir = str(teacher.folder)
    return quick


class Noisy(nn.Module):
    """Two heads, a buffer that moves with every batch, and noise."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4)
        self.head, self.head_dist = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward_features(self, images):
        features = nn.functional.dropout(self.norm(self.conv(images)).relu(), 0.3, self.training)
        return features.mean((2, 3))[:, None].expand(-1, 2, -1)


def a_teacher(images, rows):
    return images.mean((1, 2, 3)) + torch.from_numpy(rows % 3 - 1.0).float()


@pytest.fixture
def new_trainer(faces, tmp_path):
    def make(folder="run", store=faces, teacher=a_teacher, options=None, **changes):
        recipe = QUICK | {"optimizer": "adamw", "learning_rate": 1e-2, "weight_decay": 0.1}
        recipe |= {"schedule": "one_cycle", "epochs": EPOCHS, "distillation": "soft"} | changes
        torch.manual_seed(0)
        options = {"rows": store.rows("train")} | (options or {})
        run = {"folder": tmp_path / folder, "params": {"name": "it", "parameters": recipe}}
        return Trainer(Noisy(), store, teacher=teacher, **run, **options)

    return make


@pytest.fixture
def ends_undisturbed(new_trainer):
    """Train on to the end: the same history, weights, buffers and optimiser as undisturbed."""
    undisturbed = new_trainer("undisturbed")
    undisturbed.fit()

    def check():
        resumed = new_trainer()
        resumed.fit()
        both = (undisturbed, resumed)
        histories = [pd.DataFrame(trainer.history).drop(columns=TIMES) for trainer in both]
        pd.testing.assert_frame_equal(*histories, check_exact=True)
        ends = [trainer.optimizer.state_dict()["state"] for trainer in both]
        torch.testing.assert_close(*ends, rtol=0, atol=0)
        first, second = ((trainer.folder / runs.WEIGHTS).read_bytes() for trainer in both)
        assert first == second

    return check


def do_in_step(monkeypatch, number, act):
    """Have `act()` happen in the step `number` of the training, counted from 1 over all epochs."""
    step, done = Trainer._step, []

    def stepping(trainer, batch):
        done.append(1)
        if len(done) == number:
            act()
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "_step", stepping)
    return done


@pytest.mark.parametrize("number", [1, STEPS, STEPS + 2, EPOCHS * STEPS])
def test_ctrl_c_is_one_sentence_and_a_call_goes_on_to_the_same_bits(
    new_trainer, ends_undisturbed, monkeypatch, number
):
    epoch = (number - 1) // STEPS + 1
    with monkeypatch.context() as patch:
        do_in_step(patch, number, lambda: signal.default_int_handler(signal.SIGINT, None))
        said = rf"stopped in epoch {epoch} of 3: call again to go on after epoch {epoch - 1}\.$"
        with pytest.raises(Stopped, match=said):
            new_trainer().fit()
    done = do_in_step(monkeypatch, 0, None)
    ends_undisturbed()
    assert len(done) == (EPOCHS - epoch + 1) * STEPS


KILLED = f"""{SMALL}
import json, os, signal, sys
from types import SimpleNamespace
import torch
from helpers import train
torch.set_num_threads(1)
one_step, steps = train.Trainer._step, []
def step(*given):
    steps.append(1)
    if len(steps) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return one_step(*given)
train.Trainer._step = step
train.distil_student(SimpleNamespace(**json.loads(sys.argv[1])), sys.argv[2])
"""


def test_killed_a_call_in_another_process_ends_in_the_same_bits(taught, tmp_path):
    here, folder = distil_student(taught, tmp_path / "here"), tmp_path / "run"
    for kill_in_step, code in ((STEPS + 2, -signal.SIGKILL), (0, 0)):
        command = [sys.executable, "-c", KILLED, pd.Series(vars(taught)).to_json(), folder]
        found = subprocess.run([*command, str(kill_in_step)], cwd=ROOT, stderr=subprocess.PIPE)
        assert found.returncode == code, found.stderr
        (folder / ".checkpoint-x.pt").write_bytes(b"half") if code else None
    run = runs.read_run(folder)
    assert run.metrics["weights_sha256"] == here.metrics["weights_sha256"]
    histories = [one.history.drop(columns=TIMES) for one in (run, here)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert {path.name for path in folder.iterdir()} == {*runs.RUN_FILES, CHECKPOINT}


@pytest.mark.parametrize("damage", ["a bit", "other parameters"])
def test_a_checkpoint_that_cannot_be_trusted_starts_the_training_anew(
    new_trainer, ends_undisturbed, damage, capsys
):
    first = new_trainer(learning_rate=1e-3 if damage == "other parameters" else 1e-2)
    first.fit()
    path = first.folder / CHECKPOINT
    whole = bytearray(path.read_bytes())
    whole[whole.find(first.model.head.weight.detach().numpy().tobytes())] ^= damage == "a bit"
    path.write_bytes(whole)
    ends_undisturbed()
    why = "learning_rate 0.001 → 0.01" if damage == "other parameters" else "it is damaged"
    assert f"checkpoint.pt is not used ({why}" in capsys.readouterr().out


def test_a_full_disk_is_one_sentence_and_leaves_the_last_good_state(
    new_trainer, ends_undisturbed, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trainer = new_trainer()
    with monkeypatch.context() as patch:
        do_in_step(patch, STEPS + 1, lambda: patch.setattr(os, "fsync", full))
        with pytest.raises(StudyError, match=r"disk is full, so .*checkpoint\.pt could not be"):
            trainer.fit()
    assert os.listdir(trainer.folder) == [CHECKPOINT]
    ends_undisturbed()


def test_a_loss_that_is_no_number_is_traced_to_its_faces(faces, new_trainer):
    row, labels = int(faces.rows("train")[5]), faces.labels.clone()
    labels[row] = float("nan")
    store, face = FaceStore(faces.table, faces.images, labels, ""), faces.table["image_id"][row]
    with pytest.raises(StudyError, match=rf"is nan in epoch 1, for 1 of the 8 .*\({face}\): look"):
        new_trainer(store=store).fit()


def test_the_heads_are_trained_alone_first_and_that_is_taken_up_too(
    new_trainer, monkeypatch, tmp_path
):
    first = {"head_steps": 5, "head_learning_rate": 0.1}
    undisturbed, cut, again = (new_trainer(name, **first) for name in ("whole", "cut", "cut"))
    undisturbed.fit()
    assert [row["epoch"] for row in undisturbed.history] == [0, 1, 2, 3]
    begin = {key: value.clone() for key, value in cut.model.state_dict().items()}
    with monkeypatch.context() as patch:
        do_in_step(patch, 7, lambda: signal.default_int_handler(signal.SIGINT, None))
        with pytest.raises(Stopped, match="after epoch 0"):
            cut.fit()
    state = torch.load(cut.folder / CHECKPOINT, weights_only=True)["model"]
    moved = {key.split(".")[0] for key in begin if not torch.equal(begin[key], state[key])}
    assert moved == {"head", "head_dist"}  # not even the batch norm's averages
    again.fit()
    first, second = ((tmp_path / name / runs.WEIGHTS).read_bytes() for name in ("whole", "cut"))
    assert first == second
    trained = again.model.state_dict()
    assert not torch.equal(trained["conv.weight"], begin["conv.weight"])


@pytest.mark.parametrize(
    ("asked", "labelled", "decides_by"),
    [(a_teacher, 3, "both"), (a_teacher, 0, "distillation"), (None, 3, "class")],
)
def test_so_many_steps_of_few_labelled_faces(faces, new_trainer, asked, labelled, decides_by):
    """16 faces of which some carry labels, batches of 8: 25 steps in ten blocks."""
    options = {"rows": faces.rows("train")[:16], "labelled": np.arange(16) < labelled, "steps": 25}
    trainer = new_trainer(teacher=asked, options=options)
    history = trainer.fit()
    assert len(history) == 10
    assert sum(trainer.lengths) == trainer.schedule.last_epoch == 25
    assert trainer.feed.decides_by == decides_by
    assert (history["train_loss_class"] == 0).all() == (decides_by == "distillation")
    assert history["train_loss_distillation"].isna().all() == (decides_by == "class")


def test_a_teacher_learns_what_can_be_seen_and_its_run_is_whole(teacher, faces):
    runs.check_run(teacher)
    test = teacher.predictions[teacher.predictions["split"] == "test"]
    area = roc_auc_score(test["label"] == "Pain", test["probability"])
    assert 0.9 < area == pytest.approx(teacher.metrics["test"]["auroc"])
    # in low precision batches are filled, so that it says the same of a face alone
    model, sizes = models.ready(teacher, torch.device("cpu")), []
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    every = train.predict(model, faces.images, 32, torch.bfloat16)
    alone = train.predict(model, faces.images, 32, torch.bfloat16, np.array([7]))
    assert torch.equal(every[7:8], alone)
    assert sizes == [64, 64]


def test_every_arm_of_a_seed_begins_with_the_same_student(taught, teacher, tmp_path, monkeypatch):
    first = []

    def fit(trainer):
        first.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        raise Stopped

    monkeypatch.setattr(train, "_teacher_runs", lambda *_: [teacher])
    monkeypatch.setattr(Trainer, "fit", fit)
    changes = [("teacher", "none"), ("teacher", "resnet50"), ("distillation", "soft")]
    changes += [("teacher_labels", "shuffled"), ("teacher_labels", "out_of_fold"), ("seed", 1)]
    for name, value in changes:
        setattr(taught, name, value)
        with pytest.raises(Stopped):
            distil_student(taught, tmp_path / str(len(first)))
    for other in first[1:-1]:
        torch.testing.assert_close(other, first[0], rtol=0, atol=0)
    assert not torch.equal(first[-1]["head.weight"], first[0]["head.weight"])


def test_the_student_without_a_teacher_reads_none_and_a_published_run_needs_nothing(
    quick, tmp_path, monkeypatch
):
    quick.teacher, quick.teacher_dir = "none", "no/teacher"
    run = distil_student(quick, tmp_path / "run")
    assert run.predictions["probability_distillation"].isna().all()
    monkeypatch.setattr(train, "load_faces", None)  # a finished one decodes no picture
    assert distil_student(quick, run.folder).metrics == run.metrics
    with pytest.raises(StudyError, match=r"weight_decay 0\.0 → 0\.5"):
        distil_student(SimpleNamespace(**vars(quick) | {"weight_decay": 0.5}), run.folder)
    (run.folder / runs.WEIGHTS).unlink()
    quick.crops_dir = "no/crops"
    assert distil_student(quick, run.folder).metrics == run.metrics


def test_the_distillation_token_follows_the_teacher_who_sees_the_students_views(
    taught, teacher, tmp_path, monkeypatch
):
    """A teacher that says pain of every face: only the distillation head may come to say so."""
    views, heads, call = [], distil.head_logits, distil.FrozenTeacher.__call__
    itself = models.trained(teacher, torch.device("cpu"))

    def student_looks(model, images):
        views.extend([images] * model.training)
        return heads(model, images)

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def teacher_looks(frozen, images, rows):
        # cuBLAS reads it with its first product, which on a GPU would be the teacher's
        assert "CUBLAS_WORKSPACE_CONFIG" in os.environ
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.equal(images, views[-1])
        # from the first step to the last it is the network of its run
        with torch.no_grad():
            expected = itself(images)[:, 0]
        torch.testing.assert_close(call(frozen, images, rows), expected, rtol=1e-4, atol=1e-5)
        return torch.full((len(rows),), 1.0)

    monkeypatch.setattr(distil, "head_logits", student_looks)
    monkeypatch.setattr(distil.FrozenTeacher, "__call__", teacher_looks)
    taught.student_epochs = 3
    run = distil_student(taught, tmp_path / "run")
    table = run.predictions.query("label == 'NoPain'")
    assert (table["probability_distillation"] - table["probability_class"]).mean() > 0.2
    # a quarter of the training views is Pain
    assert run.history["teacher_disagreement"].mean() == pytest.approx(0.75, abs=0.05)


def test_out_of_fold_labels_come_from_teachers_that_never_saw_the_person(
    taught, teacher, faces, tmp_path, monkeypatch
):
    init, trained_on = Trainer.__init__, {}

    def watch(trainer, model, faces, rows, folder, params, *more):
        init(trainer, model, faces, rows, folder, params, *more)
        if "fold" in params["parameters"]:
            trained_on[folder] = set(faces.table["identity"].iloc[rows])

    monkeypatch.setattr(Trainer, "__init__", watch)
    taught.teacher_labels, taught.student_epochs = "out_of_fold", 1
    distil_student(taught, tmp_path / "student")
    train_, folds = faces.table["split"] == "train", distil.fold_of(faces)
    for fold in range(3):
        seen = trained_on[teacher.folder / f"fold{fold}"]
        assert seen == set(faces.table["identity"][train_ & (folds != fold)])
        assert not seen & set(faces.table["identity"][folds == fold])


def test_a_teacher_that_does_not_fit_or_is_weak_is_refused(taught, tmp_path):
    for change, sentence in (
        ({"allow_weak_teacher": False}, r"may not teach, .* \(AUROC .* \[no interval\]\)"),
        ({"image_size": 48}, r"trained at 32 pixels, .*both must see the same view\.$"),
    ):
        with pytest.raises(StudyError, match=sentence):
            distil_student(SimpleNamespace(**vars(taught) | change), tmp_path / "student")


def test_devices_without_onednns_operator_compute_in_float32(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert precision(torch.device("cpu"), True) == torch.float32
