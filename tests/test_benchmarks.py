"""The benchmark scripts: variants train alike, and figures are what they are named."""

import importlib

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.files import ROOT
from helpers.robustness import CONDITIONS


def script(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def work(crops_dir, tmp_path_factory):
    """What `distillation_epoch` hands to its variants: 16 training crops and a teacher."""
    epoch, folder = script("distillation_epoch"), tmp_path_factory.mktemp("epoch")
    epoch.take_crops(crops_dir, folder / "crops", 16)
    torch.set_num_threads(1)
    epoch.train_teacher(epoch.study_parameters(folder / "crops", 32, 8), folder / "teacher")
    return folder


@pytest.mark.parametrize("variant", ["plain", "timm", "timm, channels last", "ours"])
def test_every_variant_takes_as_many_steps(work, variant, monkeypatch):
    epoch, step, steps = script("distillation_epoch"), torch.optim.Adam.step, []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *a, **k: steps.append(1) or step(*a, **k))
    assert epoch.VARIANTS[variant](work, 32, 8) > 0
    # one epoch to warm up and one that is timed, of two batches each
    assert len(steps) == 4


def test_ratios_are_taken_within_a_repetition():
    # the machine is twice as slow in the second repetition
    speed = pd.DataFrame({"plain": [10.0, 5, 10], "ours": [30.0, 15, 33]})
    table = script("distillation_epoch").summarise(speed).set_index("variant")
    assert table.loc["plain", "images_per_second"] == 10
    ratio = table.loc["plain", ["ours_over_it", "ours_over_it_least", "ours_over_it_most"]]
    assert ratio.tolist() == pytest.approx([3, 3, 3.3])
    assert (table.loc["ours"].filter(like="over") == 1).all()


def test_the_committed_tables_keep_their_promises():
    table = pd.read_csv(ROOT / "benchmarks/results/distillation_epoch.csv")
    ours = table.set_index(["image_size", "variant"])["ours_over_it"]
    assert ours[224, "plain"] >= 3
    assert ours[224, "timm"] >= 1.5
    coverage = pd.read_csv(ROOT / "benchmarks/results/coverage.csv")
    assert coverage["coverage"].between(0.92, 0.98).all()


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (3, 0.15)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds, luck):
    found = script("coverage").coverage(200, seeds, luck)
    assert found["coverage_low"] <= 0.95 <= found["coverage_high"]
    if seeds > 1:  # intervals of the faces alone would fail
        assert found["coverage_of_identities_alone"] < 0.9


def test_the_cost_of_a_study_is_its_faces_over_the_rates():
    config = {"seeds": [0, 1], "split_ratios": [0.5, 0.25, 0.25], "teacher_epochs": 3}
    config |= {"student_epochs": 1, "teachers": ["swin"], "students": ["deit_tiny"]}
    rates = pd.DataFrame({"model": ["01 prepare", "swin", "deit_tiny"], "training": [20, 10, 30.0]})
    rates = rates.assign(scoring=[np.nan, 100, 50])
    # 1,000 pairs: 1,000 faces to train on, 500 and 500 beside
    table = script("study_cost").costs(rates, config, 1000).set_index("arm")
    seconds = table["hours_a_run"] * 3600
    assert seconds["01 prepare"] == pytest.approx(2000 / 20)
    assert seconds["swin"] == pytest.approx(3 * 1000 / 10 + (3 * 500 + 2000) / 100)
    # a pupil is trained while its teacher scores the same faces
    assert seconds["deit_tiny-swin"] == pytest.approx(1000 / 30 + 1000 / 100 + 2500 / 50)
    scored = len(CONDITIONS) * 500 * 2
    assert seconds["06 what is inherited"] == pytest.approx(scored * (1 / 100 + 2 / 50))
    assert table.loc["all", "hours"] == pytest.approx(table["hours"].iloc[:-1].sum())
    assert table["runs"].tolist() == [1, 2, 2, 2, 1, 8]


def small_study(folder, probability=0.5, seconds=(1.5, 2.5)):
    """Write what `slurm_study` compares of a study of one run."""
    run = folder / "runs/small/teacher/resnet50/seed0"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "predictions.csv").write_text(f"probability\n{probability}\n")
    pd.DataFrame({"epoch": [1, 2], "seconds": seconds}).to_csv(run / "history.csv")
    (folder / "log.txt").write_text("Trying to restart job 1.")
    return folder


def test_the_slurm_study_fails_where_results_differ_or_epochs_were_trained_again(tmp_path):
    slurm, here = script("slurm_study"), small_study(tmp_path / "here")
    assert slurm.differences(here, small_study(tmp_path / "alike", seconds=(9, 8))) == []
    other = slurm.differences(here, small_study(tmp_path / "other", 0.6))
    assert other == ["runs/small/teacher/resnet50/seed0/predictions.csv differs."]
    assert slurm.resumed(here, [{"seconds": 1.5}]) == []
    assert "trained its finished" in slurm.resumed(here, [{"seconds": 1.4}])[0]
    assert "in the middle" in slurm.resumed(here, [{"seconds": 1.5}, {"seconds": 2.5}])[0]
    pairs = list((slurm.write_study(tmp_path / "study", 20) / "pairs").iterdir())
    assert len(pairs) == 20
    assert sum("_Pain_" in path.name for path in pairs) == 10
