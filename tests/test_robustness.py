"""Corrupted faces, what they cost, and the committed tables of chapter 6."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import interpolate

from helpers import compare, robustness
from helpers.faces import IMAGENET_MEAN
from helpers.files import ROOT, StudyError, read_csv
from helpers.robustness import CONDITIONS, LEVELS, STRENGTHS, VERSION, corrupt
from helpers.runs import kept, load_runs

RESULTS = ROOT / "results/standin"
POINTS = "100 110 158 110 128 148 105 178 153 178"


def some_faces(count=6, side=64, seed=0):
    """Smooth random pictures and the rows of a manifest with their landmarks."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(40, 215, (count, 3, 6, 6))).float()
    large = interpolate(coarse, (256, 256), mode="bicubic", antialias=True)
    images = interpolate(large, (side, side), mode="area").round().clamp(0, 255).to(torch.uint8)
    rows = pd.DataFrame({"image_id": [f"{i}_left" for i in range(count)], "width": 256})
    return images, rows.assign(landmarks=POINTS)


# How much the pixels of `some_faces` change at each strength: kept predictions stand on it.
CHANGE = {
    "eyes": (1.292, 2.470, 3.682),
    "mask": (2.168, 4.697, 6.782),
    "quarter": (0.360, 1.618, 3.437),
    "gaussian_blur": (0.000, 0.641, 2.482),
    "gaussian_noise": (8.123, 16.235, 32.019),
    "darkness": (52.452, 91.778, 118.018),
    "jpeg_compression": (2.509, 5.460, 9.238),
    "rotation": (20.525, 36.323, 43.779),
}


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_corruption_is_what_kept_predictions_were_made_with_for_each_face_alone(name):
    images, rows = some_faces()
    found = [corrupt(images, rows, name, level) for level in LEVELS]
    change = [(each.float() - images).abs().mean().item() for each in found]
    assert change == pytest.approx(CHANGE[name], rel=0.01)
    rows.loc[4, "landmarks"] = None
    for level in LEVELS:
        found = corrupt(images, rows, name, level)
        again = corrupt(images[[4, 1]], rows.iloc[[4, 1]], name, level)
        assert torch.equal(again, found[[4, 1]])


@pytest.mark.parametrize("name", [name for name in STRENGTHS if name != "gaussian_noise"])
def test_corrupting_and_shrinking_is_shrinking_and_corrupting(name):
    images, rows = some_faces(side=256)
    small = interpolate(images.float(), (64, 64), mode="area")
    late = corrupt(small.round().to(torch.uint8), rows, name, 3).float()
    early = interpolate(corrupt(images, rows, name, 3).float(), (64, 64), mode="area")
    assert (late - early).abs().mean() < 0.5 * (late - small).abs().mean() + 1


def test_the_eyes_are_hidden_and_the_mouth_is_not_and_the_other_way_round():
    images, rows = some_faces(side=256)
    fill = (torch.tensor(IMAGENET_MEAN) * 255).round()
    both = [corrupt(images, rows, name, 3)[0] for name in ("eyes", "mask")]
    for x, y, here in ((100, 110, 0), (158, 110, 0), (128, 148, 1), (105, 178, 1), (153, 178, 1)):
        assert torch.equal(both[here][:, y, x].float(), fill)
        assert torch.equal(both[1 - here][:, y, x], images[0, :, y, x])
    with pytest.raises(StudyError, match="lacks the column landmarks"):
        corrupt(images, rows.drop(columns="landmarks"), "eyes", 1)


def test_the_committed_tables_come_out_again_to_the_ninth_digit():
    runs = load_runs(RESULTS / "runs")
    corrupted = kept(RESULTS / "runs/kept/corrupted_predictions.csv.gz", runs, None, VERSION)
    panel = compare.make_panel(runs, 2000, 0)
    harder = robustness.robustness_panel(corrupted, panel)
    inherited = robustness.inherited_table(harder)
    for name, table in {
        "robustness": robustness.robustness_table(harder),
        "inherited": inherited,
        "inherited_ranks": robustness.rank_correlations(inherited),
    }.items():
        committed = read_csv(RESULTS / f"{name}.csv")
        keys = [key for key in committed if committed[key].dtype != float]
        found = table.set_index(keys).loc[pd.MultiIndex.from_frame(committed[keys])]
        assert len(table) == len(committed)
        np.testing.assert_allclose(found, committed.set_index(keys), rtol=0, atol=1e-9)
    with pytest.raises(StudyError, match="other test faces"):
        robustness.robustness_panel(corrupted[corrupted["image_id"] > "1000003846_right"], panel)


def test_a_killed_run_of_corruptions_goes_on_and_each_is_made_once_for_all_runs(
    crops_dir, teacher_run, tmp_path, monkeypatch
):
    crops, parts = shutil.copytree(crops_dir, tmp_path / "crops"), tmp_path / "parts"
    manifest = read_csv(crops / "manifest.csv").assign(landmarks="16 17 25 17 20 23 16 28 25 28")
    manifest.to_csv(crops / "manifest.csv", index=False)
    asked, spoilt, say, spoil = [], [], robustness.predictions_of, robustness.corrupt

    def dies_at_the_sixth(*arguments):
        asked.append(1)
        return say(*arguments) if len(asked) != 6 else next(iter(()))

    monkeypatch.setattr(robustness, "predictions_of", dies_at_the_sixth)
    monkeypatch.setattr(robustness, "corrupt", lambda *a: spoilt.append(a[2:]) or spoil(*a))
    monkeypatch.setattr(robustness, "CONDITIONS", CONDITIONS[::4])
    with pytest.raises(StopIteration):
        robustness.predict_corrupted([teacher_run], crops, parts, "cpu")
    found = robustness.predict_corrupted([teacher_run], crops, parts, "cpu")
    assert len(asked) == 1 + 7
    others = [replace(teacher_run, params=teacher_run.params | {"name": name}) for name in "ab"]
    spoilt.clear()
    every = robustness.predict_corrupted(others, crops, parts, "cpu")
    assert spoilt == CONDITIONS[::4]
    assert every["probability"].tolist() == 2 * found["probability"].tolist()
