"""How often a run is right at a threshold: its confusion matrix, and two rates with intervals."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from helpers.bootstrap import LEVEL
from helpers.explorer.choice import (
    OUTCOMES,
    Choice,
    FaceSet,
    decided,
    in_group,
    outcome_of,
    probability,
)
from helpers.files import project_path, write_csv

THRESHOLDS = np.arange(101) / 100


@dataclass(frozen=True)
class Counts:
    """A confusion matrix, and how many people its rows come from.

    `pain_people`, `other_people`: identities with a Pain and with a NoPain face.
    """

    hit: int
    miss: int
    false_alarm: int
    correct_rejection: int
    pain_people: int
    other_people: int

    @property
    def sensitivity(self) -> float:
        """The share of Pain faces that are called Pain; NaN without one."""
        return _share(self.hit, self.hit + self.miss)

    @property
    def specificity(self) -> float:
        """The share of NoPain faces that are called NoPain; NaN without one."""
        return _share(self.correct_rejection, self.correct_rejection + self.false_alarm)

    def interval(self, rate: str) -> tuple[float, float]:
        """Return the 95 % Wilson interval of `sensitivity` or `specificity`; see `wilson`."""
        people = self.pain_people if rate == "sensitivity" else self.other_people
        return wilson(getattr(self, rate), people)


def count(faces: FaceSet, choice: Choice) -> Counts:
    """Return the confusion matrix of the chosen group.

    It is not narrowed by outcome or disagreement: rates among faces chosen by their outcome say
    nothing.
    """
    mask = in_group(faces, choice)
    found = outcome_of(faces.panel.positive, decided(faces, choice))[mask]
    identities, positive = faces.table["identity"][mask], faces.panel.positive[mask]
    people = (identities[positive].nunique(), identities[~positive].nunique())
    return Counts(*(int((found == name).sum()) for name in OUTCOMES), *people)


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval (Wilson 1927) of a share of independent trials.

    Trials are people and not faces here, as the faces of one person are not independent. Unlike
    the bootstrap it has a width where the share is 0 or 1. Both ends are NaN without a trial.
    """
    if not trials:
        return np.nan, np.nan
    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def threshold_table(faces: FaceSet) -> pd.DataFrame:
    """Return the confusion matrix of every run on all test faces at each of `THRESHOLDS`.

    Columns: arm, seed, threshold, the four counts, sensitivity, specificity. By the decision.
    """
    positive, rows = faces.panel.positive, []
    for arm in faces.panel.arms:
        for seed in faces.panel.seeds[arm]:
            called = probability(faces, arm, seed) > THRESHOLDS[:, None]
            hit, false = called[:, positive].sum(axis=1), called[:, ~positive].sum(axis=1)
            miss, rejected = positive.sum() - hit, (~positive).sum() - false
            with np.errstate(invalid="ignore"):
                rates = {
                    "sensitivity": hit / (hit + miss),
                    "specificity": rejected / (rejected + false),
                }
            counts = {"hit": hit, "miss": miss, "false_alarm": false, "correct_rejection": rejected}
            rows.append(
                pd.DataFrame({"arm": arm, "seed": seed, "threshold": THRESHOLDS} | counts | rates)
            )
    return pd.concat(rows, ignore_index=True)


def keep_thresholds(faces: FaceSet, results_dir: str | Path) -> pd.DataFrame:
    """Return `threshold_table`, and write it to `thresholds.csv` in `results_dir`."""
    table = threshold_table(faces)
    write_csv(project_path(results_dir) / "thresholds.csv", table.round(6))
    return table
