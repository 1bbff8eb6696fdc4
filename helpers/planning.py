"""How many people and training runs would resolve a difference between two arms.

From the two components of variance of a paired difference as measured (`bootstrap`): F, of one
identity, and S, of one training run. With n identities and k seeds the difference has the variance
F / n + S / k, and a true difference d is found, by an interval of 95 % that leaves out 0, with a
chance of 80 % where (z(0.975) + z(0.8))² (F / n + S / k) is d² or less (the usual normal
approximation; Cohen 1988).
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from helpers.bootstrap import LEVEL, Estimate

POWER = 0.8
DIFFERENCES = (0.01, 0.02, 0.05)
SEEDS = (3, 5, 10, 20)


def components(difference: Estimate, identities: int) -> tuple[float, float]:
    """Return the variance of one identity and of one training run, F and S.

    `difference`: of two arms, on the test faces of `identities` people. S is NaN with one seed.
    """
    draws = difference.draws[np.isfinite(difference.draws)]
    people = float(np.var(draws)) * identities if len(draws) else np.nan
    training = sum(found.training for found in difference.luck) if difference.luck else np.nan
    return people, training


def identities_needed(people: float, training: float, difference: float, seeds: int) -> float:
    """Return the identities in the test set that `seeds` seeds need, inf where more seeds do.

    `people`, `training`: see `components`. `difference`: the true one, > 0.
    """
    left = (difference / (norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER))) ** 2 - training / seeds
    return float(np.ceil(people / left)) if left > 0 else np.inf


def planning_table(
    difference: Estimate,
    identities: int,
    differences: tuple[float, ...] = DIFFERENCES,
    seeds: tuple[int, ...] = SEEDS,
) -> pd.DataFrame:
    """Return the identities needed for each true difference and number of seeds.

    Columns `difference`, `seeds`, `identities` (inf: these seeds are too few for any test set).
    """
    people, training = components(difference, identities)
    if not np.isfinite(people) or not np.isfinite(training):
        return pd.DataFrame(columns=["difference", "seeds", "identities"])
    rows = [(d, k, identities_needed(people, training, d, k)) for d in differences for k in seeds]
    return pd.DataFrame(rows, columns=["difference", "seeds", "identities"])
