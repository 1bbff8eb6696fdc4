"""The teacher's answers on record: the same training to the bit, without the teacher."""

import json
import shutil
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tiny_training import EPOCHS, STEPS, a_teacher, do_in_step, same, tiny_trainer

from helpers.devices import autocast
from helpers.files import RUN_FILES
from helpers.interrupts import Stopped
from helpers.networks.models import head_logits
from helpers.networks.packed import PackedResNet, can_pack
from helpers.training import low_precision, replay
from helpers.training.augment import augment, draw_views
from helpers.training.experiments import distil_student
from helpers.training.faces import load_faces
from helpers.training.low_precision import settle_precision
from helpers.training.replay import RecordedTeacher, answers_key, record_answers, recorded_teacher
from helpers.training.runs import read_run
from helpers.training.teachers import FrozenTeacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces(crops_dir):
    return load_faces(crops_dir, 32)


def recorded(faces, folder, replayed, said=a_teacher):
    """A recorded teacher, and the list of the batches that it was asked about."""
    asked = []

    def teacher(images, rows):
        asked.append(rows)
        return said(images, rows)

    key = {"seed": 0}
    return RecordedTeacher(lambda: teacher, folder, key, len(faces.table), CPU, replayed), asked


@pytest.fixture
def undisturbed(faces, tmp_path):
    """A training by a live teacher, recorded to `labels` as it went."""
    teacher, asked = recorded(faces, tmp_path / "labels", False)
    trainer = tiny_trainer(faces, tmp_path / "undisturbed", teacher)
    trainer.fit()
    assert len(asked) == EPOCHS * STEPS
    return trainer


def logits(folder) -> list[bytes]:
    files = sorted(folder.glob("epoch*.safetensors"))
    return [load_file(file)["logits"].numpy().tobytes() for file in files]


def test_recording_changes_nothing(faces, undisturbed, tmp_path):
    plain = tiny_trainer(faces, tmp_path / "plain", a_teacher)
    plain.fit()
    assert same(undisturbed, plain)


def test_replayed_it_is_the_same_training_and_nobody_is_asked(faces, undisturbed, tmp_path):
    teacher, asked = recorded(faces, tmp_path / "labels", True)
    trainer = tiny_trainer(faces, tmp_path / "replayed", teacher)
    trainer.fit()
    assert asked == []
    assert same(undisturbed, trainer)


def test_online_the_teacher_is_asked_whatever_is_on_record(faces, undisturbed, tmp_path):
    before = logits(tmp_path / "labels")
    teacher, asked = recorded(faces, tmp_path / "labels", False, lambda x, r: -a_teacher(x, r))
    trainer = tiny_trainer(faces, tmp_path / "online", teacher)
    trainer.fit()
    assert len(asked) == EPOCHS * STEPS
    assert trainer.history[0]["train_loss"] != undisturbed.history[0]["train_loss"]
    assert logits(tmp_path / "labels") == before


def test_where_nothing_is_on_record_a_replay_records(faces, undisturbed, tmp_path):
    teacher, asked = recorded(faces, tmp_path / "others", True)
    trainer = tiny_trainer(faces, tmp_path / "first", teacher)
    trainer.fit()
    assert len(asked) == EPOCHS * STEPS
    assert same(undisturbed, trainer)
    assert logits(tmp_path / "others") == logits(tmp_path / "labels")


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-10])
    elif how == "one bit":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "absent":
        path.unlink()
    elif how == "another epoch":
        path.write_bytes(path.with_name("epoch001.safetensors").read_bytes())
    else:
        answers = load_file(path)["logits"]
        key = {"seed": 1} if how == "another key" else {"seed": 0}
        if how == "not whole":
            answers[0] = float("nan")
        about = {"key": json.dumps(key), "epoch": "2", "sha256": replay._digest(answers)}
        save_file({"logits": answers}, path, metadata=about)


@pytest.mark.parametrize(
    "how", ["cut", "one bit", "absent", "another epoch", "another key", "not whole"]
)
def test_a_damaged_epoch_is_asked_for_again_and_no_other(faces, undisturbed, tmp_path, how):
    labels = tmp_path / "labels"
    before = logits(labels)
    damage(labels / "epoch002.safetensors", how)
    teacher, asked = recorded(faces, labels, True)
    trainer = tiny_trainer(faces, tmp_path / "replayed", teacher)
    trainer.fit()
    assert len(asked) == STEPS
    assert same(undisturbed, trainer)
    assert logits(labels) == before


