"""For whom it works: AUROC by gender, age and ethnicity, and the largest gap between two groups."""

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate
from helpers.dataset.naming import parse_id
from helpers.evaluation.compare import Panel, counts
from helpers.prose import listing

GROUPS = ("gender", "age", "ethnicity")
_CONTRASTS = ("all", "expressive")
_GAP_COLUMNS = "group contrast arm best worst estimate low high".split()


def members_of(panel: Panel, group: str) -> dict[str, np.ndarray]:
    """Return which faces show a person of each value of `group`, (faces,), as the ID tells it."""
    people = panel.faces["identity"].map(lambda identity: getattr(parse_id(identity), group))
    return {value: (people == value).to_numpy() for value in sorted(people.unique())}


def subgroup_table(panel: Panel) -> pd.DataFrame:
    """Return AUROC of every arm with its interval, by group and contrast."""
    rows = []
    for group in GROUPS:
        for value, among in members_of(panel, group).items():
            for contrast in _CONTRASTS:
                size = counts(panel, contrast, among)
                for arm in panel.arms:
                    found = panel.auroc(arm, contrast, among=among)
                    row = {"group": group, "value": value, "contrast": contrast, "arm": arm}
                    rows.append(row | found.row() | size)
    return pd.DataFrame(rows)


def gap_between_groups(panel: Panel) -> pd.DataFrame:
    """Return for each arm, grouping and contrast how far its best value is above its worst.

    Values without an interval (too few people) are left out, and a grouping with fewer than two
    others has no row. Where several share the best or the worst value, all are named and the
    interval is the first one's. `best` and `worst` are chosen on the faces on which the gap is
    measured, so the gap is on average too large, and its interval does not correct for the choice.
    """
    rows = []
    for group in GROUPS:
        members = members_of(panel, group)
        for contrast in _CONTRASTS:
            for arm in panel.arms:
                found = {
                    value: panel.auroc(arm, contrast, among=among)
                    for value, among in members.items()
                }
                found = {value: e for value, e in found.items() if np.isfinite(e.low)}
                if len(found) < 2:
                    continue
                best = max(found, key=lambda value: found[value].value)
                worst = min(found, key=lambda value: found[value].value)
                row = {"group": group, "contrast": contrast, "arm": arm}
                row |= {"best": _tied(found, best), "worst": _tied(found, worst)}
                rows.append(row | (found[best] - found[worst]).row())
    return pd.DataFrame(rows, columns=_GAP_COLUMNS)


def _tied(found: dict[str, Estimate], chosen: str) -> str:
    value = found[chosen].value
    return listing([name for name, other in found.items() if abs(other.value - value) < 1e-9])
