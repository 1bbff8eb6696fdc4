"""Splits by identity: no person is in two of train, validation and test.

The draw is our own: scikit-learn's stratified splitters refuse a cell of one person, and balance
cells alone, not each attribute where cells are too small to be balanced. It rests on hashes of seed
and identity, so a split is the same on every machine and with every version.
"""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.files import StudyError, project_path, short_path
from helpers.naming import CELL

SPLITS, SITES = ("train", "validation", "test"), ("A", "B")
LEAST_FOLDS, MOST_FOLDS = 3, 20

# A fold may be named in words: their order makes the last one the test set, as with numbers.
_WORDS = {"train": "0", "val": "1", "validation": "1", "test": "2"}
_HEADING = re.compile(r"[a-z_]+[\s,;:]+(?:fold|split)(?:,split)?(?:,site)?", re.IGNORECASE)
_LINE = re.compile(
    r"^[^\s,;]*?(?<![0-9])([0-9]{10})(?![0-9])[^\s,;:]*[\s,;:]+"  # an ID, or a name that holds it
    r"(?:fold[ _]*)?([0-9]{1,3}|train|val|validation|test)(?:,[a-z]*){0,2}$",
    re.IGNORECASE,
)


class KFold(NamedTuple):
    """A split by folds: how many there are, and the place of the test fold, counted from 0.

    The fold before it (before the first, the last) is for validation, the others for training.
    """

    n_folds: int
    test: int


Asked = tuple[float, ...] | KFold  # shares of train, validation and test, or folds


def check_split(ratios: Sequence) -> Asked:
    """Return what the parameter `split_ratios` asks for: three shares, or folds.

    Shares of train, validation and test: from 0 to 1, their sum 1, train above 0. Folds: `[k, i]`,
    k from 3 to 20 folds of which the i-th, counted from 0, is the test set; `[k]` takes the last.
    Raises `StudyError` for anything else.
    """
    kinds = {type(ratio) for ratio in ratios}
    if len(ratios) == len(SPLITS) and kinds <= {int, float}:
        if min(ratios) >= 0 < ratios[0] and math.isclose(sum(ratios), 1, abs_tol=1e-6):
            return tuple(float(ratio) for ratio in ratios)
    elif len(ratios) in (1, 2) and kinds == {int}:
        folds = KFold(*(*ratios, ratios[0] - 1)[:2])
        if LEAST_FOLDS <= folds.n_folds <= MOST_FOLDS and 0 <= folds.test < folds.n_folds:
            return folds
    shares = "three shares (train above 0, validation, test; sum 1)"
    folds = f"[k, i] ({LEAST_FOLDS} to {MOST_FOLDS} folds; test fold 0 to k - 1)"
    raise StudyError(f"The parameter split_ratios must be {shares}, or {folds}, not {ratios}.")


def read_folds(path: str | Path, identities: Collection[str], asked: Asked) -> pd.Series:
    """Read a folds file: the fold of each identity, a whole number, by ten-digit ID.

    Two layouts are understood. Lines of an ID and its fold, parted by a comma, a semicolon, a
    colon or blanks: SynPAIN's own file is known by its size alone, about 14 bytes a pair, as in
    `1000020580,0` with its line break. And a table (.csv) of these two columns, the second headed
    `fold` or `split`, like the study's own `folds.csv`. A file name that holds the ID stands for
    it; a fold is a number, or train, validation (val) and test. Blank lines and those that start
    with # are passed over. Raises
    `StudyError` where the file is missing, a line cannot be understood, an ID has two folds, the
    folds are fewer than three, more than twenty or not as many as were `asked` for, or more than
    half of `identities` have none.
    """
    path = project_path(path)
    if not path.is_file():
        raise StudyError(f"The folds file {short_path(path)} does not exist.")
    text = path.read_text(encoding="utf-8-sig", errors="replace").replace('"', "")
    lines = pd.Series(text.splitlines(), dtype=str).str.strip()
    lines = lines[(lines != "") & ~lines.str.startswith("#") & ~lines.str.fullmatch(_HEADING)]
    table = lines.str.extract(_LINE).set_axis(["identity", "fold"], axis=1)
    bad = lines[table["identity"].isna()]
    table["fold"] = table["fold"].str.lower().replace(_WORDS).astype("Int64")
    folds = table.dropna().drop_duplicates().set_index("identity")["fold"]
    twice = folds.index[folds.index.duplicated()]
    n_folds, missing = folds.nunique(), sorted(set(identities) - set(folds.index))
    if len(bad):
        problem = f"'{bad.iloc[0][:60]}' is not an ID and its fold"
    elif len(twice):
        problem = f"{twice[0]} has two different folds"
    elif not LEAST_FOLDS <= n_folds <= MOST_FOLDS:
        problem = f"it holds {n_folds} different folds, not {LEAST_FOLDS} to {MOST_FOLDS}"
    elif isinstance(asked, KFold) and asked.n_folds != n_folds:
        problem = f"it has {n_folds} folds, and split_ratios asks for {asked.n_folds}"
    elif 2 * len(missing) > len(identities):
        problem = f"it has no fold for {len(missing)} of {len(identities)} people ({missing[0]})"
    else:
        return folds
    raise StudyError(f"The folds file {short_path(path)} cannot be used: {problem}.")


