"""Which split each person comes into: by our own draw, by our own folds or by those of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.dataset.folds import Folds, describe, read_folds
from helpers.dataset.splits import KFold, assign_folds, assign_splits, keep_together, splits_by_fold
from helpers.dataset.tree import Tree
from helpers.errors import StudyError
from helpers.prose import listing, plural

FOLD_COLUMNS = ["identity", "fold", "split", "status"]
AUTO = "auto"


@dataclass(frozen=True)
class Splitting:
    """How people were split.

    `splits` by identity; `note`, sentences on how they came about; `folds`, where they came from
    folds, one row an identity (`FOLD_COLUMNS`; `status`: `used`, `without_fold` for a pair that
    the folds file does not name, `without_pair` for an ID of the file without a usable pair).
    """

    splits: dict[str, str]
    note: str
    folds: pd.DataFrame | None = None


@dataclass(frozen=True)
class ChosenFolds:
    """The folds of a file, or None for a split of our own, and a sentence on why that."""

    folds: Folds | None
    note: str = ""


def choose_folds(
    folds_file: str | Path | None, raw: Path, tree: Tree, ratios: Sequence[float] | KFold
) -> ChosenFolds:
    """Read the folds that the parameter `folds_file` asks for; `tree` is that of `raw`.

    A file that was named must be understood, hold at least half of the people who are there by
    the files' names, and have as many folds as were asked for, else `StudyError` is raised. With
    "auto", a file that is not understood is passed over, and the note says so.
    """
    if folds_file is None:
        return ChosenFolds(None)
    identities = [pair.identity for pair, _ in tree.candidates]
    if folds_file != AUTO:
        return ChosenFolds(_fitting(read_folds(folds_file), identities, ratios))
    if not tree.folds_files:
        return ChosenFolds(None, "No folds file lies beside the pairs.")
    more = ""
    if len(tree.folds_files) > 1:
        more = f"Of {len(tree.folds_files)} folds files the first was taken."
    try:
        folds = _known(read_folds(raw / tree.folds_files[0]), identities)
    except StudyError as error:
        return ChosenFolds(None, f"{more} {error} It was not used.".strip())
    return ChosenFolds(_fitting(folds, identities, ratios), more)


def split_people(
    people: pd.DataFrame,
    ratios: Sequence[float] | KFold,
    seed: int,
    groups: Mapping[str, str],
    chosen: ChosenFolds,
) -> Splitting:
    """Return the split of each person; `people` as `assign_splits` takes them.

    Identities of one group (see `find_near_duplicates`) come into one split.
    """
    identities = list(people["identity"])
    tied = plural(len(identities) - len(set(groups.values())), "person")
    together = ""
    if len(set(groups.values())) < len(identities):
        together = f"Pictures that are nearly the same bind {tied} to another one's split."
    if chosen.folds is None and not isinstance(ratios, KFold):
        splits = assign_splits(people, ratios, seed, groups)
        note = f"The splits were drawn by identity within the cells, with seed {seed}."
        return Splitting(splits, _sentences(chosen.note, note, together))
    if chosen.folds is None:
        folds = assign_folds(people, ratios.n_folds, seed, groups)
        n = f"{ratios.n_folds} folds"
        note = f"People were drawn into {n} by identity within the cells, with seed {seed}."
        of_file, choice = folds, ratios
    else:
        of_file = chosen.folds.of
        folds = keep_together(
            {i: of_file[i] for i in identities if i in of_file},
            {i: group for i, group in groups.items() if i in set(identities)},
        )
        numbers = chosen.folds.numbers
        choice = ratios if isinstance(ratios, KFold) else KFold(len(numbers), len(numbers) - 1)
        note = _sentences(describe(chosen.folds), _coverage(identities, chosen.folds))
        moved = sum(folds[i] != of_file[i] for i in folds if i in of_file)
        if moved:
            together += f" For that, {plural(moved, 'person')} left the fold of the file."
    # An empty fold keeps its place, so that the test fold is the one that was asked for.
    numbers = sorted(set(of_file.values()))
    by_number = {number: place for place, number in enumerate(numbers)}
    splits = splits_by_fold(identities, {i: by_number[f] for i, f in folds.items()}, choice)
    used = (
        f"Fold {numbers[choice.test]} is test, fold {numbers[choice.validation]} is validation, "
        "the others are train."
    )
    table = _table(identities, folds, of_file, splits)
    return Splitting(splits, _sentences(chosen.note, note, used, together), table)


def _known(folds: Folds, identities: list[str]) -> Folds:
    """Return the folds, or raise `StudyError` where they are those of other people."""
    missing = [identity for identity in identities if identity not in folds.of]
    if 2 * len(missing) > len(identities):
        raise StudyError(
            f"The folds file {folds.name} has no fold for {len(missing)} of the {len(identities)} "
            f"pairs, {min(missing)} among them."
        )
    return folds


def _fitting(folds: Folds, identities: list[str], ratios: Sequence[float] | KFold) -> Folds:
    n_folds = len(folds.numbers)
    if isinstance(ratios, KFold) and ratios.n_folds != n_folds:
        raise StudyError(
            f"The parameter split_ratios asks for {ratios.n_folds} folds, and the folds file "
            f"{folds.name} has {n_folds}."
        )
    return _known(folds, identities)


def _coverage(identities: list[str], folds: Folds) -> str:
    """Return which pairs have no fold in the file, and which of its IDs no usable pair."""
    missing = sorted(set(identities) - set(folds.of))
    unknown = sorted(set(folds.of) - set(identities))
    if not missing and not unknown:
        return "Every pair has a fold, and every ID of the file a pair."
    parts = []
    if missing:
        parts.append(
            f"It has no fold for {len(missing):,} of the pairs ({_first(missing)}): they went to "
            "train."
        )
    if unknown:
        parts.append(f"{len(unknown):,} of its IDs have no usable pair ({_first(unknown)}).")
    return " ".join(parts)


def _first(identities: list[str], shown: int = 3) -> str:
    more = ["…"] if len(identities) > shown else []
    return ", ".join([*identities[:shown], *more]) if more else listing(identities)


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _table(
    identities: list[str],
    folds: Mapping[str, int],
    of_file: Mapping[str, int],
    splits: Mapping[str, str],
) -> pd.DataFrame:
    rows = [
        [i, folds.get(i), splits[i], "used" if i in of_file else "without_fold"]
        for i in sorted(identities)
    ]
    rows += [[i, of_file[i], None, "without_pair"] for i in sorted(set(of_file) - set(identities))]
    return pd.DataFrame(rows, columns=FOLD_COLUMNS).astype({"fold": "Int64"})
