"""Dose and response: does P(pain) rise with the pain that was rendered?

The dose is PSPI (Prkachin & Solomon 2008), 0 to 16, which the stand-in tells of every face. Its
labels are not a threshold on it: a face is Pain because pain was rendered, and a laugh or a snarl
without pain can have the PSPI of moderate pain. So over all expressive faces a curve mixes the
dose with the kind of expression: an arm that knows the kinds alone would rise with PSPI too, and
one that is always right has the curve of the labels. That curve is the yardstick here, and the
rank correlation among Pain faces alone is what speaks of the dose.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.bootstrap import LEAST_IDENTITIES, Estimate, estimates
from helpers.evaluation.compare import Panel
from helpers.files import project_path, read_csv
from helpers.inheritance.psychometric import fit_psychometric
from helpers.metrics import THRESHOLD

ATTRIBUTES = "data/standin/attributes.csv"
LABELS = "labels"
SCALE = (0.0, 16.0)
EDGES = (0, 3, 5, 7, 9, 11, 13, 16.1)
GROUPS = ("expressive", "Pain", "NoPain")
REFITS = 300
_LEAST_KNOWN = 0.95  # of the refits, for an interval


def read_pspi(faces: pd.DataFrame, attributes: str | Path = ATTRIBUTES) -> np.ndarray | None:
    """Return the PSPI of each of `faces` (image_id, label), (faces,), 0 to 16.

    None where they are not the stand-in's faces: there is no such table, it lacks one of them, or
    it holds another label for one.
    """
    if not project_path(attributes).is_file():
        return None
    table = read_csv(attributes).set_index("image_id")
    if not faces["image_id"].isin(table.index).all():
        return None
    table = table.loc[faces["image_id"]]
    if ((table["kind"] == "pain").to_numpy() != (faces["label"] == "Pain").to_numpy()).any():
        return None
    return table["pspi"].to_numpy(float)


def group_rows(panel: Panel, group: str) -> np.ndarray:
    """Return which faces are expressive and, where `group` is a label, have it, (faces,)."""
    rows = (panel.faces["side"] == "right").to_numpy()
    return rows if group == "expressive" else rows & (panel.faces["label"] == group).to_numpy()


def dose_table(panel: Panel, pspi: np.ndarray) -> pd.DataFrame:
    """Return mean P(pain) and the share called Pain by PSPI, with intervals over identities.

    One row an arm (and the labels), group of expressive faces (all, Pain, NoPain) and bin of
    `EDGES` that has a face: pspi (their mean), faces, `probability_*`, `called_*`.
    """
    bins, rows = np.digitize(pspi, EDGES) - 1, []
    for arm in (*panel.arms, LABELS):
        for group in GROUPS:
            for place in range(len(EDGES) - 1):
                among = group_rows(panel, group) & (bins == place)
                if not among.any():
                    continue
                row = {"arm": arm, "group": group, "from": EDGES[place], "to": EDGES[place + 1]}
                row |= {"pspi": pspi[among].mean(), "faces": int(among.sum())}
                for name, found in _means(panel, arm, among).items():
                    row |= {f"{name}_{key}": value for key, value in found.row().items()}
                rows.append(row)
    return pd.DataFrame(rows)


def _answers(panel: Panel, arm: str) -> np.ndarray:
    """Return P(pain) of every seed, (seeds, faces); the labels answer 0 or 1."""
    if arm == LABELS:
        return panel.positive[None].astype(float)
    return panel.probabilities[arm]["probability"]


def _means(panel: Panel, arm: str, among: np.ndarray) -> dict[str, Estimate]:
    def measure(answer: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
        total = weights.sum(axis=1)
        columns = np.column_stack([answer, answer > THRESHOLD])
        with np.errstate(invalid="ignore", divide="ignore"):
            return pd.DataFrame(weights @ columns / total[:, None], columns=_MEANS)

    return _over_seeds(panel, arm, among, measure, panel.weights)


_MEANS = ["probability", "called"]


def _over_seeds(panel, arm, among, measure, weights) -> dict[str, Estimate]:
    """Return what `measure(answers, weights)` says of the faces `among`, as estimates."""
    answers, equal = _answers(panel, arm)[:, among], np.ones((1, int(among.sum())))
    found = estimates(
        [measure(answer, equal) for answer in answers],
        [measure(answer, weights[:, among]) for answer in answers],
    )
    few = panel.faces["identity"][among].nunique() < LEAST_IDENTITIES
    return {
        name: estimate.without_interval()
        if few or np.isfinite(estimate.draws).mean() < _LEAST_KNOWN
        else estimate
        for name, estimate in found.items()
    }


def weighted_spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Spearman's ρ for each row of whole-number `weights` (samples, faces), ties midranked.

    The same as repeating each face as often as it counts. NaN where x or y does not vary.
    """
    a, b = _midranks(x, weights), _midranks(y, weights)
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (a, b))
        both = (weights * a * b).sum(axis=1)
        spread = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
        return np.where(spread > 1e-9, both / spread, np.nan)


def _midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    _, codes = np.unique(values, return_inverse=True)
    at = np.zeros((len(weights), codes.max() + 1))
    np.add.at(at, (slice(None), codes), weights)
    return (at.cumsum(axis=1) - at / 2 + 0.5)[:, codes]


def rank_correlation(panel: Panel, arm: str, pspi: np.ndarray, group: str) -> Estimate:
    """Return Spearman's ρ of P(pain) and PSPI among the faces of a group, the mean over seeds."""
    among = group_rows(panel, group)

    def measure(answer: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"rho": weighted_spearman(pspi[among], answer, weights)})

    return replace(
        _over_seeds(panel, arm, among, measure, panel.weights)["rho"], limits=(-1.0, 1.0)
    )


def curve(panel: Panel, arm: str, pspi: np.ndarray) -> dict[str, Estimate]:
    """Return α (the threshold), β, γ and λ of the decisions on expressive faces, each a mean.

    With intervals from `REFITS` of the panel's draws. See `psychometric`: an α outside of `SCALE`
    says that the decisions do not rise by half within it; without a value all were the same.
    """
    among = group_rows(panel, "expressive")

    def measure(answer: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
        return fit_psychometric(pspi[among], answer > THRESHOLD, weights)

    found = _over_seeds(panel, arm, among, measure, panel.weights[:REFITS])
    return {name: replace(e, limits=(-np.inf, np.inf)) for name, e in found.items()}


def response_table(panel: Panel, pspi: np.ndarray) -> pd.DataFrame:
    """Return ρ (expressive faces, Pain faces) and the psychometric curve of arms and labels."""
    rows = []
    for arm in (*panel.arms, LABELS):
        known = {"rho": rank_correlation(panel, arm, pspi, "expressive")}
        known["rho_pain"] = rank_correlation(panel, arm, pspi, "Pain")
        known |= curve(panel, arm, pspi)
        row = {"arm": arm, "seeds": len(_answers(panel, arm))}
        for name, estimate in known.items():
            row |= {f"{name}_{key}": value for key, value in estimate.row().items()}
        rows.append(row)
    return pd.DataFrame(rows)


def overlap(panel: Panel, pspi: np.ndarray) -> float:
    """Return the share of expressive NoPain faces at or above the lowest PSPI of a Pain face."""
    pain, other = (pspi[group_rows(panel, group)] for group in ("Pain", "NoPain"))
    return float(np.mean(other >= pain.min())) if len(pain) and len(other) else float("nan")
