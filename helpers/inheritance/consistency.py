"""Do two deciders err on the same faces, beyond what their accuracies imply?

Error consistency (Geirhos, Meding & Wichmann 2020, *Beyond accuracy: quantifying trial-by-trial
behaviour of CNNs and humans by measuring error consistency*, equations 1 to 3): with accuracies a1
and a2, both are right or both wrong on c_obs of the faces, where independent errors give
c_exp = a1 a2 + (1 − a1)(1 − a2), and κ = (c_obs − c_exp) / (1 − c_exp). It is Cohen's κ of the
two rows of right and wrong. Unlike agreement of decisions it is not raised by being right.
"""

from itertools import product

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate, enough_identities, estimates
from helpers.evaluation.compare import Panel, own_teacher
from helpers.figures import teacher_of
from helpers.metrics import THRESHOLD, kappa_of_counts

CONTRASTS = ("expressive", "all")
_MEASURES = ("kappa", "observed", "expected")


def error_consistency(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return columns `kappa`, `observed`, `expected`, one row for each row of `weights`.

    `first`, `second`: whether each decider is right, bool, (faces,). `weights`: (samples, faces),
    none means one row, every face once. κ is NaN where both are right on every face (or both wrong
    on every one): there are then no errors to share.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if weights is None:
        weights = np.ones((1, len(a)))
    both, only_a, only_b, neither = (weights @ np.column_stack([a & b, a & ~b, ~a & b, ~a & ~b])).T
    total = both + only_a + only_b + neither
    with np.errstate(invalid="ignore", divide="ignore"):
        right_a, right_b = (both + only_a) / total, (both + only_b) / total
        return pd.DataFrame(
            {
                "kappa": kappa_of_counts(both, only_a, only_b, neither),
                "observed": (both + neither) / total,
                "expected": right_a * right_b + (1 - right_a) * (1 - right_b),
            }
        )


def consistency(panel: Panel, first: str, second: str, contrast: str) -> dict[str, Estimate]:
    """Return the columns of `error_consistency` of two arms with intervals.

    Seed by seed where seeds match; see `Panel.seed_pairs`.
    """
    rows = panel.rows(contrast)
    positive, weights = panel.positive[rows], panel.weights[:, rows]
    a, b = (
        (panel.probabilities[arm]["probability"][:, rows] > THRESHOLD) == positive
        for arm in (first, second)
    )
    pairs = panel.seed_pairs(first, second)
    found = estimates(
        [error_consistency(a[i], b[j]) for i, j in pairs],
        [error_consistency(a[i], b[j], weights) for i, j in pairs],
    )
    if enough_identities("kappa", panel.faces["identity"].to_numpy()[rows], positive):
        return found
    return {name: estimate.without_interval() for name, estimate in found.items()}


def consistency_table(panel: Panel) -> pd.DataFrame:
    """Return the error consistency of every student with every teacher."""
    rows = []
    for student, teacher, contrast in product(panel.students, panel.teachers, CONTRASTS):
        row = {"student": student, "teacher": teacher, "contrast": contrast}
        row["own"] = teacher_of(student) == teacher
        for name, estimate in consistency(panel, student, teacher, contrast).items():
            row |= {f"{name}_{key}": value for key, value in estimate.row().items()}
        rows.append(row)
    keys = [f"{name}_{key}" for name in _MEASURES for key in ("estimate", "low", "high")]
    return pd.DataFrame(rows, columns=["student", "teacher", "contrast", "own", *keys])


def surplus(panel: Panel, student: str, own: str, other: str, contrast: str) -> Estimate:
    """Return κ of `student` with teacher `own` minus κ with teacher `other`, paired."""
    a, b = (consistency(panel, student, teacher, contrast)["kappa"] for teacher in (own, other))
    return _minus(panel, a, b, [student, own, other])


def inherited_surplus(
    panel: Panel, student: str, own: str, other: str, contrast: str
) -> Estimate | None:
    """Return a pupil's `surplus` minus that of its untaught twin; None where there is no twin.

    The twin has seen the labels alone, so what it shares more with one teacher than with the other
    comes from the faces and the models' make, not from teaching.
    """
    untaught = f"{student.rpartition('-')[0]}-none"
    if untaught not in panel.arms:
        return None
    a, b = (surplus(panel, arm, own, other, contrast) for arm in (student, untaught))
    return _minus(panel, a, b, [student, untaught, own, other])


def _minus(panel: Panel, a: Estimate, b: Estimate, arms: list[str]) -> Estimate:
    """Return the difference; seeds are paired where all the arms behind it have the same ones."""
    same = all(panel.seeds[arm] == panel.seeds[arms[0]] for arm in arms)
    return a - b if same else a.unpaired(b)


def taught_against(panel: Panel) -> list[tuple[str, str, str]]:
    """Return (student, its teacher, another teacher) for each that is among the runs."""
    return [
        (student, own, other)
        for student in panel.students
        if (own := own_teacher(panel, student))
        for other in panel.teachers
        if other != own
    ]


def surplus_table(panel: Panel) -> pd.DataFrame:
    """Return each pupil's `surplus`, its untaught twin's, and the difference, with intervals."""
    rows = []
    for (student, own, other), contrast in product(taught_against(panel), CONTRASTS):
        untaught = f"{student.rpartition('-')[0]}-none"
        known = {"pupil": surplus(panel, student, own, other, contrast)}
        inherited = inherited_surplus(panel, student, own, other, contrast)
        if inherited is not None:
            known["untaught"] = surplus(panel, untaught, own, other, contrast)
            known["inherited"] = inherited
        row = {"student": student, "own": own, "other": other, "contrast": contrast}
        for name, estimate in known.items():
            row |= {f"{name}_{key}": value for key, value in estimate.row().items()}
        rows.append(row)
    names = ("pupil", "untaught", "inherited")
    keys = [f"{name}_{key}" for name in names for key in ("estimate", "low", "high")]
    return pd.DataFrame(rows, columns=["student", "own", "other", "contrast", *keys])
