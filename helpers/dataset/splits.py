"""Splits by identity: no person is in two of train, validation and test."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd

from helpers.dataset.folds import LEAST_FOLDS, MOST_FOLDS
from helpers.dataset.naming import CELL
from helpers.errors import StudyError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class KFold:
    """A split by folds: how many there are, and the place of the test fold, counted from 0.

    The fold before it (before the first, the last) is for validation, the others for training.
    """

    n_folds: int
    test: int

    @property
    def validation(self) -> int:
        """The place of the validation fold, counted from 0."""
        return (self.test - 1) % self.n_folds


def check_split(ratios: Sequence) -> tuple[float, ...] | KFold:
    """Return what the parameter `split_ratios` asks for: three shares, or folds.

    Shares: see `check_ratios`. Folds: `[k]` or `[k, i]`, k from 3 to 20 folds of which the i-th,
    counted from 0, is the test set; `[k]` takes the last. Raises `StudyError` for anything else.
    """
    whole = all(isinstance(r, int) and not isinstance(r, bool) for r in ratios)
    if not whole or len(ratios) not in (1, 2):
        return check_ratios(ratios)
    n_folds, test = (*ratios, ratios[0] - 1)[:2]
    if not (LEAST_FOLDS <= n_folds <= MOST_FOLDS and 0 <= test < n_folds):
        raise StudyError(
            f"The parameter split_ratios asks for folds by [k, i], k from {LEAST_FOLDS} to "
            f"{MOST_FOLDS} and i from 0 to k - 1, not {list(ratios)}."
        )
    return KFold(n_folds, test)


def check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """Return the shares of train, validation and test, or raise `StudyError`.

    They must be three numbers from 0 to 1 that sum to 1, with a train share above 0.
    """
    numbers = all(isinstance(r, int | float) and not isinstance(r, bool) for r in ratios)
    if (
        not numbers
        or len(ratios) != len(SPLITS)
        or not all(0 <= r <= 1 for r in ratios)
        or not math.isclose(sum(ratios), 1, abs_tol=1e-6)
        or ratios[0] == 0
    ):
        raise StudyError(
            "The parameter split_ratios must be three shares (train, validation, test) that sum "
            f"to 1, with train above 0, or [k, i] for k folds, not {list(ratios)}."
        )
    return tuple(float(r) for r in ratios)


def assign_splits(
    pairs: pd.DataFrame,
    ratios: Sequence[float],
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the split of each identity, stratified over expression × gender × age × ethnicity.

    `pairs` has one row a pair with the columns identity, expression, gender, age, ethnicity. The
    totals are the ratios to rounding, and no split with a share is empty from three pairs on.
    Within each of the 40 cells a split's count is within one pair of its share (except where a
    handful of pairs would leave a split empty), and so, as nearly as can be, are the counts of
    each expression, gender, age and ethnicity. Identities of one group (`groups`, by identity)
    come into one split, at the cost of the proportions where a group is large. The result depends
    on the identities, their groups and the seed alone, not on the order of rows. Raises
    `StudyError` for ratios that are none.
    """
    places = _spread(pairs, check_ratios(ratios), seed, groups)
    return {identity: SPLITS[place] for identity, place in places.items()}


