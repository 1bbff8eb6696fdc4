"""What is measured on a set of faces, with or without weights.

Weights carry the bootstrap: a face counts as often as its identity was drawn, so 2,000 resamples
are one matrix product instead of 2,000 loops. Everything here is defined for weights of zero and
for ties; a quantity that a set of one class cannot have is NaN.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from helpers.errors import StudyError

THRESHOLD = 0.5
BINS = 10
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "kappa": "Cohen's κ",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "ECE",
}
CONTRASTS = {
    "all": "Pain vs every other face",
    "neutral": "Pain vs neutral",
    "expressive": "Pain vs expressive NoPain",
}
PRIMARY = "expressive"  # the contrast of the study's one primary endpoint
_CHUNK = 256


def is_pain(faces: pd.DataFrame) -> np.ndarray:
    """Return True for each row of `faces` whose `label` is `Pain`, shape (faces,)."""
    return (faces["label"] == "Pain").to_numpy()


def contrast_mask(faces: pd.DataFrame, contrast: str) -> np.ndarray:
    """Return which rows of `faces` (columns `label`, `side`) take part in `contrast`.

    Positives are always the Pain faces. Negatives: for `all` every NoPain face, for `neutral` the
    left (neutral) halves, for `expressive` the right halves labelled NoPain. Raises `StudyError`
    for another name.
    """
    if contrast not in CONTRASTS:
        raise StudyError(f"Unknown contrast '{contrast}': choose one of {', '.join(CONTRASTS)}.")
    if contrast == "all":
        return np.ones(len(faces), bool)
    side = "left" if contrast == "neutral" else "right"
    return is_pain(faces) | (faces["side"] == side).to_numpy()


def measure(
    positive: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return every metric of `METRICS`, one column each.

    `positive`: bool, (faces,). `probability`: P(pain) in 0..1, (faces,). `weights`: not negative,
    (samples, faces), one row of the answer for each; none means one row, every face once. A
    decision is Pain where P(pain) > 0.5, as a teacher's hard label is Pain where its logit > 0.
    AUROC counts ties as a half; AUPRC is average precision; ECE compares P(pain) with the share
    of Pain in ten bins of equal width (on a resample it is biased upwards). F1 is 0 without a
    true positive, and NaN where nothing is or is called Pain.
    """
    positive = np.asarray(positive, bool)
    probability = np.asarray(probability, float)
    if weights is None:
        weights = np.ones((1, len(positive)))
    parts = [
        _measure(positive, probability, weights[start : start + _CHUNK])
        for start in range(0, len(weights), _CHUNK)
    ]
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in METRICS})


