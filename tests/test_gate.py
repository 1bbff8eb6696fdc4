"""The gate: teachers at chance do not teach, unless they are let, and the write-up says so."""

import json

import numpy as np
import pandas as pd
import pytest
from made_runs import make_runs

from helpers.errors import StudyError
from helpers.evaluation.compare import load_runs, make_panel
from helpers.evaluation.tables import evaluate
from helpers.training import experiments
from helpers.training.experiments import distil_student
from helpers.training.gate import SAMPLES, SEED, gate_words, pass_gate, reading
from helpers.training.runs import read_run
from helpers.training.teaching import describe_teaching
from helpers.writeup.frame import abstract, method
from helpers.writeup.readings import weak_teachers


def predictions(people, skill, seed=2):
    """Faces of as many validation identities, every other one in pain, scored with some skill."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(people):
        for side in ("left", "right"):
            pain = person % 2 == 0 and side == "right"
            score = 1 / (1 + np.exp(-(skill * pain + rng.normal())))
            label = "Pain" if pain else "NoPain"
            rows.append((f"{person}_{side}", str(person), side, "validation", label, score))
            # a perfect score elsewhere must not count
            rows.append((f"t{person}_{side}", f"t{person}", side, "test", label, float(pain)))
    columns = ["image_id", "identity", "side", "split", "label", "probability"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=seed)


@pytest.fixture
def weak_teacher(teacher_run, tmp_path):
    """The run folder of a teacher that says the same of everybody."""
    folder = tmp_path / "weak"
    folder.mkdir()
    for file in teacher_run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    faces = pd.read_csv(folder / "predictions.csv", dtype={"identity": str})
    faces.assign(probability=0.3).to_csv(folder / "predictions.csv", index=False)
    return folder


def test_the_interval_is_that_of_the_comparison():
    faces = predictions(40, 1.0)
    found = reading(faces)
    tables = faces.assign(probability_class=np.nan, probability_distillation=np.nan)

    class Made:
        predictions, name, seed = tables, "resnet50", 0

    panel = make_panel([Made()], SAMPLES, SEED, "validation")
    area = panel.estimates("resnet50", "all")["auroc"]
    assert found["auroc"] == pytest.approx(area.value, abs=1e-12)
    assert (found["auroc_low"], found["auroc_high"]) == pytest.approx((area.low, area.high))


@pytest.mark.parametrize(
    ("people", "skill", "beats"),
    [(40, 3.0, True), (40, 0.0, False), (40, -3.0, False), (8, 9.0, False)],
    ids=["skilled", "guesses", "inverted", "too few people"],
)
def test_only_an_interval_above_one_half_beats_chance(people, skill, beats):
    found = reading(predictions(people, skill))
    assert found["beats_chance"] is beats
    assert (found["auroc_low"] is None) == (people == 8)
    if people == 40:
        assert (found["auroc_low"] > 0.5) == beats
    if skill == 0:
        assert found["auroc"] > 0.5
    json.loads(json.dumps(found), parse_constant=pytest.fail)


def test_a_weak_teacher_stops_its_students_before_they_start(
    student_parameters, weak_teacher, tmp_path, monkeypatch
):
    p = student_parameters
    p.teacher, p.teacher_dir = "resnet50", str(weak_teacher)
    p.allow_weak_teacher = False
    with pytest.raises(StudyError) as caught:
        distil_student(p, tmp_path / "student")
    said = str(caught.value)
    assert "weak is not shown to beat chance on validation (AUROC 0.50, with too few" in said
    assert said.endswith("train it otherwise, or set allow_weak_teacher to true.")
    assert not (tmp_path / "student").exists()
    run = read_run(weak_teacher)
    assert "Chapter 4 will not let it teach" in gate_words(run)
    # without distillation the same student needs no teacher
    p.distillation, p.student_epochs = "none", 1
    distil_student(p, tmp_path / "student")


def test_a_weak_teacher_that_is_allowed_is_told_of(student_parameters, weak_teacher, tmp_path):
    p = student_parameters
    p.teacher, p.teacher_dir, p.student_epochs = "resnet50", str(weak_teacher), 1
    run = distil_student(p, tmp_path / "student")
    assert run.params["allow_weak_teacher"] is True
    (found,) = run.metrics["validation"]["teachers"]
    expected = {"auroc": 0.5, "auroc_low": None, "auroc_high": None, "beats_chance": False}
    assert expected.items() <= found.items()
    assert "**A weak teacher was allowed:**" in describe_teaching(run)
    # having been allowed once does not make it strong
    p.allow_weak_teacher = False
    with pytest.raises(StudyError, match="not shown to beat chance"):
        distil_student(p, tmp_path / "student")


def test_a_strong_teacher_passes(teacher_run):
    run = read_run(teacher_run)
    run.predictions = predictions(40, 3.0)
    assert pass_gate(run, allow_weak=False)["beats_chance"]
    assert "it may teach" in gate_words(run)


def test_every_fold_teacher_must_pass(student_parameters, teacher_run, tmp_path, monkeypatch):
    p = student_parameters
    p.teacher, p.teacher_dir = "resnet50", str(teacher_run)
    p.teacher_labels, p.allow_weak_teacher = "out_of_fold", False
    strong, weak = read_run(teacher_run), read_run(teacher_run)
    strong.predictions, weak.predictions = predictions(40, 3.0), predictions(40, 0.0)
    monkeypatch.setattr(experiments, "read_teacher", lambda parameters: strong)
    monkeypatch.setattr(experiments, "train_fold_teachers", lambda *_: [strong, strong, weak])
    with pytest.raises(StudyError, match="not shown to beat chance"):
        distil_student(p, tmp_path / "student")


WEAK = {"auroc": 0.52, "auroc_low": 0.41, "auroc_high": 0.63, "beats_chance": False}


def study_of(folder):
    return evaluate(load_runs(folder), 50, 0)


def test_the_write_up_names_the_students_of_weak_teachers(tmp_path):
    folder = make_runs(tmp_path, seeds=(0, 1))
    assert weak_teachers(study_of(folder)) == ""
    assert "Weak teachers" not in abstract(study_of(folder))
    metrics = folder / "student/deit_tiny-swin/seed1/metrics.json"
    content = json.loads(metrics.read_text())
    content["validation"] = {"auroc": 0.7, "teachers": [WEAK]}
    metrics.write_text(json.dumps(content))
    said = abstract(study_of(folder))
    expected = "DeiT-Ti taught by Swin-T (seed 1: AUROC 0.52 [0.41, 0.63])"
    assert f"to beat chance: {expected}." in said
    assert "allow_weak_teacher" in said


def test_the_method_names_a_control_and_a_temperature(tmp_path):
    folder = make_runs(tmp_path)
    params = folder / "student/deit_tiny-swin/seed0/params.json"
    content = json.loads(params.read_text())
    soft = {"distillation": "soft", "temperature": 3.0, "teacher_labels": "shuffled"}
    content["parameters"] |= soft
    params.write_text(json.dumps(content))
    said = method(study_of(folder))
    assert "hard, by the teacher's decision; soft, by the teacher's probability (shuffled" in said
    assert "at temperature 3)" in said
