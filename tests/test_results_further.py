"""Further committed tables, recomputed by other libraries: errors, dose, groups, ablations, epochs.

They start from the files of `results/standin/runs` and use none of the helpers that made the
tables. What `test_results.py` has is not repeated.
"""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from committed import (
    GROUPS,
    PUPILS,
    RESULTS,
    among,
    decisions,
    drawn,
    ends,
    members,
    needs_results,
    over_seeds,
    pain,
    read_runs,
    table,
)
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import entropy, spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from helpers.files import ROOT

pytestmark = needs_results


@pytest.fixture(scope="module")
def runs():
    return read_runs()


def auroc(faces, contrast="expressive"):
    part = among(faces, contrast)
    return roc_auc_score(pain(part), part["probability"])


# Errors


def right(faces, contrast):
    part = among(faces, contrast)
    return decisions(part) == pain(part)


def test_shared_errors_by_the_equations_of_geirhos(runs):
    """Equations 1 to 3 of Geirhos et al. 2020."""
    for row in table("error_consistency").itertuples():
        pairs = [
            [right(runs[arm][seed], row.contrast) for arm in (row.student, row.teacher)]
            for seed in runs[row.student]
        ]
        observed = [np.mean(a == b) for a, b in pairs]
        p = [(a.mean(), b.mean()) for a, b in pairs]
        expected = [i * j + (1 - i) * (1 - j) for i, j in p]
        kappa = [(o - e) / (1 - e) for o, e in zip(observed, expected, strict=True)]
        found = (row.observed_estimate, row.expected_estimate, row.kappa_estimate)
        assert found == pytest.approx([np.mean(x) for x in (observed, expected, kappa)], abs=1e-9)
        assert row.own == (PUPILS.get(row.student) == row.teacher)


def test_what_a_pupil_shares_more_with_its_own_teacher(runs):
    def surplus(student, own, other, contrast):
        each = [
            [
                cohen_kappa_score(right(faces, contrast), right(runs[teacher][seed], contrast))
                for teacher in (own, other)
            ]
            for seed, faces in runs[student].items()
        ]
        return np.mean([a - b for a, b in each])

    rows = table("error_surplus")
    assert len(rows) == 2 * len(PUPILS)
    for row in rows.itertuples():
        assert PUPILS[row.student] == row.own != row.other
        pupil, twin = (
            surplus(student, row.own, row.other, row.contrast)
            for student in (row.student, "deit_tiny-none")
        )
        found = (row.pupil_estimate, row.untaught_estimate, row.inherited_estimate)
        assert found == pytest.approx((pupil, twin, pupil - twin), abs=1e-9), row


def test_divergence_and_what_was_seen_in_training(runs):
    train = read_runs("train")
    for row in table("fidelity").itertuples():
        divergences, agreed, seen = [], [], []
        for seed in runs[row.student]:
            pair = (runs[row.teacher][seed], runs[row.student][seed])
            p, q = (faces["probability"].clip(1e-6, 1 - 1e-6).to_numpy() for faces in pair)
            divergences.append(entropy([p, 1 - p], [q, 1 - q]).mean())
            pair = (train[row.teacher][seed], train[row.student][seed])
            agreed.append(np.mean(decisions(pair[0]) == decisions(pair[1])))
            folder = RESULTS / f"runs/student/{row.student}/seed{seed}"
            seen.append(pd.read_csv(folder / "history.csv")["teacher_disagreement"].mean())
        assert row.kl_estimate == pytest.approx(np.mean(divergences), abs=1e-9), row
        assert row.train_agreement == pytest.approx(np.mean(agreed), abs=1e-9), row
        expected = np.mean(seen) if row.own else np.nan
        assert row.disagreement_seen == pytest.approx(expected, abs=1e-9, nan_ok=True), row


def test_every_confusion_matrix_at_every_threshold(runs):
    rows = table("thresholds")
    assert len(rows) == 101 * sum(map(len, runs.values()))
    assert np.array_equal(np.unique(rows["threshold"]), np.arange(101) / 100)
    for row in rows.itertuples():
        faces = runs[row.arm][row.seed]
        called, truth = (faces["probability"] > row.threshold).to_numpy(), pain(faces)
        expected = [(called[truth] == said).sum() for said in (True, False)]
        expected += [(called[~truth] == said).sum() for said in (True, False)]
        assert [row.hit, row.miss, row.false_alarm, row.correct_rejection] == expected, row
        assert row.sensitivity == pytest.approx(row.hit / (row.hit + row.miss), abs=1e-6)
        other = row.false_alarm + row.correct_rejection
        assert row.specificity == pytest.approx(row.correct_rejection / other, abs=1e-6)