def measure_auroc(
    positive: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the column `auroc` of `measure` alone; the same arguments."""
    positive = np.asarray(positive, bool)
    if weights is None:
        weights = np.ones((1, len(positive)))
    return pd.DataFrame({"auroc": _auroc(positive, np.asarray(probability, float), weights)})


def _auroc(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted share of pairs that are in order, ties half, (samples,)."""
    pains, others = probability[positive], probability[~positive]
    ordered = (pains[:, None] > others) + (pains[:, None] == others) / 2
    pain, other = weights[:, positive], weights[:, ~positive]
    wins = ((pain @ ordered) * other).sum(axis=1)
    return _ratio(wins, pain.sum(axis=1) * other.sum(axis=1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _measure(
    positive: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    called = probability > THRESHOLD
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    columns = [
        positive & called,
        positive & ~called,
        ~positive & called,
        ~positive & ~called,
        (probability - positive) ** 2,
    ]
    surplus = (probability - positive)[:, None] * (bins[:, None] == np.arange(BINS))
    sums = weights @ np.column_stack([*columns, surplus])
    tp, fn, fp, tn, square = sums.T[:5]
    total = tp + fn + fp + tn
    sensitivity = _ratio(tp, tp + fn)
    specificity = _ratio(tn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, total),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "kappa": kappa_of_counts(tp, fn, fp, tn),
        "auroc": _auroc(positive, probability, weights),
        "auprc": _average_precision(positive, probability, weights),
        "brier": _ratio(square, total),
        "ece": _ratio(np.abs(sums[:, 5:]).sum(axis=1), total),
    }


def _average_precision(
    positive: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the weighted average precision, (samples,); equal scores form one step."""
    if not positive.any() or positive.all():
        return np.full(len(weights), np.nan)
    order = np.argsort(-probability, kind="stable")
    starts = np.flatnonzero(np.diff(probability[order], prepend=np.inf))
    ranked = weights[:, order]
    pains = np.add.reduceat(ranked * positive[order], starts, axis=1)
    called = np.add.reduceat(ranked, starts, axis=1)
    pains_so_far, called_so_far = pains.cumsum(axis=1), called.cumsum(axis=1)
    n_pain, n_all = pains_so_far[:, -1], called_so_far[:, -1]
    precision = np.nan_to_num(_ratio(pains_so_far, called_so_far))
    auprc = _ratio((pains * precision).sum(axis=1), n_pain)
    return np.where(n_all > n_pain, auprc, np.nan)


def kappa_of_counts(
    both: np.ndarray, only_first: np.ndarray, only_second: np.ndarray, neither: np.ndarray
) -> np.ndarray:
    """Return Cohen's κ of two binary raters from the four (weighted) counts.

    1 is full agreement, 0 what chance gives; NaN where both raters give one answer only.
    """
    total = both + only_first + only_second + neither
    expected = (both + only_first) * (both + only_second)
    expected = expected + (neither + only_first) * (neither + only_second)
    observed = (both + neither) * total
    return _ratio(observed - expected, total**2 - expected)


def agreement(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return how two sets of probabilities agree: columns `agreement`, `kappa`, `kl`.

    `first` (say the teacher's P(pain)) and `second`: (faces,). `weights` as in `measure`. Agreement
    is the share of faces with the same decision at 0.5; KL is the mean divergence of `second` from
    `first`, in nats, probabilities clipped to 1e-6.
    """
    if weights is None:
        weights = np.ones((1, len(first)))
    a, b = np.asarray(first) > THRESHOLD, np.asarray(second) > THRESHOLD
    p, q = (np.clip(x, 1e-6, 1 - 1e-6) for x in (np.asarray(first), np.asarray(second)))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    both, only_a, only_b, neither, kl = (
        weights @ np.column_stack([a & b, a & ~b, ~a & b, ~a & ~b, divergence])
    ).T
    total = both + only_a + only_b + neither
    return pd.DataFrame(
        {
            "agreement": _ratio(both + neither, total),
            "kappa": kappa_of_counts(both, only_a, only_b, neither),
            "kl": _ratio(kl, total),
        }
    )


def mcnemar(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return McNemar's exact test of two arms' decisions on the same faces.

    `positive`: bool, (faces,); `first`, `second`: P(pain), (faces,). Answer: `only_first` and
    `only_second` (faces that one arm alone gets right) and the two-sided `p`. It takes faces as
    independent, though two share an identity: read it beside the bootstrap, not instead of it.
    """
    first_right = (np.asarray(first) > THRESHOLD) == positive
    second_right = (np.asarray(second) > THRESHOLD) == positive
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    differing = only_first + only_second
    p = binomtest(only_first, differing, 0.5).pvalue if differing else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": float(p)}


def roc_curve(positive: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates from (0, 0) to (1, 1), one step for each score.

    Both are empty where one of the classes is missing.
    """
    positive = np.asarray(positive, bool)
    if not positive.any() or positive.all():
        return np.empty(0), np.empty(0)
    order = np.argsort(-np.asarray(probability), kind="stable")
    ends = np.flatnonzero(np.diff(np.asarray(probability)[order], append=-np.inf))
    true = np.cumsum(positive[order])[ends] / positive.sum()
    false = np.cumsum(~positive[order])[ends] / (~positive).sum()
    return np.r_[0, false], np.r_[0, true]


def reliability(positive: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Return the ECE's ten bins: `predicted` (mean P(pain)), `observed` (share of Pain), `faces`.

    Empty bins are left out.
    """
    table = pd.DataFrame({"predicted": probability, "observed": np.asarray(positive, float)})
    bins = np.minimum((table["predicted"] * BINS).astype(int), BINS - 1)
    grouped = table.groupby(bins)
    return grouped.mean().assign(faces=grouped.size()).reset_index(drop=True)
