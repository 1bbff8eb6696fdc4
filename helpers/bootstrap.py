"""Intervals by a paired bootstrap over identities.

Both halves of a pair show one person, so faces are not independent: identities are drawn, with
both their faces. All arms see the same draws, so the difference of two arms is taken draw by draw.
With several seeds a draw's value is the mean over seeds: the interval speaks of the faces, and the
seeds are shown beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.95
# With fewer people in a class the percentile interval is far too narrow to be shown.
LEAST_IDENTITIES = 5
_NEEDS_PAIN = {"sensitivity", "balanced_accuracy", "f1", "kappa", "auroc", "auprc"}
_NEEDS_OTHER = {"specificity", "balanced_accuracy", "kappa", "auroc", "auprc"}


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    `value`: on the faces as they are, the mean over seeds. `draws`: its value in each bootstrap
    sample, (samples,), all NaN where there are too few identities for an interval. `seeds`: its
    value for each seed.
    """

    value: float
    draws: np.ndarray
    seeds: tuple[float, ...]

    @property
    def low(self) -> float:
        """The lower end of the 95 % percentile interval, or NaN."""
        return self._quantile((1 - LEVEL) / 2)

    @property
    def high(self) -> float:
        """The upper end of the 95 % percentile interval, or NaN."""
        return self._quantile((1 + LEVEL) / 2)

    @property
    def share_above_zero(self) -> float:
        """The share of draws above 0 (a draw of exactly 0 counts as half), or NaN."""
        draws = self.draws[np.isfinite(self.draws)]
        return float(np.mean(draws > 0) + np.mean(draws == 0) / 2) if len(draws) else np.nan

    def _quantile(self, q: float) -> float:
        draws = self.draws[np.isfinite(self.draws)]
        known = len(draws) and np.isfinite(self.value)
        return float(np.quantile(draws, q)) if known else np.nan

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the paired difference; seeds are paired where both have the same number."""
        paired = len(self.seeds) == len(other.seeds)
        seeds = zip(self.seeds, other.seeds, strict=True) if paired else ()
        return Estimate(
            self.value - other.value, self.draws - other.draws, tuple(a - b for a, b in seeds)
        )

    def __truediv__(self, other: "Estimate") -> "Estimate":
        """Return the paired ratio; where `other` is 0 it is NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.divide(self.value, other.value)
            draws = np.divide(self.draws, other.draws)
        draws = np.where(np.isfinite(draws), draws, np.nan)
        return Estimate(float(value) if np.isfinite(value) else np.nan, draws, ())

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
    return {
        name: Estimate(
            float(np.mean([value[name].iloc[0] for value in values])),
            np.mean([draw[name].to_numpy() for draw in draws], axis=0),
            tuple(float(value[name].iloc[0]) for value in values),
        )
        for name in values[0].columns
    }
