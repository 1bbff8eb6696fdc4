"""Intervals of the committed tables by a plain bootstrap over people, digit for digit.

They start from the predictions in `results/standin/runs`; the draws and the formula that widens
them by the luck of training are written out anew in `committed`.
"""

import numpy as np
import pandas as pd
import pytest
from committed import (
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
    widened,
)
from scipy.stats import rankdata

from helpers.files import ROOT

pytestmark = needs_results


@pytest.fixture(scope="module")
def runs():
    return read_runs()


def check(row, found, low, high, prefix=""):
    """Assert that a row's interval is that of `found`, values and draws of each seed."""
    shown = [getattr(row, f"{prefix}{end}") for end in ("low", "high")]
    assert shown == pytest.approx(ends(*found, low, high), abs=1e-9), row


def minus(first, second):
    return first[0] - second[0], first[1] - second[1]


def test_estimates_lie_within_their_intervals():
    for path in sorted(RESULTS.glob("*.csv")):
        rows = table(path.stem)
        for low in (name for name in rows if name.split("_")[-1] == "low"):
            value, high = (low[: -len("low")] + end for end in ("estimate", "high"))
            known = rows[rows[low].notna()]
            assert (known[low] <= known[high]).all(), (path.stem, low)
            outside = (known[value] < known[low] - 1e-9) | (known[value] > known[high] + 1e-9)
            assert not outside.any(), known[outside]


def test_auroc_of_every_arm_and_head(runs):
    rows = table("metrics").assign(head="probability")
    for row in pd.concat([rows, table("heads")]).query("metric == 'auroc'").itertuples():
        check(row, over_seeds(runs[row.arm], row.contrast, head=row.head), 0, 1)


def test_rates_of_every_arm(runs):
    for (arm, contrast), part in table("metrics").groupby(["arm", "contrast"]):
        faces = among(runs[arm][0], contrast)
        positive = pain(faces)
        counts = drawn(runs[arm][0], runs[arm][0].index.isin(faces.index))
        each = [among(faces, contrast) for faces in runs[arm].values()]
        right = np.array([decisions(faces) == positive for faces in each])
        square = np.array([(faces["probability"] - positive) ** 2 for faces in each])
        rates = {
            "accuracy": mean(right, counts),
            "sensitivity": mean(right[:, positive], counts[:, positive]),
            "specificity": mean(right[:, ~positive], counts[:, ~positive]),
            "brier": mean(square, counts),
        }
        both = rates["sensitivity"], rates["specificity"]
        rates["balanced_accuracy"] = tuple((a + b) / 2 for a, b in zip(*both, strict=True))
        rows = part.set_index("metric", drop=False)
        assert (rows["seeds"] == len(each)).all()
        for metric, found in rates.items():
            check(rows.loc[metric], found, 0, 1)


def mean(values, counts):
    """Return the mean of each row of `values`, and of the same in each draw."""
    return values.mean(axis=1), values @ counts.T / counts.sum(axis=1)


def test_differences_of_auroc(runs):
    for row in table("differences").query("metric == 'auroc'").itertuples():
        found = minus(*(over_seeds(runs[arm], row.contrast) for arm in (row.first, row.second)))
        check(row, found, -1, 1)
        draws = widened(*found)
        share = np.mean(draws > 1e-12) + np.mean(np.abs(draws) <= 1e-12) / 2
        assert row.share_above_zero == pytest.approx(share, abs=1e-9), row
    for row in table("gap_closed").itertuples():
        assert PUPILS[row.student] == row.teacher
        arms = (row.teacher, "deit_tiny-none")
        check(row, minus(*(over_seeds(runs[a], row.contrast) for a in arms)), -1, 1, "gap_")


