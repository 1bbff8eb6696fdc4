import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from conftest import RECIPE
from made_runs import make_runs
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from helpers.errors import StudyError
from helpers.evaluation.compare import load_runs, make_panel
from helpers.evaluation.kept import kept_table
from helpers.evaluation.published import is_published, publish
from helpers.evaluation.tables import evaluate
from helpers.inheritance import readings as inherit_readings
from helpers.inheritance import robustness
from helpers.inheritance.consistency import (
    consistency,
    consistency_table,
    error_consistency,
    surplus_table,
)
from helpers.inheritance.corruptions import IMAGENET_MEAN, STRENGTHS, conditions, corrupt
from helpers.inheritance.dose import dose_table, read_pspi, response_table, weighted_spearman
from helpers.inheritance.psychometric import fit_psychometric, psychometric
from helpers.training.experiments import train_teacher
from helpers.writeup import planning_views


def some_faces(count=6, side=64, seed=0):
    """Smooth random pictures and the rows of a manifest, landmarks where a crop has them."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(40, 215, (count, 3, 6, 6))).float()
    large = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic", antialias=True)
    images = torch.nn.functional.interpolate(large, (side, side), mode="area").round()
    points = "100 110 158 110 128 148 105 178 153 178"
    rows = pd.DataFrame({"image_id": [f"{i}_left" for i in range(count)], "width": 256})
    return images.clamp(0, 255).to(torch.uint8), rows.assign(detected=True, landmarks=points)


@pytest.mark.parametrize(("name", "level"), conditions()[1:])
def test_a_corruption_is_the_same_for_a_face_whatever_else_is_there(name, level):
    _, rows = some_faces()
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    found = corrupt(images, rows, name, level, 0)
    assert found.dtype == torch.uint8
    assert found.shape == images.shape
    assert not torch.equal(found, images)
    again = corrupt(images[[4, 1]], rows.iloc[[4, 1]], name, level, 0)
    assert torch.equal(again, found[[4, 1]])


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_higher_level_changes_more(name):
    images, rows = some_faces(12)
    change = [
        (corrupt(images, rows, name, level, 0).float() - images.float()).abs().mean().item()
        for level in (1, 2, 3)
    ]
    assert change[0] < change[1] < change[2]


@pytest.mark.parametrize("name", [n for n in STRENGTHS if n != "gaussian_noise"])
def test_corrupting_and_shrinking_is_shrinking_and_corrupting(name):
    def shrink(images):
        return torch.nn.functional.interpolate(images.float(), (64, 64), mode="area")

    images, rows = some_faces(side=256)
    late = corrupt(shrink(images).round().to(torch.uint8), rows, name, 3, 0).float()
    early = shrink(corrupt(images, rows, name, 3, 0))
    assert (late - early).abs().mean() < 6 < (late - shrink(images)).abs().mean() + 6
    assert (late - early).abs().mean() < 0.5 * (late - shrink(images)).abs().mean() + 1


def test_the_eyes_are_hidden_and_the_mouth_is_not_and_the_other_way_round():
    images, rows = some_faces(side=256)
    fill = (torch.tensor(IMAGENET_MEAN) * 255).round()
    eyes, mask = (corrupt(images, rows, name, 3, 0) for name in ("eyes", "mask"))
    for x, y in ((100, 110), (158, 110)):
        assert torch.equal(eyes[0, :, y, x].float(), fill)
        assert torch.equal(mask[:, :, y, x], images[:, :, y, x])
    for x, y in ((128, 148), (105, 178), (153, 178)):
        assert torch.equal(mask[0, :, y, x].float(), fill)
        assert torch.equal(eyes[:, :, y, x], images[:, :, y, x])


def test_the_noise_has_the_stated_width_and_unknown_corruptions_are_refused():
    grey, rows = torch.full((6, 3, 64, 64), 128, dtype=torch.uint8), some_faces()[1]
    noisy = corrupt(grey, rows, "gaussian_noise", 2, 0).float()
    assert (noisy - 128).std().item() == pytest.approx(255 * 0.08, rel=0.02)
    assert not torch.equal(noisy, corrupt(grey, rows, "gaussian_noise", 2, 1).float())
    with pytest.raises(StudyError, match="no corruption 'fog'"):
        corrupt(grey, rows, "fog", 1, 0)
    with pytest.raises(StudyError, match="lacks the column landmarks"):
        corrupt(grey, rows.drop(columns="landmarks"), "eyes", 1, 0)


def test_error_consistency_is_cohens_kappa_of_right_and_wrong():
    rng = np.random.default_rng(0)
    a, b = rng.random(80) < 0.8, rng.random(80) < 0.7
    weights = rng.integers(0, 3, (5, 80)).astype(float)
    found = error_consistency(a, b, weights)
    for row, counts in enumerate(weights.astype(int)):
        expected = cohen_kappa_score(np.repeat(a, counts), np.repeat(b, counts))
        assert found["kappa"][row] == pytest.approx(expected)
    # Both right on 6 of 10, both wrong on 2: c_obs 0.8, c_exp 0.7 · 0.7 + 0.3 · 0.3 = 0.58.
    a, b = np.array([1] * 6 + [1, 0] + [0, 0]), np.array([1] * 6 + [0, 1] + [0, 0])
    found = error_consistency(a, b).iloc[0]
    assert found.tolist() == pytest.approx([0.22 / 0.42, 0.8, 0.58])
    assert np.isnan(error_consistency(np.ones(5), np.ones(5))["kappa"][0])


def runs_panel(folder, seeds=(0, 1), **options):
    return make_panel(load_runs(make_runs(folder, seeds=seeds, **options)), 100, 0)


def test_surplus_is_own_minus_other_minus_the_twins(tmp_path):
    panel = runs_panel(tmp_path)
    kappa = consistency_table(panel).set_index(["student", "teacher", "contrast"])["kappa_estimate"]
    row = surplus_table(panel).set_index(["student", "contrast"]).loc[("deit_tiny-swin", "all")]
    pupil, twin = (
        kappa[f"deit_tiny-{t}", "swin", "all"] - kappa[f"deit_tiny-{t}", "resnet50", "all"]
        for t in ("swin", "none")
    )
    assert row["pupil_estimate"] == pytest.approx(pupil)
    assert row["inherited_estimate"] == pytest.approx(pupil - twin)
    assert row["inherited_low"] < row["inherited_estimate"] < row["inherited_high"]
    own = consistency(panel, "swin", "swin", "all")["kappa"]
    assert (own.value, own.low, own.high) == (1, 1, 1)


def corrupted(folder, harm, seeds=(0, 1)):
    """Predictions in which `harm` mixes each arm's answer with noise: {arm: share}."""
    panel = runs_panel(folder, seeds)
    rng, parts = np.random.default_rng(0), []
    for arm in panel.arms:
        for place, seed in enumerate(panel.seeds[arm]):
            for name, level in conditions():
                share = harm.get(arm, 0.0) * (name == "eyes")
                clean = panel.probabilities[arm]["probability"][place]
                mixed = (1 - share) * clean + share * rng.random(len(clean))
                table = panel.faces.assign(arm=arm, seed=seed, corruption=name, strength=level)
                heads = {"probability_class": np.nan, "probability_distillation": np.nan}
                parts.append(table.assign(probability=mixed, **heads))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_drop_is_paired_and_only_where_there_was_harm(tmp_path, seeds):
    found = corrupted(tmp_path, {"swin": 1.0, "deit_tiny-swin": 1.0}, seeds)
    panel = robustness.robustness_panel(found, 100, 0)
    table = robustness.robustness_table(panel).set_index(["arm", "contrast", "corruption"])
    part = found[(found["arm"] == "swin") & (found["corruption"] == "eyes")]
    part = part[(part["strength"] == 2) & (part["side"] == "right")]
    expected = [roc_auc_score(t["label"] == "Pain", t["probability"])
                for _, t in part.groupby("seed")]  # fmt: skip
    row = table.loc[("swin", "expressive", "eyes")].query("strength == 2").iloc[0]
    assert row["estimate"] == pytest.approx(np.mean(expected))
    clean = table.loc[("swin", "expressive", "clean"), "estimate"].item()
    assert row["drop_estimate"] == pytest.approx(clean - row["estimate"])
    none = table.loc[("resnet50", "all", "eyes")][["drop_estimate", "drop_low", "drop_high"]]
    assert (none == 0).all(axis=None)
    inherited = robustness.inherited_table(panel).set_index(["contrast", "corruption"])
    assert inherited.loc[("all", "eyes"), "teachers_low"] > 0
    assert (inherited.loc[("all", "mask"), ["teachers_high", "pupils_high"]] == 0).all()
    said = inherit_readings.weaknesses(panel, robustness.inherited_table(panel), "all")
    assert "eyes hidden costs Swin-T more than ResNet-50" in said
    assert "nan" not in said


