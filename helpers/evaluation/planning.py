"""How many people and training runs would resolve a difference between two arms.

From the components of variance of a paired difference as measured (`bootstrap`): C, what one
identity does to every training run; A, what it does to one run apart; S, of one training run. With
n identities and k seeds the difference has the variance (C + A / k) / n + S / k. How often the
report's own interval, with the variances that a study's own seeds show, would then leave out 0 is
counted in simulated studies of normal components: a formula with known variances promises too much
for few seeds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from helpers.bootstrap import LEVEL, Estimate

POWER = 0.8
DIFFERENCES = (0.01, 0.02, 0.05)
SEEDS = (3, 5, 10, 20)
LEAST_IDENTITIES, MOST_IDENTITIES = 20, 20_000
STUDIES = 4000


@dataclass(frozen=True)
class Components:
    """The variances C (`common`), A (`apart`) and S (`training`) of a paired difference."""

    common: float
    apart: float
    training: float

    def power(self, difference: float, identities: int, seeds: int) -> float:
        """Return how often simulated studies find a true `difference`; the same draws each time."""
        rng = np.random.default_rng(seeds)
        people = rng.normal(0, 1, STUDIES) * np.sqrt(self.common / identities)
        runs = rng.normal(0, 1, (STUDIES, seeds))
        runs *= np.sqrt(self.apart / identities + self.training)
        between = runs.var(axis=1, ddof=1)
        luck = np.maximum(0, between - self.apart / identities) / seeds
        variance = (self.common + self.apart / seeds) / identities + luck
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = variance**2 / ((between / seeds) ** 2 / (seeds - 1))
        freedom = np.where(luck > 0, np.maximum(freedom, seeds - 1), np.inf)
        least = t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance)
        return float(np.mean(difference + people + runs.mean(axis=1) > least))


def components(difference: Estimate, identities: int) -> Components | None:
    """Return the components of `difference`, of two arms on the test faces of `identities` people.

    None without an interval, or with one seed, which does not tell them.
    """
    draws = difference.draws[np.isfinite(difference.draws)]
    if not len(draws) or not difference.luck:
        return None
    seeds = min(len(found.values) for found in difference.luck)
    training = sum(found.training for found in difference.luck)
    apart = sum(found.variance_of_faces for found in difference.luck) * identities
    common = max(0.0, float(np.var(draws)) * identities - apart / seeds)
    return Components(common, apart, training)


def identities_needed(found: Components, difference: float, seeds: int) -> float:
    """Return the identities in the test set that `seeds` seeds need, at least `LEAST_IDENTITIES`.

    `difference`: the true one, > 0. To about 5 %; inf above `MOST_IDENTITIES`.
    """
    for identities in np.geomspace(LEAST_IDENTITIES, MOST_IDENTITIES, 140).round().astype(int):
        if found.power(difference, identities, seeds) >= POWER:
            return float(identities)
    return np.inf


def planning_table(
    difference: Estimate,
    identities: int,
    differences: tuple[float, ...] = DIFFERENCES,
    seeds: tuple[int, ...] = SEEDS,
) -> pd.DataFrame:
    """Return the identities needed for each true difference and number of seeds.

    Columns `difference`, `seeds`, `identities` (inf: these seeds are too few for any test set).
    """
    found = components(difference, identities)
    if found is None:
        return pd.DataFrame(columns=["difference", "seeds", "identities"])
    rows = [(d, k, identities_needed(found, d, k)) for d in differences for k in seeds]
    return pd.DataFrame(rows, columns=["difference", "seeds", "identities"])