def split_people(
    people: pd.DataFrame, asked: Asked, seed: int, groups: Mapping, folds: pd.Series | None = None
) -> pd.DataFrame:
    """Return fold, split and site of each identity: `identity, fold, split, site`, by identity.

    `people` has one row a pair with the columns of `draw`. Identities of one group (`groups`, by
    identity) come into one split: that of the one who gives the group its name, so only this one is
    drawn, or looked up. Without `folds` (see `read_folds`) the draw is our own; three shares are
    three folds of unequal size. The fold that was asked for is the test set (with shares the last
    one), the one before it the validation set; who has no fold is for training.

    Training people come from two sites, A and B: the first half of the training folds is A, the
    second B, and whom that leaves over (one fold of an odd number, people without one) is dealt to
    both, stratified. Others have none. The table can be read as a folds file again.
    Raises `StudyError` where more folds than people are asked for.
    """
    named = people[people["identity"] == people["identity"].map(groups)]
    if folds is None:
        k = asked.n_folds if isinstance(asked, KFold) else 1
        if len(named) < k:
            raise StudyError(f"split_ratios asks for {k} folds of only {len(named)} people.")
        shares = [1 / k] * k if isinstance(asked, KFold) else asked
        folds, numbers = pd.Series(draw(named, shares, seed)), range(len(shares))
    else:
        numbers = sorted(folds.unique())  # a fold that is empty here keeps its place
    test = asked.test if isinstance(asked, KFold) else len(numbers) - 1
    table = people[["identity"]].sort_values("identity", ignore_index=True)
    table["fold"] = table["identity"].map(groups).map(folds).astype("Int64")
    special = {numbers[test - 1]: "validation", numbers[test]: "test"}
    table["split"] = table["fold"].map(special).fillna("train")
    training = [number for number in numbers if number not in special]
    half = len(training) // 2
    sites = dict.fromkeys(training[:half], 0) | dict.fromkeys(training[len(training) - half :], 1)
    site = table.set_index("identity").loc[named["identity"]].query("split == 'train'")["fold"]
    site = site.map(sites)
    left_over = named[named["identity"].isin(site.index[site.isna()])]
    site = site.to_dict() | (draw(left_over, (0.5, 0.5), seed) if len(left_over) else {})
    places = table["identity"].map(groups).map(site)
    table["site"] = places.map(dict(enumerate(SITES)))
    return table


def draw(people: pd.DataFrame, shares: Sequence[float], seed: int) -> dict[str, int]:
    """Return for each identity the place of its share, stratified over the 40 cells.

    `people` has one row a pair with the columns identity, expression, gender, age, ethnicity. The
    totals are the shares to rounding, and no place with a share is empty from three pairs on.
    Within each cell a count is within one pair of its share (except where a handful of pairs would
    leave a place empty), and so, as nearly as can be, are the counts of each expression, gender,
    age and ethnicity. The result depends on identities and seed, not on the order of rows.
    """
    members = {
        cell: sorted(rows["identity"], key=lambda identity: _random(seed, identity))
        for cell, rows in people.groupby(list(CELL))
    }
    cells = sorted(members, key=lambda cell: _random(seed, *cell))
    ideal = np.outer([len(members[cell]) for cell in cells], shares)
    counts = _round_cells(ideal, _totals(len(people), shares))
    counts = _balance(counts, ideal, _strata(cells))
    places: dict[str, int] = {}
    for cell, row in zip(cells, counts, strict=True):
        in_order = np.repeat(np.arange(len(shares)), row).tolist()
        places |= dict(zip(members[cell], in_order, strict=True))
    return places