def test_weighted_spearman_is_scipys_on_repeated_faces():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 40), rng.integers(0, 8, 40)
    weights = rng.integers(0, 4, (6, 40)).astype(float)
    found = weighted_spearman(x, y, weights)
    for value, counts in zip(found, weights.astype(int), strict=True):
        assert value == pytest.approx(spearmanr(np.repeat(x, counts), np.repeat(y, counts))[0])


def test_the_psychometric_fit_finds_the_curve_that_made_the_answers():
    rng = np.random.default_rng(0)
    true = pd.Series({"alpha": 6.0, "beta": 1.2, "gamma": 0.1, "lapse": 0.03})
    x = rng.uniform(0, 14, 40_000)
    yes = rng.random(len(x)) < psychometric(x, true)
    found = fit_psychometric(x, yes).iloc[0]
    assert found[["alpha", "beta"]].tolist() == pytest.approx([6.0, 1.2], abs=0.15)
    assert found[["gamma", "lapse"]].tolist() == pytest.approx([0.1, 0.03], abs=0.02)


def test_without_guesses_and_lapses_it_is_logistic_regression_weighted_or_not():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 14, 150)
    yes = rng.random(150) < 1 / (1 + np.exp(6 - x))
    weights = rng.multinomial(150, np.full(150, 1 / 150), size=4).astype(float)
    found = fit_psychometric(x, yes, np.r_[np.ones((1, 150)), weights], guess=0, lapse=0)
    for row, counts in enumerate((np.ones(150), *weights)):
        model = sm.GLM(yes * 1.0, sm.add_constant(x), sm.families.Binomial(), freq_weights=counts)
        level, slope = model.fit(tol=1e-12).params
        assert found["alpha"][row] == pytest.approx(-level / slope, abs=1e-2)
        assert found["beta"][row] == pytest.approx(1 / slope, abs=1e-2)
    assert fit_psychometric(x, x > 99).isna().all(axis=None)


