"""Whole runs on made-up faces: what they promise of teachers, heads, seeds and resuming."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from helpers.errors import StudyError
from helpers.evaluation.external import predict_runs
from helpers.files import RUN_FILES, sha256
from helpers.training import engine, experiments
from helpers.training.experiments import FOLDS, distil_student, fold_of, train_teacher
from helpers.training.faces import load_faces
from helpers.training.losses import classification_loss
from helpers.training.runs import read_run


def weights(run) -> dict:
    return load_file(run.folder / "model.safetensors")


def same_weights(first, second) -> bool:
    first, second = weights(first), weights(second)
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def taught(student_parameters, teacher_run):
    student_parameters.teacher, student_parameters.teacher_dir = "resnet50", str(teacher_run)
    return student_parameters


def test_a_run_folder_holds_what_was_promised(taught, tmp_path):
    run = distil_student(taught, tmp_path)
    for name in (*RUN_FILES, "checkpoint.pt"):
        assert (tmp_path / name).is_file(), name
    assert list(run.history["epoch"]) == [1, 2]
    faces = run.predictions
    assert len(faces) == 48
    columns = "image_id identity side split label probability probability_class"
    assert list(faces.columns) == [*columns.split(), "probability_distillation"]
    logit = {name: np.log(faces[name] / (1 - faces[name])) for name in faces.columns[-3:]}
    mean = (logit["probability_class"] + logit["probability_distillation"]) / 2
    np.testing.assert_allclose(logit["probability"], mean, atol=1e-3)
    test = faces[faces["split"] == "test"]
    area = roc_auc_score(test["label"] == "Pain", test["probability"])
    assert run.metrics["test"]["auroc"] == pytest.approx(area, abs=1e-6)
    accuracy = ((test["probability"] > 0.5) == (test["label"] == "Pain")).mean()
    assert run.metrics["test"]["accuracy"] == pytest.approx(accuracy)
    assert run.metrics["weights_sha256"] == sha256(tmp_path / "model.safetensors")


def test_the_step_size_falls_as_the_protocol_says(teacher_parameters, tmp_path):
    teacher_parameters.teacher_epochs, teacher_parameters.lr_step = 4, 2
    history = train_teacher(teacher_parameters, tmp_path).history
    np.testing.assert_allclose(history["learning_rate"], [1e-3, 1e-3, 5e-4, 5e-4])


def test_a_teacher_learns_what_can_be_seen(teacher_parameters, tmp_path):
    teacher_parameters.teacher_epochs, teacher_parameters.lr_step = 6, 10
    run = train_teacher(teacher_parameters, tmp_path)
    assert run.metrics["test"]["auroc"] > 0.9


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(taught, tmp_path):
    first = distil_student(taught, tmp_path / "a")
    again = distil_student(taught, tmp_path / "b")
    assert same_weights(first, again)
    pd.testing.assert_frame_equal(first.predictions, again.predictions)
    taught.seed = 1
    assert not same_weights(first, distil_student(taught, tmp_path / "c"))


def test_a_run_that_was_broken_off_ends_as_the_undisturbed_one(taught, tmp_path, monkeypatch):
    taught.student_epochs, taught.schedule = 3, "one_cycle"
    whole = distil_student(taught, tmp_path / "whole")
    train_epoch = engine.Trainer._train_epoch

    def breaks_in_the_second(trainer, epoch, bar):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(trainer, epoch, bar)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "_train_epoch", breaks_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            distil_student(taught, tmp_path / "broken")
    seen = []
    monkeypatch.setattr(
        engine.Trainer,
        "_train_epoch",
        lambda trainer, epoch, bar: (seen.append(epoch), train_epoch(trainer, epoch, bar))[1],
    )
    resumed = distil_student(taught, tmp_path / "broken")
    assert seen == [2, 3]
    assert same_weights(whole, resumed)
    pd.testing.assert_frame_equal(whole.predictions, resumed.predictions)


def test_a_finished_run_is_shown_and_not_repeated(teacher_parameters, tmp_path, monkeypatch):
    train_teacher(teacher_parameters, tmp_path)

    def never(*_):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "_train_epoch", never)
        train_teacher(teacher_parameters, tmp_path)
        # what Snakemake does before it runs a rule again
        (tmp_path / "metrics.json").unlink()
        train_teacher(teacher_parameters, tmp_path)
    monkeypatch.setattr(engine.Trainer, "_train_epoch", never)
    teacher_parameters.learning_rate = 2e-3
    with pytest.raises(AssertionError, match="trained again"):
        train_teacher(teacher_parameters, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_without_a_teacher_none_is_read_or_asked(student_parameters, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("a teacher was called")

    monkeypatch.setattr(experiments, "FrozenTeacher", never)
    monkeypatch.setattr(experiments, "read_teacher", never)
    monkeypatch.setattr(engine, "hard_labels", never)
    run = distil_student(student_parameters, tmp_path)
    assert run.params["parameters"]["distillation"] == "none"
    assert run.history["train_loss_distillation"].isna().all()
    assert run.history["teacher_disagreement"].isna().all()
    assert run.predictions["probability_distillation"].isna().all()
    assert (run.predictions["probability"] == run.predictions["probability_class"]).all()


@pytest.mark.parametrize("says", [1.0, -1.0])
def test_the_distillation_token_follows_the_teacher_and_the_class_token_the_labels(
    taught, tmp_path, monkeypatch, says
):
    """A teacher that says the same of every face: only the distillation head may come to say so."""
    monkeypatch.setattr(
        experiments.FrozenTeacher,
        "__call__",
        lambda self, images, rows: torch.full((len(rows),), says),
    )
    taught.student_epochs, taught.lr_step = 4, 10
    run = distil_student(taught, tmp_path)
    faces = run.predictions.groupby("label").mean(numeric_only=True)
    # on the faces where teacher and label contradict each other, each head follows its own
    contradicted = "NoPain" if says > 0 else "Pain"
    by_labels = faces.loc[contradicted, "probability_class"]
    by_teacher = faces.loc[contradicted, "probability_distillation"]
    assert (by_teacher - by_labels) * says > 0.2
    assert faces.loc["NoPain", "probability_class"] < 0.2
    # a quarter of the training views is Pain
    wrong = 0.75 if says > 0 else 0.25
    assert run.history["teacher_disagreement"].mean() == pytest.approx(wrong, abs=0.05)


def test_the_logged_loss_is_the_sum_of_its_two_parts(taught, tmp_path):
    history = distil_student(taught, tmp_path).history
    parts = history["train_loss_class"] + history["train_loss_distillation"]
    np.testing.assert_allclose(history["train_loss"], parts, rtol=1e-5)


def test_the_teacher_never_changes_and_sees_the_students_view(taught, tmp_path, monkeypatch):
    before = load_file(tmp_path.parent / taught.teacher_dir / "model.safetensors")
    views, teachers = [], []
    call, heads = experiments.FrozenTeacher.__call__, engine.head_logits

    def watch_teacher(self, images, rows):
        teachers.append(self)
        assert torch.equal(images, views[-1])
        assert not self.model.training
        return call(self, images, rows)

    def watch_student(model, images):
        if model.training:
            views.append(images.clone())
        return heads(model, images)

    monkeypatch.setattr(experiments.FrozenTeacher, "__call__", watch_teacher)
    monkeypatch.setattr(engine, "head_logits", watch_student)
    distil_student(taught, tmp_path)
    assert teachers
    after = teachers[0].model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_out_of_fold_labels_come_from_a_teacher_that_never_saw_the_person(
    taught, tmp_path, monkeypatch
):
    trained_on = {}
    run_one = experiments._run

    def watch(model, faces, chosen, run_dir, params, device, **options):
        if "fold" in chosen:
            trained_on[chosen["fold"]] = set(faces.table["identity"].iloc[options["train_rows"]])
        return run_one(model, faces, chosen, run_dir, params, device, **options)

    asked = []
    call = experiments.FrozenTeacher.__call__
    monkeypatch.setattr(experiments, "_run", watch)
    taught.teacher_labels, taught.student_epochs = "out_of_fold", 1
    faces = load_faces(taught.crops_dir, taught.image_size)
    fold = fold_of(faces)
    teacher_of_fold = {}

    def watch_call(self, images, rows):
        asked.append(self)
        return call(self, images, rows)

    monkeypatch.setattr(experiments.FrozenTeacher, "__call__", watch_call)
    make = experiments.FrozenTeacher.__init__

    def watch_make(self, run, device):
        teacher_of_fold[id(self)] = run.params["parameters"].get("fold")
        make(self, run, device)

    monkeypatch.setattr(experiments.FrozenTeacher, "__init__", watch_make)
    distil_student(taught, tmp_path)
    assert set(teacher_of_fold.values()) == set(range(FOLDS))
    assert asked
    train = faces.table["split"] == "train"
    for number, identities in trained_on.items():
        held_out = set(faces.table["identity"][train & (fold == number)])
        assert held_out
        assert not held_out & identities
        assert held_out | identities == set(faces.table["identity"][train])


def test_soft_distillation_runs_at_its_temperature(taught, tmp_path):
    taught.distillation, taught.student_epochs = "soft", 1
    losses = []
    for temperature in (1.0, 3.0):
        taught.temperature = temperature
        run = distil_student(taught, tmp_path / str(temperature))
        assert run.params["parameters"]["temperature"] == temperature
        losses.append(run.history["train_loss_distillation"].item())
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


def test_the_temperature_of_no_soft_distillation_is_not_recorded(taught, tmp_path):
    taught.student_epochs = 1
    first = distil_student(taught, tmp_path / "a")
    assert "temperature" not in first.params["parameters"]
    taught.temperature = 8.0
    assert same_weights(first, distil_student(taught, tmp_path / "b"))


def test_a_trained_run_can_be_asked_about_other_faces(taught, crops_dir, tmp_path):
    run = distil_student(taught, tmp_path)
    asked = predict_runs([run], crops_dir)
    np.testing.assert_allclose(asked["probability"], run.predictions["probability"], atol=1e-6)
    assert set(asked["arm"]) == {"deit_tiny-resnet50"}


def test_every_head_is_trained_by_a_float64_twin(taught):
    """One step's loss and gradients against an independent computation in float64."""
    torch.manual_seed(0)
    model, _ = engine_model()
    twin = copy.deepcopy(model).double()
    images = torch.randn(4, 3, 32, 32)
    labels, teacher = torch.tensor([1.0, 0, 0, 1]), torch.tensor([2.0, 3.0, -1.0, -0.5])
    logits = engine.head_logits(model, images)
    loss = classification_loss(logits[:, 0], labels) + experiments_loss(logits[:, 1], teacher)
    loss.backward()
    tokens = twin.forward_features(images.double())
    p = torch.sigmoid(torch.cat([twin.head(tokens[:, 0]), twin.head_dist(tokens[:, 1])], 1))
    target = torch.stack([labels, torch.tensor([1.0, 1.0, 0, 0])], 1).double()
    by_hand = -(target * p.log() + (1 - target) * (1 - p).log()).mean(0).sum()
    by_hand.backward()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=1e-5, rtol=1e-3, msg=name)