def _random(seed: int, *words: str) -> str:
    """Return a text that sorts like a random number, the same on every machine."""
    return hashlib.sha256("/".join([str(seed), *words]).encode()).hexdigest()


def _totals(n: int, shares: Sequence[float]) -> np.ndarray:
    """Return how many of `n` pairs each place gets, none empty if it can be."""
    ideal = np.round(np.multiply(n, shares), 9)
    counts = _largest_remainders(ideal, n)
    for place in np.flatnonzero((counts == 0) & (ideal > 0)):
        if counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[place] = 1
    return counts


def _largest_remainders(row: np.ndarray, total: int) -> np.ndarray:
    counts = np.floor(np.round(row, 9)).astype(int)
    order = np.argsort(counts - row, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def _round_cells(ideal: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Round `ideal` (cells × places), keeping each cell's sum, until the columns sum to `totals`.

    Each cell is rounded by largest remainders; then single pairs move from the place that has most
    too many to the one that has most too few, at the cell that this takes least far from its share.
    """
    counts = np.array([_largest_remainders(row, round(row.sum())) for row in ideal])
    while (excess := counts.sum(axis=0) - totals).any():
        old, new = int(excess.argmax()), int(excess.argmin())
        gap = np.abs(counts[:, old] - 1 - ideal[:, old])
        gap = np.maximum(gap, np.abs(counts[:, new] + 1 - ideal[:, new]))
        cell = np.where(counts[:, old] > 0, np.round(gap, 9), np.inf).argmin()
        counts[cell, [old, new]] += [-1, 1]
    return counts


def _strata(cells: list[tuple]) -> np.ndarray:
    """Return which cells (columns) belong to which value of which attribute (rows), as 0 and 1.

    An attribute's values, and those of expression beside each other attribute, because the labels
    depend on expression.
    """
    table = pd.DataFrame(cells, columns=CELL)
    both = {f"both {key}": table["expression"] + table[key] for key in CELL[1:]}
    return pd.get_dummies(pd.DataFrame(both).join(table), dtype=float).to_numpy().T.copy()


def _balance(counts: np.ndarray, ideal: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Swap pairs between cells while that brings the strata's counts nearer to their shares.

    A swap moves one pair from place a to b in one cell and one from b to a in another: sums of
    cells and places stay. No cell goes further than one pair from its share.
    """
    counts = counts.copy()
    allowed = np.maximum(1, np.abs(counts - ideal).max(axis=1, keepdims=True)) + 1e-9
    overlap = strata.T @ strata
    size = np.diag(overlap)
    cost = size[:, None] + size[None, :] - 2 * overlap
    improved = True
    while improved:
        improved = False
        for a, b in permutations(range(counts.shape[1]), 2):
            loses = (counts > 0) & (np.abs(counts - 1 - ideal) <= allowed)
            gains = np.abs(counts + 1 - ideal) <= allowed
            can = (loses[:, a] & gains[:, b])[:, None] & (loses[:, b] & gains[:, a])[None, :]
            gap = strata.T @ (strata @ (counts - ideal))
            slope = gap[:, b] - gap[:, a]
            # Half the change of the sum of squares over the strata of both places; rounded, so that
            # equal ones are equal on every machine.
            change = np.where(can, np.round(slope[:, None] - slope[None, :] + cost, 9), np.inf)
            c, d = np.unravel_index(change.argmin(), change.shape)
            if change[c, d] < -1e-9:
                counts[c, [a, b]] += [-1, 1]
                counts[d, [a, b]] += [1, -1]
                improved = True
    return counts