def test_dose_is_the_stand_ins_only_and_rises_where_the_answers_do(tmp_path):
    panel = runs_panel(tmp_path / "runs", seeds=(0,))
    faces = panel.faces
    assert read_pspi(faces, tmp_path / "none.csv") is None
    kinds = np.where(faces["label"] == "Pain", "pain", "neutral")
    made = faces[["image_id"]].assign(identity="1", kind=kinds, pspi=np.arange(len(faces)) / 8)
    made.iloc[1:].to_csv(tmp_path / "short.csv", index=False)
    assert read_pspi(faces, tmp_path / "short.csv") is None
    made.assign(kind="neutral").to_csv(tmp_path / "other.csv", index=False)
    assert read_pspi(faces, tmp_path / "other.csv") is None
    made.sample(frac=1, random_state=0).to_csv(tmp_path / "made.csv", index=False)
    pspi = read_pspi(faces, tmp_path / "made.csv")
    assert pspi.tolist() == made["pspi"].tolist()
    panel.probabilities["swin"]["probability"] = pspi[None] / 16
    panel.probabilities["resnet50"]["probability"] = np.full((1, len(faces)), 0.2)
    table = response_table(panel, pspi).set_index("arm")
    assert table.loc["swin", ["rho_estimate", "rho_pain_low"]].tolist() == pytest.approx([1, 1])
    assert table.loc["swin", "alpha_estimate"] == pytest.approx(8, abs=0.3)
    assert table.loc["resnet50", ["rho_estimate", "alpha_estimate"]].isna().all()
    doses = dose_table(panel, pspi).query("arm == 'labels' and group != 'expressive'")
    assert (doses["called_estimate"] == (doses["group"] == "Pain")).all()
    said = inherit_readings.dose(panel, pspi)
    assert "no threshold, because in some seed all decisions are the same" in said
    assert "nan" not in said


@pytest.mark.parametrize(
    ("arms", "people"), [(("resnet50",), 20), (("swin", "deit_tiny-swin"), 20), (None, 3)]
)
def test_missing_arms_and_few_faces_are_said(tmp_path, arms, people):
    options = {"arms": arms} if arms else {}
    panel = runs_panel(tmp_path, people=people, **options)
    said = inherit_readings.shared_errors(panel)
    assert "nan" not in said
    assert ("No pupil" in said) == (arms is not None)


def trained_runs(crops_dir, tmp_path):
    """A teacher trained for an epoch on the made-up crops, with the landmarks that they lack."""
    crops = tmp_path / "crops"
    shutil.copytree(crops_dir, crops)
    table = pd.read_csv(crops / "manifest.csv", dtype={"identity": str})
    points = "16 17 25 17 20 23 16 28 25 28"
    table.assign(detected=True, landmarks=points, width=40).to_csv(
        crops / "manifest.csv", index=False
    )
    chosen = RECIPE | {"crops_dir": str(crops), "teacher": "resnet50", "teacher_epochs": 1}
    return crops, [train_teacher(SimpleNamespace(**chosen), tmp_path / "teacher/resnet50/seed0")]