def engine_model():
    from helpers.networks.models import build_student

    model, start = build_student("deit_tiny", "scratch", 32)
    return model.train(), start


def experiments_loss(logits, teacher):
    return engine.DISTILLATION_LOSSES["hard"](logits, teacher)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teacher": "swin"}, r"holds the teacher resnet50, not the teacher swin\.$"),
        ({"teacher_dir": "runs/no/such"}, r"The run folder runs/no/such does not exist\.$"),
        ({"image_size": 48}, r"trained at 32 pixels .*both must see the same view\.$"),
        ({"crops_dir": "no/crops"}, r"The folder no/crops \(cropped faces\) does not exist\.$"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_sentence(taught, tmp_path, change, sentence):
    vars(taught).update(change)
    with pytest.raises(StudyError, match=sentence):
        distil_student(taught, tmp_path)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_teachers_folder_that_lacks_a_file_is_one_sentence(taught, tmp_path, teacher_run, name):
    for file in RUN_FILES:
        if file != name:
            (tmp_path / file).write_bytes((teacher_run / file).read_bytes())
    taught.teacher_dir = str(tmp_path)
    with pytest.raises(StudyError, match=rf"lacks {name}\.$"):
        distil_student(taught, tmp_path / "student")


def test_crops_without_a_validation_split_are_one_sentence(teacher_parameters, tmp_path, crops_dir):
    table = pd.read_csv(crops_dir / "manifest.csv", dtype={"identity": str})
    for path in table["path"]:
        (tmp_path / path).write_bytes((crops_dir / path).read_bytes())
    table.assign(split="train").to_csv(tmp_path / "manifest.csv", index=False)
    teacher_parameters.crops_dir = str(tmp_path)
    with pytest.raises(StudyError, match="no face of the split 'validation'"):
        train_teacher(teacher_parameters, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run(teacher_parameters, tmp_path):
    teacher_parameters.learning_rate, teacher_parameters.clip_norm = 1e30, None
    with pytest.raises(StudyError, match=r"training loss is .* in epoch"):
        train_teacher(teacher_parameters, tmp_path)


def test_a_damaged_json_is_named(teacher_run, tmp_path):
    for file in RUN_FILES:
        (tmp_path / file).write_bytes((teacher_run / file).read_bytes())
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(StudyError, match=r"metrics\.json is not JSON"):
        read_run(tmp_path)
    assert json.loads((teacher_run / "metrics.json").read_text())["epochs"] == 1
