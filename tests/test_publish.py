"""What is published: what a reader needs, and no weights; a release is whole and of one config."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from conftest import QUICK
from sklearn.metrics import roc_auc_score

from helpers import publish
from helpers.faces import load_faces, plain_view
from helpers.files import StudyError, read_csv, write_csv, write_text
from helpers.parameters import PER_RUN
from helpers.runs import PUBLISHED_FILES, read_run
from helpers.train import distil_student

TEACHER, UNTAUGHT = "teacher/resnet50/seed0", "student/deit_tiny-none/seed0"
RUNS = [TEACHER, UNTAUGHT, "student/deit_tiny-resnet50/seed0"]
METRICS = "runs/tiny/results/metrics.csv"


@pytest.fixture(scope="module")
def made(teacher_run, crops_dir, tmp_path_factory):
    """A config with its runs, tables and a figure, as they lie before a release."""
    root = tmp_path_factory.mktemp("root")
    own = {"teacher_epochs": 1, "student_epochs": 1, "teachers": ["resnet50"]}
    config = {key: value for key, value in (QUICK | own).items() if key not in PER_RUN}
    write_text(root / "config/tiny.yaml", yaml.safe_dump(config))
    shutil.copytree(teacher_run.folder, root / "runs/tiny" / TEACHER)
    given = own | {"crops_dir": str(crops_dir), "teacher_dir": str(root / "runs/tiny" / TEACHER)}
    for run, teacher in zip(RUNS[1:], ("none", "resnet50"), strict=True):
        given["teacher"] = teacher
        distil_student(SimpleNamespace(**QUICK | given), root / "runs/tiny" / run)
    rows = []
    for run in (read_run(root / "runs/tiny" / run) for run in RUNS):
        faces = run.predictions.query("split == 'test'")
        for contrast, other in {"all": "", "neutral": "right", "expressive": "left"}.items():
            part = faces[(faces["label"] == "Pain") | (faces["side"] != other)]
            value = roc_auc_score(part["label"] == "Pain", part["probability"])
            rows.append((run.name, contrast, "auroc", value, value - 0.1, value + 0.1))
    columns = "arm contrast metric estimate low high".split()
    write_csv(root / METRICS, pd.DataFrame(rows, columns=columns))
    for name in ("figures/auroc.png", "kept/cka.csv", "../../LICENSE", "../../CITATION.cff"):
        write_text(root / "runs/tiny" / name, "x")
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy to spoil, in the place of the project."""
    shutil.copytree(made, tmp_path / "root", ignore=shutil.ignore_patterns("*.pt"))
    monkeypatch.setattr(publish, "ROOT", tmp_path / "root")
    return tmp_path / "root"


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_release_is_whole_and_each_arm_says_through_timm_what_its_run_said(root, crops_dir):
    publish.main(["tiny", "--out", str(root / "dist")])
    folder, images = root / "dist/tiny", plain_view(load_faces(crops_dir, 32).images, 32)
    names = files_below(folder)
    expected = {f"results/runs/{run}/{name}" for run in RUNS for name in PUBLISHED_FILES}
    for run in (read_run(root / "runs/tiny" / path) for path in RUNS):
        weights = f"weights/{run.name}/seed0"
        expected |= {f"{weights}/model.safetensors", f"{weights}/config.json"}
        model = timm.create_model(f"local-dir:{folder / weights}", pretrained=True).eval()
        with torch.inference_mode():
            said = model(images).sigmoid()[:, 0]
        assert np.ptp(run.predictions["probability"]) > 1e-4
        np.testing.assert_allclose(said, run.predictions["probability"], atol=1e-5)
    expected |= {"results/metrics.csv", "results/runs/kept/cka.csv", "figures/auroc.png"}
    assert names == expected | {"tiny.yaml", "LICENSE", "CITATION.cff", "README.md", "SHA256SUMS"}
    command = "sha256sum --check --strict SHA256SUMS".split()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK")) == (0, len(names) - 1)
    card = (folder / "README.md").read_text()
    words = ("library_name: timm", "8 test faces of\n4 people", "DeiT-Ti ← ResNet-50")
    cell = f"<td>{read_csv(root / METRICS)['estimate'][2]:.3f}</td>"
    assert all(word in card for word in (*words, cell))
    with pytest.raises(StudyError, match="runs/tiny holds no release: choose another one"):
        publish.release("tiny", root / "runs")


@pytest.mark.parametrize(
    ("path", "old", "new", "sentence"),
    [
        (f"runs/tiny/{UNTAUGHT}/metrics.json", "", "", r"deit_tiny-none/seed0.*metrics\.json"),
        (f"runs/tiny/{UNTAUGHT}/model.safetensors", "", "", r"TRAIN=1 make report CONFIG=tiny"),
        ("config/tiny.yaml", "rate: 0.001", "rate: 1.5", "config: learning_rate 0.001 → 1.5"),
        (METRICS, "50,all,auroc,", "50,all,auroc,1", r"metrics\.csv is of other runs"),
        (METRICS, "resnet50,", "swin,", r"metrics\.csv is of other runs: make report\."),
    ],
)
def test_what_does_not_belong_together_is_not_released(root, path, old, new, sentence):
    file = root / path
    file.write_text(file.read_text().replace(old, new)) if old else file.unlink()
    with pytest.raises(SystemExit, match=sentence):
        publish.main(["tiny", "--out", str(root / "dist")])
    assert not (root / "dist").exists()


def test_runs_are_published_without_weights_and_stay_when_they_are_gone(root):
    runs, results, figures = root / "runs/tiny", root / "results/tiny", root / "figures/tiny"
    for _ in range(2):
        publish.publish(RUNS, runs, results, figures)
        assert publish.is_published(RUNS, results)
        expected = {f"runs/{run}/{name}" for run in RUNS for name in PUBLISHED_FILES}
        expected |= {"metrics.csv", "runs/kept/cka.csv", "auroc.png"}
        assert files_below(results) | files_below(figures) == expected
        shutil.rmtree(runs / UNTAUGHT, ignore_errors=True)
    shutil.rmtree(results / "runs" / UNTAUGHT)
    assert not publish.is_published(RUNS, results)
    with pytest.raises(StudyError, match=r"deit_tiny-none/seed0/params\.json is missing"):
        publish.publish(RUNS, runs, results, figures)


def test_the_snakefile_can_import_it_without_torch():
    code = "import sys, helpers.publish; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
