"""Splits by identity: no person is in two of train, validation and test."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import StudyError
from helpers.files import project_path, short_path
from helpers.naming import CELL

SPLITS = ("train", "validation", "test")
_MOST_FOLDS = 20
_SEPARATOR = r"[\s,;]+"
_FOLD_LINES = (
    re.compile(rf"(?P<id>1[0-9]{{9}})(?![0-9])[^\s,;]*{_SEPARATOR}(?P<fold>[0-9]{{1,3}})"),
    re.compile(rf"(?P<fold>[0-9]{{1,3}}){_SEPARATOR}(?P<id>1[0-9]{{9}})(?![0-9])[^\s,;]*"),
)


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
            f"to 1, with train above 0, not {list(ratios)}."
        )
    return tuple(float(r) for r in ratios)


def assign_splits(pairs: pd.DataFrame, ratios: Sequence[float], seed: int) -> dict[str, str]:
    """Return the split of each identity, stratified over expression × gender × age × ethnicity.

    `pairs` has one row a pair with the columns identity, expression, gender, age, ethnicity. The
    totals are the ratios to rounding, and no split with a share is empty from three pairs on.
    Within each of the 40 cells a split's count is within one pair of its share (except where a
    handful of pairs would leave a split empty), and so, as nearly as can be, are the counts of
    each expression, gender, age and ethnicity. The result depends on the identities and the seed
    alone, not on the order of rows. Raises `StudyError` for ratios that are none.
    """
    ratios = check_ratios(ratios)
    members = {
        cell: sorted(rows["identity"], key=lambda identity: _draw(seed, identity))
        for cell, rows in pairs.groupby(list(CELL))
    }
    cells = sorted(members, key=lambda cell: _draw(seed, *cell))
    ideal = np.outer([len(members[cell]) for cell in cells], ratios)
    counts = _balance(_repair(ideal, _totals(len(pairs), ratios)), ideal, _strata(cells))
    splits = {}
    for cell, row in zip(cells, counts, strict=True):
        for identity, split in zip(members[cell], np.repeat(SPLITS, row), strict=True):
            splits[identity] = str(split)
    return splits


def check_disjoint(table: pd.DataFrame) -> None:
    """Raise `StudyError` where an identity of `table` is in more than one split."""
    spread = table.groupby("identity")["split"].nunique()
    if (spread > 1).any():
        raise StudyError(f"The identity {spread.idxmax()} is in more than one split.")


def read_folds(path: str | Path) -> dict[str, int]:
    """Read a folds file: on each line an ID (or a file name that starts with it) and its fold.

    They may be parted by commas, semicolons, spaces or tabs and stand in either order; blank
    lines, lines that start with # and a heading are passed over. Raises `StudyError` where the
    file is missing, a line cannot be understood, an ID has two folds, or the folds are fewer than
    three or more than twenty.
    """
    path = project_path(path)
    name = f"The folds file {short_path(path)}"
    if not path.is_file():
        raise StudyError(f"{name} does not exist.")
    folds: dict[str, int] = {}
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    text = [(n, line.strip()) for n, line in enumerate(lines, 1)]
    text = [(n, line) for n, line in text if line and not line.startswith("#")]
    for place, (number, line) in enumerate(text):
        match = next((m for rule in _FOLD_LINES if (m := rule.fullmatch(line))), None)
        if match is None:
            if place == 0 and not re.search("[0-9]{10}", line):
                continue
            raise StudyError(f"{name}, line {number}: '{line[:60]}' is not an ID and its fold.")
        fold = int(match["fold"])
        if folds.setdefault(match["id"], fold) != fold:
            raise StudyError(f"{name}, line {number}: {match['id']} has two different folds.")
    if not len(SPLITS) <= len(set(folds.values())) <= _MOST_FOLDS:
        raise StudyError(
            f"{name} holds {len(set(folds.values()))} different folds; 3 to {_MOST_FOLDS} are "
            "needed."
        )
    return folds


def splits_from_folds(
    identities: Sequence[str], folds: Mapping[str, int]
) -> tuple[dict[str, str], str]:
    """Return the split of each identity by its fold, and a sentence that says how.

    The highest fold becomes test, the next validation, the others train. An identity without a
    fold goes to train. Raises `StudyError` where more than half have none: the wrong file.
    """
    numbers = sorted(set(folds.values()))
    by_fold = {fold: "train" for fold in numbers}
    by_fold[numbers[-2]], by_fold[numbers[-1]] = "validation", "test"
    missing = [identity for identity in identities if identity not in folds]
    if 2 * len(missing) > len(identities):
        raise StudyError(
            f"The folds file has no fold for {len(missing)} of the {len(identities)} pairs, "
            f"{min(missing)} among them."
        )
    note = (
        f"The folds file was read as {len(folds)} IDs in {len(numbers)} folds "
        f"({', '.join(map(str, numbers))}): fold {numbers[-1]} is test, fold {numbers[-2]} is "
        "validation, the others are train."
    )
    if missing:
        note += f" It has no fold for {len(missing)} of the pairs; they went to train."
    splits = {i: by_fold[folds[i]] if i in folds else "train" for i in identities}
    return splits, note


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
        for a, b in permutations(range(len(SPLITS)), 2):
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
