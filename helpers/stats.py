"""What is measured on a set of faces, and how sure: metrics, and their paired bootstrap intervals.

Weights carry the bootstrap: a face counts as often as its identity was drawn, so 2,000 resamples
are one matrix product instead of 2,000 loops (scikit-learn's scores take one resample at a time;
the tests hold these to them). A quantity that a set of one class cannot have is NaN.

Both halves of a pair show one person, so faces are not independent: identities are drawn, with
both their faces. All arms see the same draws, so the difference of two arms is taken draw by draw.

With several seeds a draw's value is the mean over seeds. That alone would speak of these trained
models only, so the draws are widened by what the seeds show of the luck of training. The variance
of the mean over k seeds is that of the draws plus S / k, with S = max(0, s² − E): s² the variance
between seeds on the faces as they are, E the part of it that the choice of faces explains, which
the draws tell. The sum has Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics
Bulletin 2, 110–114), so three seeds that differ are not trusted beyond three seeds. They are at
least k − 1, the least that a sum of independent components can have: E is taken off s² by an
estimate, and where it is too large the formula alone can fall below, even below 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, t

from helpers.files import StudyError

THRESHOLD = 0.5
BINS = 10
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
METRICS |= {"sensitivity": "sensitivity", "specificity": "specificity", "f1": "F1"}
METRICS |= {"kappa": "Cohen's κ", "auroc": "AUROC", "auprc": "AUPRC"}
METRICS |= {"brier": "Brier score", "ece": "ECE"}
CONTRASTS = {"all": "Pain vs every other face", "neutral": "Pain vs neutral"}
CONTRASTS |= {"expressive": "Pain vs expressive NoPain"}
PRIMARY = "expressive"  # the contrast of the study's one primary endpoint
LEVEL = 0.95
# With fewer people in a class the percentile interval is far too narrow to be shown.
LEAST_IDENTITIES = 5
_NEEDS_PAIN = {"sensitivity", "balanced_accuracy", "f1", "kappa", "auroc", "auprc"}
_NEEDS_OTHER = {"specificity", "balanced_accuracy", "kappa", "auroc", "auprc"}
_LIMITS = {"kappa": (-1.0, 1.0), "kl": (0.0, np.inf)}


@dataclass(frozen=True)
class Seeds:
    """The same number from k training runs.

    `values`: on the faces as they are, (k,). `draws`: in each bootstrap sample, (k, samples).
    """

    values: np.ndarray
    draws: np.ndarray

    @property
    def variance(self) -> float:
        """The variance between seeds, the choice of faces included."""
        return float(np.var(self.values, ddof=1))

    @property
    def training(self) -> float:
        """The variance between seeds that the choice of faces does not explain, 0 or more."""
        return max(0.0, self.variance - self.variance_of_faces)

    @property
    def variance_of_faces(self) -> float:
        """The variance between seeds that the choice of faces explains."""
        apart = self.draws - self.draws.mean(axis=0)
        return float(np.nanvar(apart, axis=1).sum() / (len(self.values) - 1))


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    `value`: on the faces as they are, the mean over seeds. `draws`: its value in each bootstrap
    sample, (samples,), all NaN where there are too few identities for an interval. `seeds`: its
    value for each seed. `luck`: the seeds with their draws, one entry for each set of training runs
    that varied on its own; none where there is one seed. `limits`: values that it cannot leave.
    """

    value: float
    draws: np.ndarray
    seeds: tuple[float, ...]
    luck: tuple[Seeds, ...] = ()
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval, or NaN."""
        return self._quantile((1 - LEVEL) / 2)

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval, or NaN."""
        return self._quantile((1 + LEVEL) / 2)

    @cached_property
    def widened(self) -> np.ndarray:
        """The finite draws, stretched about `value` by the luck of training."""
        return self._stretched(min((len(found.values) for found in self.luck), default=1) - 1)

    def _stretched(self, least_freedom: float) -> np.ndarray:
        draws = self.draws[np.isfinite(self.draws)]
        training = sum(found.training / len(found.values) for found in self.luck)
        if not len(draws) or not training > 0:
            return draws
        faces = float(np.var(draws))
        parts = ((f.variance / len(f.values)) ** 2 / (len(f.values) - 1) for f in self.luck)
        freedom = max((faces + training) ** 2 / sum(parts), least_freedom)
        spread = np.sqrt(faces + training)
        if faces < 1e-12 * training:  # draws that differ by rounding only have no shape
            ranks = (np.arange(len(draws)) + 0.5) / len(draws)
            return self.value + spread * t.ppf(ranks, freedom)
        tail = (1 + LEVEL) / 2
        stretch = spread / np.sqrt(faces) * t.ppf(tail, freedom) / norm.ppf(tail)
        return self.value + stretch * (draws - self.value)

    def _quantile(self, q: float) -> float:
        known = len(self.widened) and np.isfinite(self.value)
        return float(np.clip(np.quantile(self.widened, q), *self.limits)) if known else np.nan

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the paired difference; seeds are paired where both have the same number."""
        limits = (self.limits[0] - other.limits[1], self.limits[1] - other.limits[0])
        value, draws = self.value - other.value, self.draws - other.draws
        difference = Estimate(value, draws, (), self.luck + other.luck, limits)
        if len(self.seeds) != len(other.seeds):
            return difference
        seeds = tuple(a - b for a, b in zip(self.seeds, other.seeds, strict=True))
        pairs = zip(self.luck, other.luck, strict=True)
        luck = tuple(Seeds(a.values - b.values, a.draws - b.draws) for a, b in pairs)
        return replace(difference, seeds=seeds, luck=luck)

    def unpaired(self, other: "Estimate") -> "Estimate":
        """Return the difference, paired over identities and not over seeds."""
        return replace(self - other, seeds=(), luck=self.luck + other.luck)

    def as_planned(self) -> "Estimate":
        """Return it with the interval first planned: no least value of the degrees of freedom."""
        return replace(self, draws=self._stretched(0), luck=())

    def without_interval(self) -> "Estimate":
        """Return the value alone: all draws NaN."""
        return replace(self, draws=np.full(self.draws.shape, np.nan))

    def row(self) -> dict[str, float]:
        """Return `estimate`, `low` and `high`, as columns of a tidy table."""
        return {"estimate": self.value, "low": self.low, "high": self.high}


def identity_weights(identities: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """Return how often each face counts in each bootstrap sample, (samples, faces).

    As many identities are drawn, with replacement, as there are; all faces of an identity count
    as often as it was drawn.
    """
    codes, unique = pd.factorize(np.asarray(identities))
    count = len(unique)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    return drawn[:, codes].astype(float)


def enough_identities(name: str, identities: Sequence[str], positive: np.ndarray) -> bool:
    """Return whether metric `name` can have an interval on these faces.

    At least five identities in all, and in each class that the metric needs.
    """
    identities, positive = np.asarray(identities), np.asarray(positive, bool)
    groups = [identities]
    if name in _NEEDS_PAIN:
        groups.append(identities[positive])
    if name in _NEEDS_OTHER:
        groups.append(identities[~positive])
    return all(len(np.unique(group)) >= LEAST_IDENTITIES for group in groups)


def estimates(values: Sequence[pd.DataFrame], draws: Sequence[pd.DataFrame]) -> dict[str, Estimate]:
    """Return an estimate for each column, from one table a seed.

    `values`: one row each; `draws`: one row a bootstrap sample.
    """
    found = {}
    for name in values[0].columns:
        seeds = np.array([value[name].iloc[0] for value in values], float)
        by_seed = np.stack([draw[name].to_numpy(float) for draw in draws])
        luck = (Seeds(seeds, by_seed),) if len(seeds) > 1 else ()
        limits = _LIMITS.get(name, (0.0, 1.0))
        found[name] = Estimate(
            float(seeds.mean()), by_seed.mean(axis=0), tuple(seeds.tolist()), luck, limits
        )
    return found


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
    positive, probability = np.asarray(positive, bool), np.asarray(probability, float)
    weights = np.ones((1, len(positive))) if weights is None else weights
    called = probability > THRESHOLD
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    columns = [positive & called, positive & ~called, ~positive & called, ~positive & ~called]
    columns.append((probability - positive) ** 2)
    surplus = (probability - positive)[:, None] * (bins[:, None] == np.arange(BINS))
    sums = weights @ np.column_stack([*columns, surplus])
    tp, fn, fp, tn, square = sums.T[:5]
    total = tp + fn + fp + tn
    sensitivity = _ratio(tp, tp + fn)
    specificity = _ratio(tn, tn + fp)
    found = {
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
    return pd.DataFrame(found)


def measure_auroc(
    positive: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the column `auroc` of `measure` alone; the same arguments."""
    positive = np.asarray(positive, bool)
    weights = np.ones((1, len(positive))) if weights is None else weights
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
    weights = np.ones((1, len(first))) if weights is None else weights
    a, b = np.asarray(first) > THRESHOLD, np.asarray(second) > THRESHOLD
    p, q = (np.clip(x, 1e-6, 1 - 1e-6) for x in (np.asarray(first), np.asarray(second)))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    columns = np.column_stack([a & b, a & ~b, ~a & b, ~a & ~b, divergence])
    both, only_a, only_b, neither, kl = (weights @ columns).T
    total = both + only_a + only_b + neither
    found = {"agreement": _ratio(both + neither, total), "kl": _ratio(kl, total)}
    found["kappa"] = kappa_of_counts(both, only_a, only_b, neither)
    return pd.DataFrame(found)[["agreement", "kappa", "kl"]]


def mcnemar(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return McNemar's exact test of two arms' decisions on the same faces.

    `positive`: bool, (faces,); `first`, `second`: P(pain), (faces,). Answer: `only_first` and
    `only_second` (faces that one arm alone gets right) and the two-sided `p`. It takes faces as
    independent, though two share an identity: read it beside the bootstrap, not instead of it.
    """
    a, b = ((np.asarray(score) > THRESHOLD) == positive for score in (first, second))
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    p = binomtest(only_first, n).pvalue if (n := only_first + only_second) else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": float(p)}