def test_predictions_on_corrupted_faces_are_made_once_and_start_from_the_runs(
    crops_dir, tmp_path, monkeypatch
):
    crops, runs = trained_runs(crops_dir, tmp_path)
    made, say = [], robustness.predictions_of

    def counting(*arguments):
        made.append(1)
        if len(made) == 6:
            raise KeyboardInterrupt
        return say(*arguments)

    monkeypatch.setattr(robustness, "predictions_of", counting)
    with pytest.raises(KeyboardInterrupt):
        robustness.predict_corrupted(runs, crops, tmp_path / "parts")
    found = robustness.predict_corrupted(runs, crops, tmp_path / "parts")
    assert len(made) == 1 + len(conditions())
    again = robustness.predict_corrupted(runs, crops, tmp_path / "parts")
    assert len(made) == 1 + len(conditions())
    pd.testing.assert_frame_equal(found, again)
    clean = found[found["corruption"] == "clean"].set_index("image_id")["probability"]
    own = runs[0].predictions.query("split == 'test'").set_index("image_id")["probability"]
    np.testing.assert_allclose(clean, own[clean.index], atol=1e-5)
    dark = found.query("corruption == 'darkness' and strength == 3")["probability"]
    assert not np.allclose(dark, clean, atol=1e-4)
    # Two runs more share each corrupted set of faces, and come out run by run.
    spoilt, spoil = [], robustness.corrupt
    monkeypatch.setattr(robustness, "corrupt", lambda *a: spoilt.append(a[2:]) or spoil(*a))
    chosen = runs[0].params["parameters"]
    runs += [
        replace(runs[0], params=runs[0].params | {"parameters": chosen | {"seed": seed}})
        for seed in (1, 2)
    ]
    every = robustness.predict_corrupted(runs, crops, tmp_path / "parts")
    assert [(name, level) for name, level, _ in spoilt] == conditions()
    for seed, part in every.groupby("seed", sort=False):
        expected = found.assign(seed=seed).reset_index(drop=True)
        pd.testing.assert_frame_equal(part.reset_index(drop=True), expected)
    assert every["seed"].is_monotonic_increasing


def test_kept_tables_are_of_the_same_runs_and_need_no_weights(tmp_path):
    make_runs(tmp_path, people=6, arms=("swin",))
    runs, made = load_runs(tmp_path), []

    def make():
        made.append(1)
        return pd.DataFrame({"image_id": ["0012"], "x": [1 / 3]})

    path = tmp_path / "results/a.csv.gz"
    first = kept_table(path, runs, make)
    weights = runs[0].folder / "model.safetensors"
    weights.unlink()
    pd.testing.assert_frame_equal(kept_table(path, runs, make), first)
    assert first["image_id"].tolist() == ["0012"]
    (runs[0].folder / "predictions.csv").write_text("other predictions")
    assert kept_table(path, runs, make) is None
    weights.touch()
    kept_table(path, runs, make)
    assert len(made) == 2
    for version in (2, 2, 3):  # another way to make it
        kept_table(path, runs, make, version)
    assert len(made) == 4


def test_a_plan_is_made_from_several_seeds_only(tmp_path):
    one = evaluate(load_runs(make_runs(tmp_path / "one", people=30)), 100, 0)
    assert "nothing to plan from" in planning_views.words(one)
    three = evaluate(load_runs(make_runs(tmp_path / "three", people=30, seeds=(0, 1, 2))), 100, 0)
    assert "| 0.01 AUROC |" in planning_views.words(three)


def test_published_runs_are_all_that_the_comparison_reads(tmp_path):
    make_runs(tmp_path / "runs", people=12)
    names = [f"teacher/{t}/seed0" for t in ("resnet50", "swin")]
    assert not is_published(names, tmp_path / "results")
    publish(names, tmp_path / "runs", tmp_path / "results")
    assert is_published(names, tmp_path / "results")
    assert not is_published([*names, "teacher/swin/seed1"], tmp_path / "results")
    found = load_runs(tmp_path / "results/runs")
    assert [run.name for run in found] == ["resnet50", "swin"]
    assert not list((tmp_path / "results").rglob("*.safetensors"))
    with pytest.raises(StudyError, match="does not exist"):
        publish(["teacher/swin/seed9"], tmp_path / "runs", tmp_path / "results")
