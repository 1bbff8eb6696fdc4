"""Intervals by a paired bootstrap over identities, with the luck of training nested in it.

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
from scipy.stats import norm, t

LEVEL = 0.95
# With fewer people in a class the percentile interval is far too narrow to be shown.
LEAST_IDENTITIES = 5
_NEEDS_PAIN = {"sensitivity", "balanced_accuracy", "f1", "kappa", "auroc", "auprc"}
_NEEDS_OTHER = {"specificity", "balanced_accuracy", "kappa", "auroc", "auprc"}
_LIMITS = {"kappa": (-1.0, 1.0), "kl": (0.0, np.inf)}
_SHARE = (0.0, 1.0)
_ROUNDING = 1e-12


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

    @property
    def share_above_zero(self) -> float:
        """The share of widened draws above 0 (0, but for rounding, counts as half), or NaN."""
        draws = self.widened
        if not len(draws):
            return np.nan
        return float(np.mean(draws > _ROUNDING) + np.mean(np.abs(draws) <= _ROUNDING) / 2)

    @cached_property
    def widened(self) -> np.ndarray:
        """The finite draws, stretched about `value` by the luck of training."""
        return self._stretched(min((len(found.values) for found in self.luck), default=1) - 1)

    def interval_of_the_plan(self) -> tuple[float, float]:
        """Return the interval whose degrees of freedom have no least value, as first planned."""
        if not np.isfinite(self.low):
            return np.nan, np.nan
        ends = np.quantile(self._stretched(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = np.clip(ends, *self.limits)
        return float(low), float(high)

    def _stretched(self, least_freedom: float) -> np.ndarray:
        draws = self.draws[np.isfinite(self.draws)]
        training = sum(found.training / len(found.values) for found in self.luck)
        if not len(draws) or not training > 0:
            return draws
        faces = float(np.var(draws))
        freedom = (faces + training) ** 2 / sum(
            (found.variance / len(found.values)) ** 2 / (len(found.values) - 1)
            for found in self.luck
        )
        freedom = max(freedom, least_freedom)
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
        difference = Estimate(
            self.value - other.value,
            self.draws - other.draws,
            (),
            self.luck + other.luck,
            (self.limits[0] - other.limits[1], self.limits[1] - other.limits[0]),
        )
        if len(self.seeds) != len(other.seeds):
            return difference
        seeds = tuple(a - b for a, b in zip(self.seeds, other.seeds, strict=True))
        luck = tuple(
            Seeds(a.values - b.values, a.draws - b.draws)
            for a, b in zip(self.luck, other.luck, strict=True)
        )
        return replace(difference, seeds=seeds, luck=luck)

    def unpaired(self, other: "Estimate") -> "Estimate":
        """Return the difference, paired over identities and not over seeds."""
        return replace(self - other, seeds=(), luck=self.luck + other.luck)

    def complement(self) -> "Estimate":
        """Return 1 minus this share."""
        luck = tuple(Seeds(1 - found.values, 1 - found.draws) for found in self.luck)
        seeds = tuple(1 - value for value in self.seeds)
        low, high = self.limits
        return Estimate(1 - self.value, 1 - self.draws, seeds, luck, (1 - high, 1 - low))

    def __truediv__(self, other: "Estimate") -> "Estimate":
        """Return the paired ratio; where `other` is 0 it is NaN.

        The seeds enter by its linear part, (a − r b) / mean b: one seed's `b` may be near 0.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.divide(self.value, other.value)
            draws = np.divide(self.draws, other.draws)
        draws = np.where(np.isfinite(draws), draws, np.nan)
        if not np.isfinite(value):
            return Estimate(np.nan, draws, ())
        luck = ()
        if len(self.seeds) == len(other.seeds):
            luck = tuple(
                Seeds(
                    value + (a.values - value * b.values) / other.value,
                    value + (a.draws - value * b.draws) / other.value,
                )
                for a, b in zip(self.luck, other.luck, strict=True)
            )
        return Estimate(float(value), draws, (), luck)

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
        limits = _LIMITS.get(name, _SHARE)
        found[name] = Estimate(
            float(seeds.mean()), by_seed.mean(axis=0), tuple(seeds.tolist()), luck, limits
        )
    return found
