"""Run folders: when two runs are the same, what is refused, and what is never overwritten."""

import shutil
import subprocess

import pandas as pd
import pytest
import torch
from conftest import QUICK

from helpers import files, runs
from helpers.files import ROOT, StudyError
from helpers.parameters import read_config

PREDICTIONS = pd.DataFrame(
    {
        "image_id": ["0_left", "0_right", "1_left", "1_right"],
        "identity": ["0", "0", "1", "1"],
        "side": ["left", "right"] * 2,
        "split": ["train", "train", "test", "test"],
        "label": ["NoPain", "Pain", "NoPain", "NoPain"],
    }
).assign(probability=[0.1, 0.9, 0.2, 0.6], probability_class=0.5, probability_distillation=0.5)
PARAMETERS = {"seed": 0, "learning_rate": 1e-4, "init": "faces", "epochs": 2}
PARAMS = {"stage": "student", "name": "deit_tiny-swin", "parameters": PARAMETERS}
PARAMS |= {"crops_sha256": "c", "faces_hash": "f", "teacher_sha256": "t", "code_hash": "h"}


def made(folder, params=PARAMS, weights=True):
    folder.mkdir(parents=True)
    if weights:
        (folder / runs.WEIGHTS).write_bytes(b"weights")
    history, metrics = ({key: 1.0 for key in keys} for keys in (runs._HISTORY, runs._METRICS))
    return runs.write_run(folder, params, pd.DataFrame([history]), PREDICTIONS, metrics)


def changed(**parameters):
    return PARAMS | {"parameters": PARAMETERS | parameters}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_is_the_one_that_was_made_alike(tmp_path, capsys):
    folder = tmp_path / "seed0"
    made(folder)
    assert runs.finished_run(folder, PARAMS).params == PARAMS
    assert runs.finished_run(folder, PARAMS | {"crops_sha256": "d"}) is not None
    assert "other bytes of the same crops" in capsys.readouterr().out
    (folder / "metrics.json").unlink()  # what a kill between two files leaves is not finished
    assert runs.finished_run(folder, PARAMS) is None


@pytest.mark.parametrize(
    ("params", "what"),
    [
        (changed(init="scratch", epochs=3), r"\(init faces → scratch; epochs 2 → 3\)"),
        (PARAMS | {"faces_hash": "g"}, r"\(the faces\)"),
        (PARAMS | {"code_hash": "i"}, r"\(the training code\)"),
    ],
)
def test_a_run_that_was_made_otherwise_is_refused_and_moved_aside_when_told(
    tmp_path, monkeypatch, params, what
):
    folder = tmp_path / "seed0"
    made(folder)
    (folder / "metrics.json").unlink()  # as Snakemake does before a job
    before = contents(folder)
    way = r" another out_dir, or set FRESH=1, which moves it aside to seed0\.before-1\.$"
    with pytest.raises(StudyError, match=rf"seed0 was made otherwise {what}.*{way}"):
        runs.finished_run(folder, params)
    monkeypatch.setenv("FRESH", "1")
    assert runs.finished_run(folder, params) is None
    assert contents(tmp_path / "seed0.before-1") == before


def test_a_published_run_is_shown_whatever_is_here_and_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("FRESH", "1")
    folder = tmp_path / "seed0"
    made(folder, weights=False)
    before = contents(folder)
    other = changed(amp=True) | {"faces_hash": "g", "code_hash": "i", "teacher_sha256": "u"}
    for params in (PARAMS, other, {key: other[key] for key in ("stage", "name", "parameters")}):
        assert runs.finished_run(folder, params).published
    with pytest.raises(StudyError, match=r"\(seed 0 → 1\), and nothing .* another out_dir\.$"):
        runs.finished_run(folder, changed(seed=1))
    assert contents(folder) == before


def test_the_published_runs_are_those_of_the_config():
    config = read_config("config/standin.yaml")
    found = runs.load_runs("results/standin/runs")
    assert len(found) == 15
    for run in found:
        student, _, teacher = run.name.rpartition("-")
        given = config | {"teacher": teacher, "seed": run.seed}
        given |= {"student": student} if student else {}
        assert runs.finished_run(run.folder, runs.params_of(given)).metrics == run.metrics
        runs.refuse_other(run.folder, given)
        with pytest.raises(StudyError, match=r"made otherwise \(batch_size 32 → 64\)"):
            runs.refuse_other(run.folder, given | {"batch_size": 64})