# Dose and response


@pytest.fixture(scope="module")
def pspi(runs):
    table = pd.read_csv(ROOT / "data/standin/attributes.csv", dtype={"image_id": str})
    return table.set_index("image_id")["pspi"][runs["swin"][0].index]


def answers(runs, arm):
    """Return P(pain) of each seed; the labels are sure."""
    if arm == "labels":
        return [runs["swin"][0]["label"].eq("Pain").astype(float)]
    return [faces["probability"] for faces in runs[arm].values()]


def expressive(runs, group="expressive"):
    faces = runs["swin"][0]
    shown = (faces["side"] == "right").to_numpy()
    return shown if group == "expressive" else shown & (faces["label"] == group).to_numpy()


def test_every_dose(runs, pspi):
    counts, people = drawn(runs["swin"][0]), runs["swin"][0]["identity"]
    rows = table("dose")
    for (arm, group), part in rows.groupby(["arm", "group"]):
        assert part["faces"].sum() == expressive(runs, group).sum(), arm
    assert set(rows["arm"]) == {*runs, "labels"}
    edges = [0, 3, 5, 7, 9, 11, 13, 16.1]
    assert set(zip(rows["from"], rows["to"], strict=True)) == set(itertools.pairwise(edges))
    for row in rows.rename(columns={"from": "least", "to": "below"}).itertuples():
        asked = expressive(runs, row.group) & ((pspi >= row.least) & (pspi < row.below)).to_numpy()
        assert row.faces == asked.sum()
        assert row.pspi == pytest.approx(pspi[asked].mean(), abs=1e-9)
        said = np.array([answer[asked] for answer in answers(runs, row.arm)])
        weights = counts[:, asked]
        for name, x in (("probability", said), ("called", (said > 0.5).astype(float))):
            estimate, low, high = (
                getattr(row, f"{name}_{end}") for end in ("estimate", "low", "high")
            )
            assert estimate == pytest.approx(x.mean(), abs=1e-9), row
            if people[asked].nunique() < 5:
                assert np.isnan([low, high]).all()
                continue
            with np.errstate(invalid="ignore"):
                draws = x @ weights.T / weights.sum(axis=1)
            expected = ends(x.mean(axis=1), draws, 0, 1)
            assert [low, high] == pytest.approx(expected, abs=1e-9), row


def test_the_order_of_doses_among_pain_faces(runs, pspi):
    asked = expressive(runs, "Pain")
    for row in table("dose_response").itertuples():
        assert row.seeds == len(answers(runs, row.arm))
        if row.arm == "labels":
            assert np.isnan(row.rho_pain_estimate)
            continue
        each = [spearmanr(pspi[asked], said[asked]).statistic for said in answers(runs, row.arm)]
        assert row.rho_pain_estimate == pytest.approx(np.mean(each), abs=1e-9), row


def psychometric(parameters, x):
    """Equation 1 of Wichmann and Hill 2001, with the logistic function."""
    alpha, beta, gamma, lapse = parameters
    return gamma + (1 - gamma - lapse) * expit((x - alpha) / beta)


def fitted(x, yes):
    """Return the parameters of the greatest likelihood that scipy finds from many starts."""

    def loss(parameters):
        chance = np.clip(psychometric(parameters, x), 1e-12, 1 - 1e-12)
        return -np.log(np.where(yes, chance, 1 - chance)).sum()

    bounds = [(-50, 50), (1 / 20, 100), (0, 0.25), (0, 0.06)]
    starts = itertools.product((5, 8), (0.7, 2), (0.01, 0.15), (0.001, 0.03))
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    return min(found, key=lambda fit: fit.fun).x


def test_every_psychometric_curve(runs, pspi):
    asked = expressive(runs)
    x = pspi[asked].to_numpy()
    for row in table("dose_response").itertuples():
        yes = [said[asked].to_numpy() > 0.5 for said in answers(runs, row.arm)]
        expected = np.mean([fitted(x, each) for each in yes], axis=0)
        found = (row.alpha_estimate, row.beta_estimate, row.gamma_estimate, row.lapse_estimate)
        assert found == pytest.approx(expected, abs=0.002), row.arm
        if row.gamma_estimate < 1e-5 and row.lapse_estimate < 1e-5:
            glm = [
                sm.GLM(each.astype(float), sm.add_constant(x), sm.families.Binomial()).fit()
                for each in yes
            ]
            alpha = np.mean([-fit.params[0] / fit.params[1] for fit in glm])
            assert row.alpha_estimate == pytest.approx(alpha, abs=0.002)
            beta = np.mean([1 / fit.params[1] for fit in glm])
            assert row.beta_estimate == pytest.approx(beta, abs=0.01)


