"""The whole study on a handful of pairs, as `make report` runs it."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import yaml

from helpers.files import ROOT
from helpers.parameters import read_config

ARMS = [
    "teacher/resnet50",
    "teacher/swin",
    "student/deit_tiny-resnet50",
    "student/deit_tiny-swin",
    "student/deit_tiny-none",
]
TINY = {"image_size": 32, "batch_size": 4, "teacher_epochs": 1, "student_epochs": 1}
TINY["allow_weak_teacher"] = True


def snakemake(folder, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config/tiny.yaml")]
    command += ["--cores", "1", "--keep-going", "--rerun-incomplete", "--nolock", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with twelve pairs, half of them Pain, a broken file, and a tiny config."""
    folder = tmp_path_factory.mktemp("study")
    pairs = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    pain = [path for path in pairs if "_Pain_" in path.name][:6]
    other = [path for path in pairs if "_NoPain_" in path.name][:6]
    (folder / "pairs").mkdir()
    for path in pain + other:
        shutil.copy(path, folder / "pairs")
    (folder / "pairs/notes.txt").write_text("not a picture")
    config = read_config("config/quick.yaml") | TINY | {"raw_dir": str(folder / "pairs")}
    config |= {"split_ratios": [0.5, 0.25, 0.25], "bootstrap_samples": 50}
    (folder / "config").mkdir()
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump(config))
    return folder


def finished_arms(study) -> set[str]:
    return {arm for arm in ARMS if (study / f"runs/tiny/{arm}/seed0/metrics.json").is_file()}


@pytest.fixture(scope="module")
def failed(study):
    """The first call: one run cannot write its weights, because a folder has their name."""
    obstacle = study / "runs/tiny/teacher/swin/seed0/model.safetensors"
    obstacle.mkdir(parents=True)
    call = snakemake(study)
    obstacle.rmdir()
    return call, finished_arms(study)


@pytest.fixture(scope="module")
def finished(study, failed):
    """The second call, after the obstacle is gone."""
    return snakemake(study)


def metrics_file(study, arm):
    return study / f"runs/tiny/{arm}/seed0/metrics.json"


def test_a_run_that_fails_leaves_the_error_in_its_notebook_and_the_rest_goes_on(study, failed):
    call, arms = failed
    assert call.returncode != 0
    assert set(ARMS) - arms == {"teacher/swin", "student/deit_tiny-swin"}
    assert "Is a directory" in call.stdout + call.stderr


def test_the_next_call_takes_up_there(study, finished):
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished_arms(study) == set(ARMS)
    log = finished.stdout + finished.stderr
    assert "resnet50/seed0/03_train_teacher.ipynb" not in log


def test_every_file_is_accounted_for(study, finished):
    prepared = pd.read_csv(study / "data/prepared/tiny/manifest.csv")
    rejected = pd.read_csv(study / "data/prepared/tiny/rejected.csv")
    assert len(prepared) == 24
    assert list(rejected["path"]) == ["notes.txt"]
    crops = pd.read_csv(study / "data/crops/tiny/manifest.csv")
    assert set(crops["image_id"]) == set(prepared["image_id"])
    assert (crops[["width", "height"]] == 256).all(axis=None)


def test_every_arm_predicts_the_same_faces(study, finished):
    faces = {
        arm: pd.read_csv(metrics_file(study, arm).with_name("predictions.csv")) for arm in ARMS
    }
    first = faces[ARMS[0]][["image_id", "split", "label"]]
    for table in faces.values():
        pd.testing.assert_frame_equal(table[["image_id", "split", "label"]], first)
        assert table["probability"].between(0, 1).all()


def test_the_comparison_names_every_arm(study, finished):
    metrics = pd.read_csv(study / "results/tiny/metrics.csv")
    assert set(metrics["arm"]) == {arm.partition("/")[2] for arm in ARMS}


def test_the_page_holds_the_six_chapters(study, finished):
    page = (study / "runs/tiny/report.html").read_text()
    assert page.count("<section id=") == 6
    assert page.count("The same chapter for") == 3


def test_a_further_call_does_nothing(study, finished):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.ipynb")}
    again = snakemake(study)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in study.rglob("*.ipynb")}