def test_what_a_student_without_a_teacher_does_not_have_does_not_count():
    alone = runs.params_of(QUICK | {"teacher": "none"})
    other = {"temperature": 9.0, "teacher_labels": "shuffled", "distillation": "soft"}
    assert runs.params_of(QUICK | other | {"teacher": "none", "device": "mps"}) == alone


def test_a_copy_in_another_repository_does_not_take_its_commit(tmp_path, monkeypatch):
    words = "git init -q && git -c user.name=a -c user.email=a commit -q --allow-empty -m a"
    subprocess.run(words, shell=True, cwd=tmp_path, check=True)
    (tmp_path / "copy").mkdir()
    for root, known in ((tmp_path, True), (tmp_path / "copy", False)):
        monkeypatch.setattr(runs, "ROOT", root)
        assert (runs.provenance(torch.device("cpu"))["git_commit"] != "unknown") == known


def test_faces_and_code_decide_and_words_do_not(tmp_path, monkeypatch):
    table = PREDICTIONS.assign(path="a.jpg", probability=0.0)
    assert runs.faces_hash(table) == runs.faces_hash(PREDICTIONS)
    others = [table[::-1], table[:3], table]
    others += [table.assign(**{column: "x"}) for column in ("image_id", "label", "split")]
    assert len({runs.faces_hash(other) for other in others}) == 6
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    before = runs.code_hash()
    (tmp_path / "helpers/text.py").write_text("")
    for name in ("models", "faces", "distil", "train"):
        path = tmp_path / "helpers" / f"{name}.py"
        source = path.read_text()
        path.write_text(source.replace(source.split('"""')[1], "Words.") + "\n# comment\n\n")
        assert runs.code_hash() == before
        path.write_text(source + "\nMORE = 1\n")
        assert runs.code_hash() != before
        path.write_text(source)


def test_runs_come_in_the_order_of_the_arms_and_those_put_aside_do_not_count(tmp_path):
    made(tmp_path / "teacher/resnet50/seed2.before-1", changed(seed=7))
    made(tmp_path / "ablations/soft/student/deit_tiny-swin/seed2")
    arms = ["deit_tiny-swin", "deit_tiny-none", "resnet50"]
    for arm in arms:
        stage = "student" if "-" in arm else "teacher"
        for seed in (10, 2):
            params = changed(seed=seed) | {"name": arm, "stage": stage}
            made(tmp_path / stage / arm / f"seed{seed}", params, weights=False)
    found = [(run.name, run.seed) for run in runs.load_runs(tmp_path)]
    assert found == [(arm, seed) for arm in reversed(arms) for seed in (2, 10)]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("history", lambda t: t.drop(columns="epoch"), r"seed0/history\.csv lacks 'epoch'"),
        ("predictions", lambda t: pd.concat([t, t[:1]]), "a face twice"),
        ("predictions", lambda t: t.assign(identity="0"), "an identity in two splits"),
        ("predictions", lambda t: t.assign(label="NoPain"), "different faces, labels"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path, name, change, sentence):
    for seed in (0, 1):
        made(tmp_path / f"student/deit_tiny-swin/seed{seed}", changed(seed=seed))
    path = tmp_path / f"student/deit_tiny-swin/seed0/{name}.csv"
    files.write_csv(path, change(files.read_csv(path)))
    with pytest.raises(StudyError, match=sentence):
        runs.load_runs(tmp_path)


def test_a_kept_table_is_made_once_of_each_set_of_runs(tmp_path):
    first, second = (made(tmp_path / f"seed{seed}", changed(seed=seed)) for seed in (0, 1))
    path, calls = tmp_path / "kept" / "table.csv.gz", []

    def make():
        calls.append(1)
        return pd.DataFrame({"image_id": ["007"], "value": [1 / 3 + len(calls)]})

    table = runs.kept(path, [first, second], make, version=1)
    pd.testing.assert_frame_equal(runs.kept(path, [first, second], make, version=1), table)
    runs.kept(path, [first, second], make, version=2)
    runs.kept(path, [first], make, version=2)
    assert len(calls) == 3
    # published runs show what was kept, and can make nothing
    (first.folder / runs.WEIGHTS).unlink()
    assert runs.kept(path, [first], make, version=2)["value"].item() == pytest.approx(10 / 3)
    assert runs.kept(path, [first, second], make) is None