# Groups, ablations, epochs


def test_every_gap_between_groups_of_people(runs):
    rows = table("subgroup_gaps")
    assert len(rows) == len(GROUPS) * 2 * len(runs)
    for row in rows.itertuples():
        seeds = runs[row.arm].values()
        masks = members(runs["swin"][0], row.group)
        means = {n: np.mean([auroc(f[m], row.contrast) for f in seeds]) for n, m in masks.items()}
        # Groups can share a place: South Asian and Caucasian do, for ResNet-50.
        best, worst = row.best.split(" and "), row.worst.split(" and ")
        high, low = max(means.values()), min(means.values())
        assert best == sorted(n for n, value in means.items() if abs(value - high) < 1e-9)
        assert worst == sorted(n for n, value in means.items() if abs(value - low) < 1e-9)
        assert row.estimate == pytest.approx(high - low, abs=1e-9), row
        (a, of_a), (b, of_b) = (
            over_seeds(runs[row.arm], row.contrast, masks[name]) for name in (best[0], worst[0])
        )
        expected = ends(a - b, of_a - of_b, -1, 1)
        assert [row.low, row.high] == pytest.approx(expected, abs=1e-9), row


def test_every_ablation(runs):
    rows = table("ablations")
    folders = {path.name: path for path in RESULTS.glob("runs/ablations/*")}
    assert set(rows["ablation"]) == {"study", *folders}
    changed = {name: read_runs(folder=folder) for name, folder in folders.items()}
    changed = {
        name: {arm: seeds for arm, seeds in arms.items() if "-" in arm}
        for name, arms in ({"study": runs} | changed).items()
    }
    for name, arms in changed.items():
        part = rows[rows["ablation"] == name]
        assert set(part.loc[part["kind"] == "arm", "first"]) == set(arms)
    for row in rows.itertuples():
        first = changed[row.ablation][row.first]
        a, of_a = over_seeds(first)
        assert row.seeds == len(first)
        if row.kind == "arm":
            b, of_b, least = 0, 0, 0
        else:
            second = (runs if row.kind == "change" else changed[row.ablation])[row.second]
            b, of_b = over_seeds({seed: second[seed] for seed in first})
            least = -1
        assert row.estimate == pytest.approx(np.mean(a - b), abs=1e-9), row
        expected = ends(a - b, of_a - of_b, least, 1)
        assert [row.low, row.high] == pytest.approx(expected, abs=1e-9), row


def test_epochs_and_costs_are_the_runs_own(runs):
    rows = table("convergence").merge(table("cost"), on=["arm", "seed"], validate="1:1")
    assert len(rows) == sum(map(len, runs.values()))
    for row in rows.itertuples():
        stage = "student" if "-" in row.arm else "teacher"
        folder = RESULTS / f"runs/{stage}/{row.arm}/seed{row.seed}"
        history = pd.read_csv(folder / "history.csv").set_index("epoch")
        auroc = history["validation_auroc"]
        assert row.epochs == len(history)
        assert row.best_epoch == auroc.idxmax()
        assert row.best_validation_auroc == auroc.max()
        reached = [epoch for epoch, value in auroc.items() if value >= 0.95 * auroc.max()]
        assert row.epochs_to_95_percent == min(reached)
        metrics, params = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "params")
        )
        assert row.device == params["device"]
        for name in "parameters macs train_seconds images_per_second latency_ms image_size".split():
            assert getattr(row, name) == metrics[name], (row.arm, name)


def test_the_predictions_are_the_runs_to_six_digits(runs):
    kept = table("test_predictions")
    assert len(kept) == sum(len(faces) for seeds in runs.values() for faces in seeds.values())
    heads = ["probability", "probability_class", "probability_distillation"]
    for (arm, seed), part in kept.groupby(["arm", "seed"]):
        own = runs[arm][seed].reindex(part["image_id"])
        np.testing.assert_allclose(part[heads], own[heads], atol=5.1e-7)
        for name in ("identity", "side", "split", "label"):
            assert (part[name].to_numpy() == own[name].to_numpy()).all()