def test_an_ablation_trains_what_it_changes_and_chapter_5_shows_it(study, finished):
    weights = [metrics_file(study, arm).with_name("model.safetensors") for arm in ARMS]
    before = [path.stat().st_mtime_ns for path in weights]
    call = snakemake(study, "ablation_shuffled")
    assert call.returncode == 0, call.stderr[-3000:]
    runs = study / "runs/tiny/ablations/shuffled"
    made = sorted(str(path.parent.relative_to(runs)) for path in runs.rglob("metrics.json"))
    assert made == ["student/deit_tiny-resnet50/seed0", "student/deit_tiny-swin/seed0"]
    for name in made:
        parameters = json.loads((runs / name / "params.json").read_text())["parameters"]
        assert parameters["teacher_labels"] == "shuffled"
    assert before == [path.stat().st_mtime_ns for path in weights]
    assert snakemake(study).returncode == 0
    shown = pd.read_csv(study / "results/tiny/ablations.csv")
    assert set(shown["ablation"]) == {"study", "shuffled"}


def planned(study, *options) -> dict[str, str]:
    """Return what each rule would ask for, were the whole study run anew."""
    call = snakemake(study, "--dry-run", "--forceall", *options)
    assert call.returncode == 0, call.stderr[-3000:]
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", call.stdout, re.M)
    return {rule: text for rule, text in jobs}


def test_on_a_cluster_each_training_asks_for_one_gpu_and_nothing_else_does(study, finished):
    jobs = planned(study, "--profile", str(ROOT / "config/slurm"), "--cores", "8")
    with_gpu = {rule for rule, text in jobs.items() if re.search(r"\bgpu=1\b", text)}
    assert with_gpu == {"train_teacher", "distil_student"}
    assert set(jobs) == {*with_gpu, "prepare", "crop", "compare", "explore", "report", "all"}
    for rule in with_gpu:
        assert "runtime=720" in jobs[rule]
        assert "threads: 8" in jobs[rule]
    assert "mem_mb=32000" in jobs["compare"]


@pytest.mark.parametrize(("visible", "threads"), [("0,1", 2), ("", 4)])
def test_trainings_run_side_by_side_on_a_machine_with_several_gpus(
    study, finished, monkeypatch, visible, threads
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    jobs = planned(study, "--cores", "4")
    for rule in ("train_teacher", "distil_student"):
        assert f"threads: {threads}" in jobs[rule]
    assert "threads: 4" in jobs["crop"]


def test_an_executed_notebook_lies_beside_its_run(study, finished):
    for arm in ARMS:
        (notebook,) = metrics_file(study, arm).parent.glob("*.ipynb")
        cells = nbformat.read(notebook, as_version=4).cells
        injected = [c for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
        assert len(injected) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sede": 1}, "none of the notebooks has a parameter named 'sede'"),
        ({"teachers": ["vgg"]}, "Unknown teacher 'vgg'"),
    ],
)
def test_a_config_that_does_not_fit_stops_before_anything_runs(tmp_path, change, sentence):
    (tmp_path / "config").mkdir()
    config = read_config("config/quick.yaml") | change
    (tmp_path / "config/tiny.yaml").write_text(yaml.safe_dump(config))
    call = snakemake(tmp_path)
    assert call.returncode != 0
    assert sentence in call.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("notebook", "given", "sentence"),
    [
        ("01_prepare_dataset", {"raw_dir": "no/where"}, "The folder no/where"),
        ("02_crop_faces", {"sede": 1}, "None of the notebooks has a parameter named 'sede'."),
        ("04_distill_student", {"teacher": "vgg"}, "Unknown teacher 'vgg'"),
        ("05_compare_teachers", {"runs_dir": "no/runs"}, "The folder no/runs"),
        ("06_explore_faces", {"runs_dir": "no/runs"}, "The folder no/runs"),
    ],
)
def test_papermill_by_hand_ends_in_one_sentence(tmp_path, notebook, given, sentence):
    command = [sys.executable, "-m", "papermill", f"notebooks/{notebook}.ipynb"]
    command += [str(tmp_path / "out.ipynb"), "-f", "config/quick.yaml", "-y", yaml.safe_dump(given)]
    call = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert call.returncode != 0
    last = call.stderr.strip().splitlines()[-1]
    assert last.startswith("StudyError: ")
    assert sentence in last