@pytest.mark.parametrize("replayed", [True, False])
def test_a_record_survives_a_stop_in_the_middle_of_an_epoch(
    faces, undisturbed, tmp_path, monkeypatch, replayed
):
    folder = tmp_path / "others"
    with monkeypatch.context() as patch:
        teacher, _ = recorded(faces, folder, replayed)
        trainer = tiny_trainer(faces, tmp_path / "stopped", teacher)
        do_in_step(patch, STEPS + 2, lambda: setattr(trainer._stop, "asked", 2))
        with pytest.raises(Stopped):
            trainer.fit()
    assert len(logits(folder)) == 1
    teacher, asked = recorded(faces, folder, replayed)
    resumed = tiny_trainer(faces, tmp_path / "stopped", teacher)
    resumed.fit()
    assert len(asked) == EPOCHS * STEPS - (STEPS + 2)
    assert same(undisturbed, resumed)
    assert logits(folder) == logits(tmp_path / "labels")


def test_where_nothing_can_be_written_the_training_goes_on(faces, undisturbed, tmp_path, capsys):
    (tmp_path / "file").write_text("where the folder should be")
    teacher, _ = recorded(faces, tmp_path / "file", False)
    trainer = tiny_trainer(faces, tmp_path / "run", teacher)
    trainer.fit()
    assert same(undisturbed, trainer)
    assert capsys.readouterr().out.count("could not be kept") == EPOCHS


