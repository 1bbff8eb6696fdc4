"""The whole study on a handful of pairs, as `make report` runs it, in a clone of the project."""

import fcntl
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml

from helpers.files import ROOT
from helpers.parameters import read_config

TEACHERS = ["teacher/resnet50/seed0", "teacher/swin/seed0"]
STUDENTS = [f"student/deit_tiny-{name}/seed0" for name in ("resnet50", "swin", "none")]
RUNS = "runs/tiny"
TINY = {"image_size": 32, "batch_size": 4, "teacher_epochs": 1, "student_epochs": 1, "seeds": [0]}
TINY |= {"allow_weak_teacher": True, "bootstrap_samples": 50, "split_ratios": [0.5, 0.25, 0.25]}
TINY |= {"raw_dir": "data/raw/tiny"}


def call(study, *words, **environment):
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(study), **environment}
    env = os.environ | own
    return subprocess.run(words, cwd=study, env=env, capture_output=True, text=True)


def make(study, *options, **environment):
    command = [sys.executable, "-m", "snakemake", *options, "--configfile", "config/tiny.yaml"]
    command += ["--cores", "2", "--keep-going", "--rerun-incomplete", "--nolock", "--set-threads"]
    rules = ("train_teacher", "distil_student", "inherit", "compare")
    return call(study, *command, *[f"{rule}=1" for rule in rules], **environment)


def write_config(study, **changes):
    config = read_config("config/quick.yaml") | TINY | changes
    (study / "config/tiny.yaml").write_text(yaml.safe_dump(config))