def assign_folds(
    pairs: pd.DataFrame, n_folds: int, seed: int, groups: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Return the fold of each identity, 0 to `n_folds` - 1; balanced as `assign_splits` is.

    Raises `StudyError` where there are fewer pairs than folds.
    """
    if len(pairs) < n_folds:
        raise StudyError(
            f"The parameter split_ratios asks for {n_folds} folds, more than the {len(pairs)} "
            "usable pairs."
        )
    return _spread(pairs, [1 / n_folds] * n_folds, seed, groups)


def keep_together(folds: Mapping[str, int], groups: Mapping[str, str]) -> dict[str, int]:
    """Return `folds` with the identities of one group in one: that of most, the lowest of equals.

    An identity without a fold gets that of its group.
    """
    together = dict(folds)
    for members in _members(groups):
        known = [folds[identity] for identity in members if identity in folds]
        if known:
            fold = min(set(known), key=lambda fold: (-known.count(fold), fold))
            together |= dict.fromkeys(members, fold)
    return together


def splits_by_fold(
    identities: Iterable[str], folds: Mapping[str, int], choice: KFold
) -> dict[str, str]:
    """Return the split of each identity by the place of its fold (0 to k - 1).

    An identity without a fold goes to train.
    """
    special = {choice.validation: "validation", choice.test: "test"}
    return {identity: special.get(folds.get(identity), "train") for identity in identities}


def check_disjoint(table: pd.DataFrame) -> None:
    """Raise `StudyError` where an identity of `table` is in more than one split."""
    spread = table.groupby("identity")["split"].nunique()
    if (spread > 1).any():
        raise StudyError(f"The identity {spread.idxmax()} is in more than one split.")


def _spread(
    pairs: pd.DataFrame, shares: Sequence[float], seed: int, groups: Mapping[str, str] | None
) -> dict[str, int]:
    """Return for each identity the place of its share, as `assign_splits` says."""
    members = {
        cell: sorted(rows["identity"], key=lambda identity: _draw(seed, identity))
        for cell, rows in pairs.groupby(list(CELL))
    }
    cells = sorted(members, key=lambda cell: _draw(seed, *cell))
    ideal = np.outer([len(members[cell]) for cell in cells], shares)
    totals = _totals(len(pairs), shares)
    places = _place_groups(cells, members, ideal, totals, groups or {}, seed)
    if places:
        singles = {cell: [i for i in members[cell] if i not in places] for cell in cells}
        ideal, totals = _room_left(cells, members, ideal, totals, places)
        members = singles
    counts = _balance(_repair(ideal, totals), ideal, _strata(cells))
    for cell, row in zip(cells, counts, strict=True):
        drawn = np.repeat(np.arange(len(shares)), row)
        places |= dict(zip(members[cell], map(int, drawn), strict=True))
    return places


def _members(groups: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of more than one identity, sorted."""
    of: dict[str, list[str]] = {}
    for identity, group in sorted(groups.items()):
        of.setdefault(group, []).append(identity)
    return [members for members in of.values() if len(members) > 1]


def _place_groups(
    cells: list[tuple],
    members: dict[tuple, list[str]],
    ideal: np.ndarray,
    totals: np.ndarray,
    groups: Mapping[str, str],
    seed: int,
) -> dict[str, int]:
    """Return the places of the groups' identities: the largest first, each where most room is."""
    cell_of = {identity: n for n, cell in enumerate(cells) for identity in members[cell]}
    places: dict[str, int] = {}
    taken = np.zeros_like(ideal)
    known = {identity: group for identity, group in groups.items() if identity in cell_of}
    for group in sorted(_members(known), key=lambda ids: (-len(ids), _draw(seed, *ids))):
        new = np.bincount([cell_of[identity] for identity in group], minlength=len(cells))
        filled = taken + new[:, None]
        too_many = np.maximum(filled.sum(axis=0) - totals, 0)
        beyond = np.maximum(filled - ideal, 0).sum(axis=0)
        room = (totals - taken.sum(axis=0)).astype(float)
        place = int(np.lexsort((-room, np.round(beyond, 9), too_many))[0])
        taken[:, place] += new
        places |= dict.fromkeys(group, place)
    return places


def _room_left(
    cells: list[tuple],
    members: dict[tuple, list[str]],
    ideal: np.ndarray,
    totals: np.ndarray,
    places: dict[str, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return shares and totals of those who are left when the groups have their places."""
    taken = np.zeros_like(ideal)
    for row, cell in enumerate(cells):
        for identity in members[cell]:
            if identity in places:
                taken[row, places[identity]] += 1
    left = ideal.sum(axis=1) - taken.sum(axis=1)
    room = np.maximum(ideal - taken, 0)
    sums = room.sum(axis=1)
    room *= np.divide(left, sums, out=np.zeros_like(left), where=sums > 0)[:, None]
    totals = np.maximum(totals - taken.sum(axis=0).astype(int), 0)
    while totals.sum() > round(left.sum()):
        totals[totals.argmax()] -= 1
    return room, totals


def _draw(seed: int, *words: str) -> str:
    """Return a text that sorts like a random number, the same on every machine."""
    return hashlib.sha256("/".join([str(seed), *words]).encode()).hexdigest()


def _totals(n: int, ratios: Sequence[float]) -> np.ndarray:
    """Return how many of `n` pairs each split gets: largest remainders, none empty if it can be."""
    shares = np.round(np.multiply(n, ratios), 9)
    counts = np.floor(shares).astype(int)
    order = np.argsort(counts - shares, kind="stable")
    counts[order[: n - counts.sum()]] += 1
    for split in np.flatnonzero((counts == 0) & (shares > 0)):
        if counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[split] = 1
    return counts


def _repair(ideal: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Round `ideal` (cells × splits), keeping each cell's sum, until the columns sum to `totals`.

    Each cell is rounded by largest remainders; then single pairs move from the split that has most
    too many to the one that has most too few, at the cell that this takes least far from its share.
    """
    counts = np.array([_round_row(row) for row in ideal])
    while (excess := counts.sum(axis=0) - totals).any():
        old, new = int(excess.argmax()), int(excess.argmin())
        gap = np.abs(counts[:, old] - 1 - ideal[:, old])
        gap = np.maximum(gap, np.abs(counts[:, new] + 1 - ideal[:, new]))
        cell = np.where(counts[:, old] > 0, np.round(gap, 9), np.inf).argmin()
        counts[cell, [old, new]] += [-1, 1]
    return counts


def _round_row(row: np.ndarray) -> np.ndarray:
    counts = np.floor(np.round(row, 9)).astype(int)
    order = np.argsort(counts - row, kind="stable")
    counts[order[: round(row.sum()) - counts.sum()]] += 1
    return counts


def _strata(cells: list[tuple]) -> np.ndarray:
    """Return which cells (columns) belong to which value of which attribute (rows), as 0 and 1.

    An attribute's values, and those of expression beside each other attribute, because the labels
    depend on expression.
    """
    keys = [
        {(i, cell[i]) for i in range(len(CELL))}
        | {("both", i, cell[0], cell[i]) for i in range(1, len(CELL))}
        for cell in cells
    ]
    names = sorted(set().union(*keys), key=str)
    return np.array([[float(name in key) for key in keys] for name in names])


def _balance(counts: np.ndarray, ideal: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Swap pairs between cells while that brings the strata's counts nearer to their shares.

    A swap moves one pair from split a to b in one cell and one from b to a in another: sums of
    cells and splits stay. No cell goes further than one pair from its share.
    """
    counts = counts.copy()
    allowed = np.maximum(1, np.abs(counts - ideal).max(axis=1, keepdims=True))
    overlap = strata.T @ strata
    size = np.diag(overlap)
    cost = size[:, None] + size[None, :] - 2 * overlap
    improved = True
    while improved:
        improved = False
        for a, b in permutations(range(counts.shape[1]), 2):
            gap = strata.T @ (strata @ (counts - ideal))
            slope = gap[:, b] - gap[:, a]
            can = _may_move(counts, ideal, allowed, a, b)[:, None]
            can = can & _may_move(counts, ideal, allowed, b, a)[None, :]
            # Half the change of the sum of squares over the strata of both splits.
            change = np.where(can, slope[:, None] - slope[None, :] + cost, np.inf)
            c, d = np.unravel_index(change.argmin(), change.shape)
            if change[c, d] < -1e-9:
                counts[c, [a, b]] += [-1, 1]
                counts[d, [a, b]] += [1, -1]
                improved = True
    return counts


def _may_move(
    counts: np.ndarray, ideal: np.ndarray, allowed: np.ndarray, old: int, new: int
) -> np.ndarray:
    """Return the cells (as booleans) in which a pair may go from split `old` to split `new`."""
    less = np.abs(counts[:, old] - 1 - ideal[:, old]) <= allowed[:, 0] + 1e-9
    more = np.abs(counts[:, new] + 1 - ideal[:, new]) <= allowed[:, 0] + 1e-9
    return (counts[:, old] > 0) & less & more