@pytest.fixture
def taught(student_parameters, teacher_run, tmp_path):
    """A student's parameters with a teacher of this test's own, which has no answers on record."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    for name in RUN_FILES:
        shutil.copy(teacher_run / name, folder)
    student_parameters.teacher, student_parameters.teacher_dir = "resnet50", str(folder)
    return student_parameters


def test_whole_runs_online_and_replayed_are_identical(taught, tmp_path, monkeypatch):
    """Answers beforehand, a student that hears them live, and one for whom no teacher is built."""
    taught.distillation = "soft"
    folder = record_answers(taught)
    beforehand = logits(folder)
    assert len(beforehand) == taught.student_epochs
    shutil.rmtree(folder)
    online = distil_student(taught, tmp_path / "online")
    assert logits(folder) == beforehand
    assert online.params["teachers"][0]["arithmetic"] == {"precision": "float32", "margin": 0.0}

    def never(*_):
        raise AssertionError("a teacher was built")

    monkeypatch.setattr(FrozenTeacher, "__init__", never)
    assert record_answers(taught) == folder  # all on record
    taught.teacher_labels = "replayed"
    replayed = distil_student(taught, tmp_path / "replayed")
    for name in ("predictions.csv", "model.safetensors"):
        assert (online.folder / name).read_bytes() == (replayed.folder / name).read_bytes()
    for column in ("train_loss", "train_loss_distillation", "teacher_disagreement"):
        assert (online.history[column] == replayed.history[column]).all()


def test_a_record_holds_what_the_teacher_says_of_each_view(taught, faces):
    """Against the teacher asked anew, face by face."""
    taught.student_epochs = 2
    folder = record_answers(taught)
    teacher, train = FrozenTeacher(read_run(taught.teacher_dir), CPU), faces.rows("train")
    for epoch in (1, 2):
        answers = load_file(folder / f"epoch{epoch:03d}.safetensors")["logits"]
        assert (np.flatnonzero(~answers.isnan()) == train).all()
        views = draw_views(len(faces.table), taught.seed, epoch)
        for row in train[:6]:
            view = augment(faces.images[[row]], views[np.array([row])], taught.image_size)
            said = teacher(view, np.array([row])).item()
            assert said == pytest.approx(answers[row].item(), abs=1e-4)


def test_what_decides_the_answers_keeps_them_apart(taught, faces):
    run = read_run(taught.teacher_dir)
    keys = [answers_key(run, faces, taught, CPU, torch.float32)]
    for change in ({"seed": 1}, {"batch_size": 4}, {"image_size": 64}):
        changed = SimpleNamespace(**vars(taught) | change)
        keys.append(answers_key(run, faces, changed, CPU, torch.float32))
    keys.append(answers_key(run, faces, taught, CPU, torch.bfloat16))
    keys.append(answers_key(run, faces, taught, torch.device("cuda"), torch.float32))
    other = SimpleNamespace(manifest_sha256="another")
    keys.append(answers_key(run, other, taught, CPU, torch.float32))
    weights = load_file(run.folder / "model.safetensors")
    weights["fc.bias"] += 1
    save_file(weights, run.folder / "model.safetensors")
    keys.append(answers_key(run, faces, taught, CPU, torch.float32))
    assert len({json.dumps(key) for key in keys}) == 8
    changed = SimpleNamespace(**vars(taught) | {"learning_rate": 3e-3, "student_epochs": 1})
    assert keys[-1] == answers_key(run, faces, changed, CPU, torch.float32)


def test_building_a_teacher_in_the_middle_moves_no_generator(taught, faces):
    teacher, _ = recorded_teacher(read_run(taught.teacher_dir), faces, taught, CPU, True)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert teacher.teacher is teacher.teacher
    assert torch.equal(torch.rand(4), expected)


def resnet_and_views(taught):
    run = read_run(taught.teacher_dir)
    return run, torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_low_precision_is_autocasts_within_rounding(taught):
    run, images = resnet_and_views(taught)
    plain = FrozenTeacher(run, CPU)
    with torch.no_grad(), autocast(CPU, torch.bfloat16):
        expected = head_logits(plain.model, images)[:, 0].float()
    exact = plain(images, np.arange(8))
    given = FrozenTeacher(run, CPU).use(torch.bfloat16)(images, np.arange(8))
    assert (given - exact).abs().max() <= 3 * (expected - exact).abs().max()
    assert given.dtype == torch.float32
    assert not given.is_inference()
    assert not torch.equal(given, exact)


def test_a_packed_resnet_is_the_resnet_within_bfloat16():
    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=1).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    images = torch.randn(4, 3, 64, 64)
    assert can_pack(model)
    assert not can_pack(timm.create_model("resnet18d", num_classes=1))
    with torch.inference_mode():
        expected = model(images)
        half = deepcopy(model).bfloat16()(images.bfloat16()).float()
        given = PackedResNet(model)(images)
    assert expected.std() > 0
    assert (given - expected).abs().max() <= 3 * (half - expected).abs().max()


def test_logits_near_the_threshold_are_float32s(taught):
    run, images = resnet_and_views(taught)
    exact = FrozenTeacher(run, CPU)(images, np.arange(8))
    margin = exact.abs().median().item()
    fast = FrozenTeacher(run, CPU).use(torch.bfloat16)(images, np.arange(8))
    given = FrozenTeacher(run, CPU).use(torch.bfloat16, margin)(images, np.arange(8))
    near = fast.abs() < margin
    assert 0 < near.sum() < 8
    assert torch.allclose(given[near], exact[near], atol=1e-6)
    assert torch.equal(given[~near], fast[~near])


@pytest.mark.parametrize(
    ("device", "error", "settled", "changed"),
    [("cpu", 0.05, "bfloat16", 0), ("cuda", 0.05, "float32", 1), ("cuda", 0.0, "bfloat16", 0)],
)
def test_low_precision_is_used_where_no_label_changes(
    taught, monkeypatch, device, error, settled, changed
):
    """One label that low precision would turn: a CPU looks again, a GPU stays with float32."""
    run = read_run(taught.teacher_dir)
    run.params["parameters"]["amp"] = True
    faces = load_faces(taught.crops_dir, 32)
    count, asked = len(faces.rows("train")), []
    logits = torch.zeros(len(faces.table))
    logits[faces.rows("train")] = torch.linspace(-1, 1, count).sign()
    logits[faces.rows("train")[0]] = 0.02

    class Teacher:
        def __init__(self, run, device):
            pass

        def use(self, dtype, margin=0.0):
            asked.append(dtype)
            self.dtype, self.margin = dtype, margin
            return self

        def __call__(self, images, rows):
            exact = logits[rows]
            if self.dtype == torch.float32:
                return exact
            return torch.where((exact - error).abs() < self.margin, exact, exact - error)

    monkeypatch.setattr(low_precision, "precision", lambda *_: torch.bfloat16)
    monkeypatch.setattr(low_precision, "plain_view", lambda images, size: images)
    monkeypatch.setattr(low_precision, "FrozenTeacher", Teacher)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
    where = torch.device(device)
    dtype, report = settle_precision(run, faces, where)
    assert dtype == getattr(torch, settled)
    assert report["changed_labels"] == pytest.approx(changed / count)
    assert report["margin"] == pytest.approx(4 * error if device == "cpu" else 0)
    assert (report["compared"], report["faces"]) == ("bfloat16", count)
    assert set(asked) == {torch.float32, torch.bfloat16}
    measured = len(asked)
    assert settle_precision(run, faces, where) == (dtype, report)
    assert len(asked) == measured
    faces.manifest_sha256 = "other faces"
    settle_precision(run, faces, where)
    assert len(asked) == 2 * measured