def times(study):
    """Return when each run's weights were written."""
    found = sorted((study / RUNS).rglob("model.safetensors"))
    return {path.relative_to(study / RUNS): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A clone with a config of its own, on twelve pairs and a note, at a path with a space."""
    folder = tmp_path_factory.mktemp("study") / "Schmerz Studie ä {p}"
    for name in ("helpers", "notebooks", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=lambda *_: ["__pycache__"])
    for name in ("Snakefile", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    pairs = folder / TINY["raw_dir"]
    pairs.mkdir(parents=True)
    for kind in ("Pain", "NoPain"):
        for path in sorted((ROOT / "data/standin/pairs").glob(f"*_{kind}_*.jpg"))[:6]:
            shutil.copy(path, pairs)
    (pairs / "notes.txt").write_text("not a picture")
    (folder / "data/weights").symlink_to(ROOT / "data/weights")
    write_config(folder)
    call(folder, "git", "init", "--quiet")
    call(folder, "git", "add", "--all")
    return folder


@pytest.fixture(scope="module")
def failed(study):
    """The first call: one run cannot write its weights, because a folder has their name."""
    obstacle = study / RUNS / TEACHERS[1] / "model.safetensors"
    obstacle.mkdir(parents=True)
    first = make(study)
    obstacle.rmdir()
    return first, [run for run in TEACHERS + STUDENTS if (study / RUNS / run / ".done").is_file()]


@pytest.fixture(scope="module")
def made(study, failed):
    """The study after a second call, the obstacle gone."""
    second = make(study)
    assert second.returncode == 0, second.stderr[-3000:]
    return study


def test_a_run_that_fails_leaves_the_error_and_the_next_call_takes_up_there(failed, made):
    first, finished = failed
    assert first.returncode != 0
    assert "Is a directory" in first.stdout + first.stderr
    assert finished == [TEACHERS[0], STUDENTS[0], STUDENTS[2]]
    assert len(times(made)) == 5
    assert "Nothing to be done" in make(made).stderr
    untracked = call(made, "git", "status", "--porcelain").stdout
    assert [line for line in untracked.splitlines() if line[:2] != "A "] == []


def test_the_pages_hold_every_chapter_of_every_run_and_open_with_the_answer(made):
    pages = {path.name for path in (made / RUNS / "report").glob("[0A]*.html")}
    assert len(pages) == 8 + 1 + 2
    assert {"03_train_teacher-swin-seed0.html", "06_what_is_inherited.html"} < pages
    answer = (made / RUNS / "results/answer.md").read_text().strip()
    assert answer[:30] in (made / RUNS / "report/index.html").read_text()


def planned(study, *options):
    """Return what each rule would ask for, were the whole study run anew."""
    plan = make(study, *options, "--dry-run", "--forceall").stdout
    return dict(re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", plan, re.M))


def test_on_a_cluster_each_training_asks_for_one_gpu_and_nothing_else_does(made):
    jobs = planned(made, "--profile", "config/slurm")
    with_gpu = {rule for rule, text in jobs.items() if re.search(r"\bgpu=1\b", text)}
    assert with_gpu == {"train_teacher", "distil_student"}
    chapters = {"prepare", "crop", "compare", "inherit", "explore", "predict"}
    assert set(jobs) == {*with_gpu, *chapters, "report", "all"}
    assert all("runtime=720" in jobs[rule] for rule in with_gpu)
    assert "mem_mb=32000" in jobs["inherit"]


def test_published_runs_are_shown_and_not_trained_unless_told_to(made):
    published = make(made, "publish", TRAIN="1")
    files = {path.name for path in (made / "results/tiny/runs").rglob("*.*")}
    shown, trained = (
        make(made, "--dry-run", "--forceall", "--printshellcmds", TRAIN=train).stdout
        for train in ("0", "1")
    )
    shutil.rmtree(made / "results")
    assert published.returncode == 0, published.stderr[-3000:]
    assert "metrics.json" in files
    assert "model.safetensors" not in files
    assert "out_dir: results/tiny/runs/teacher" in shown
    assert "out_dir: runs/tiny/teacher" in trained


def test_an_edited_text_or_docstring_trains_nothing(made):
    before, path = times(made), made / "notebooks/03_train_teacher.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("A further word."))
    nbformat.write(notebook, path)
    code = made / "helpers/train.py"
    code.write_text(code.read_text().replace('"""', '"""Edited. ', 1))
    assert make(made, f"{RUNS}/{TEACHERS[0]}/.done").returncode == 0
    assert "A further word." in (made / RUNS / TEACHERS[0] / path.name).read_text()
    assert times(made) == before


def test_a_run_made_otherwise_is_refused_before_anything_runs_or_moved_aside(made):
    before, code = times(made), made / "helpers/distil.py"
    text = code.read_text()
    code.write_text(text + "\nEDITED = 1\n")
    refused = make(made)
    code.write_text(text)
    assert refused.returncode != 0
    assert "made otherwise (the training code)" in refused.stderr
    write_config(made, learning_rate=0.5)
    sentence = rf"{RUNS}/{TEACHERS[0]} was made otherwise \(learning_rate 0.0001 → 0.5\)"
    assert re.search(sentence, make(made).stderr)
    assert times(made) == before
    assert make(made, "data/crops/tiny/manifest.csv", FRESH="1").returncode == 0
    aside = {path.parent.with_name("seed0.before-1") / path.name: before[path] for path in before}
    assert times(made) == aside


def test_what_does_not_fit_stops_in_one_sentence(made, tmp_path):
    for change, sentence in (
        ({"sede": 1}, "none of the notebooks has a parameter named 'sede'"),
        ({"split_ratios": [70.0, 15.0, 15.0]}, "split_ratios must be three shares"),
        ({"students": ["deit_small"], "init": "faces"}, "no weights of deit_small"),
    ):
        write_config(made, **change)
        assert sentence in make(made, "--dry-run").stdout
    write_config(made, raw_dir="no/where")
    make(made)
    assert f".ipynb: The folder {made}/no/where" in (made / RUNS / ".said").read_text()
    write_config(made)
    with (made / RUNS / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another call works on runs/tiny" in make(made).stderr


def test_make_names_the_configs_there_are_and_needs_no_home_that_can_be_written():
    words = ["make", "--print-data-base", "--dry-run", "test"]
    told = call(ROOT, *words, "CONFIG=no")
    assert "There is no config/no.yaml: choose one of quick standin synpain" in told.stderr
    assert f"HOME := {ROOT}/.cache" in call(ROOT, *words, HOME="/proc/no").stdout


def test_a_notebook_by_hand_says_what_is_wrong(tmp_path):
    papermill = [sys.executable, "-m", "papermill", "notebooks/01_prepare_dataset.ipynb"]
    given = ["-f", "config/quick.yaml", "-p", "raw_dir", "no/where"]
    ended = call(ROOT, *papermill, str(tmp_path / "out.ipynb"), *given).stderr.strip()
    assert ended.splitlines()[-1].startswith(f"StudyError: The folder {ROOT}/no/where")