def test_groups_of_people(runs):
    for row in table("subgroups").itertuples():
        faces = runs[row.arm][0]
        rows = members(faces, row.group)[row.value]
        check(row, over_seeds(runs[row.arm], row.contrast, rows), 0, 1)
        faces = among(faces[rows], row.contrast)
        assert row.identities == faces["identity"].nunique()
        assert (row.pain, row.other) == (pain(faces).sum(), (~pain(faces)).sum())


def agreed(pairs, counts):
    """Return κ, observed and expected agreement of pairs of yes and no, with their draws."""

    def measure(a, b, weights):
        share = weights / weights.sum(axis=1, keepdims=True)
        observed, first, second = share @ (a == b), share @ a, share @ b
        expected = first * second + (1 - first) * (1 - second)
        left = np.where(1 - expected > 1e-12, 1 - expected, np.nan)
        return (observed - expected) / left, observed, expected

    once = np.ones((1, counts.shape[1]))
    values, draws = (np.array([measure(*pair, w) for pair in pairs]) for w in (once, counts))
    names = ("kappa", "observed", "expected")
    return {name: (values[:, i, 0], draws[:, i]) for i, name in enumerate(names)}


def shared_errors(runs, student, teacher, contrast):
    pairs = []
    for seed in runs[student]:
        parts = [among(runs[arm][seed], contrast) for arm in (student, teacher)]
        pairs.append([decisions(part) == pain(part) for part in parts])
    faces = runs[student][0]
    return agreed(pairs, drawn(faces, faces.index.isin(among(faces, contrast).index)))


def test_shared_errors(runs):
    for row in table("error_consistency").itertuples():
        found = shared_errors(runs, row.student, row.teacher, row.contrast)
        for name, least in (("kappa", -1), ("observed", 0), ("expected", 0)):
            check(row, found[name], least, 1, f"{name}_")
    for row in table("error_surplus").itertuples():
        pupil, twin = (
            minus(
                *(
                    shared_errors(runs, student, teacher, row.contrast)["kappa"]
                    for teacher in (row.own, row.other)
                )
            )
            for student in (row.student, "deit_tiny-none")
        )
        check(row, pupil, -2, 2, "pupil_")
        check(row, twin, -2, 2, "untaught_")
        check(row, minus(pupil, twin), -4, 4, "inherited_")


def test_agreement_with_teachers(runs):
    for row in table("fidelity").itertuples():
        both = [[runs[arm][s] for arm in (row.teacher, row.student)] for s in runs[row.student]]
        counts = drawn(both[0][0])
        found = agreed([[decisions(faces) for faces in pair] for pair in both], counts)
        check(row, found["observed"], 0, 1, "agreement_")
        check(row, found["kappa"], -1, 1, "kappa_")
        p, q = (
            np.array([pair[i]["probability"].clip(1e-6, 1 - 1e-6) for pair in both]) for i in (0, 1)
        )
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        check(row, mean(divergence, counts), 0, np.inf, "kl_")


def test_the_order_of_doses(runs):
    attributes = pd.read_csv(ROOT / "data/standin/attributes.csv", dtype={"image_id": str})
    faces = runs["swin"][0]
    asked = (faces["side"] == "right").to_numpy()
    pspi = attributes.set_index("image_id")["pspi"][faces.index[asked]].to_numpy()
    # One expressive face each: every draw has as many faces as there are people.
    again = np.array([np.repeat(np.arange(asked.sum()), c) for c in drawn(faces, asked)])

    def rho(said):
        ranks = (rankdata(x[again], axis=1) for x in (pspi, said))
        a, b = (x - x.mean(axis=1, keepdims=True) for x in ranks)
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))

    for row in table("dose_response").itertuples():
        if row.arm == "labels":
            said = [pain(faces)[asked].astype(float)]
        else:
            said = [found["probability"].to_numpy()[asked] for found in runs[row.arm].values()]
        values = np.array([pd.Series(x).corr(pd.Series(pspi), method="spearman") for x in said])
        check(row, (values, np.array([rho(x) for x in said])), -1, 1, "rho_")
