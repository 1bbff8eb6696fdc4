from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.dataset.naming import AGES, CELL, ETHNICITIES, EXPRESSIONS, GENDERS
from helpers.dataset.splits import (
    SPLITS,
    KFold,
    assign_folds,
    assign_splits,
    check_disjoint,
    check_ratios,
    check_split,
    keep_together,
    splits_by_fold,
)
from helpers.errors import StudyError

CELLS = list(product(EXPRESSIONS, GENDERS, AGES, ETHNICITIES))
RATIOS = [(0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.9, 0, 0.1)]


def people(counts):
    """A table of pairs with `counts[i]` of them in the i-th of the 40 cells."""
    rows = [cell for cell, count in zip(CELLS, counts, strict=False) for _ in range(count)]
    table = pd.DataFrame(rows, columns=CELL)
    return table.assign(identity=[f"1{number:09}" for number in range(len(rows))])


def tally(table, splits, key):
    split = table["identity"].map(splits)
    counts = (
        pd.crosstab([table[k] for k in key], split) if key else split.value_counts().to_frame().T
    )
    return counts.reindex(columns=SPLITS, fill_value=0).to_numpy()


@given(
    counts=st.lists(st.integers(0, 10), min_size=1, max_size=40).filter(any),
    ratios=st.sampled_from(RATIOS),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_shares_hold_overall_and_in_every_cell(counts, ratios, seed):
    table = people(counts)
    splits = assign_splits(table, ratios, seed)
    assert set(splits) == set(table["identity"])
    total = tally(table, splits, [])[0]
    gap = np.abs(total - len(table) * np.array(ratios))
    forced = (
        len(table) * min(r for r in ratios if r) <= 0.5
    )  # a split that rounding would leave empty
    assert gap.max() < (2 if forced else 1)
    if len(table) >= 3:
        assert all(total[i] > 0 for i in range(3) if ratios[i])
    cells = tally(table, splits, list(CELL))
    gap = np.abs(cells - cells.sum(axis=1, keepdims=True) * np.array(ratios))
    assert gap.max() <= (2 if forced else 1 + 1e-9)


@given(st.integers(1, 400), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_one_cell_is_split_to_rounding(n, seed):
    table = people([n])
    total = tally(table, assign_splits(table, RATIOS[0], seed), [])[0]
    assert total.sum() == n
    if n >= 7:
        assert np.abs(total - n * np.array(RATIOS[0])).max() < 1


def test_attributes_stay_balanced_when_cells_are_too_small_to_be():
    table = people([2] * 40)
    for seed in range(5):
        splits = assign_splits(table, RATIOS[0], seed)
        for key in CELL:
            counts = tally(table, splits, [key])
            ideal = counts.sum(axis=1, keepdims=True) * np.array(RATIOS[0])
            assert np.abs(counts - ideal).max() <= 1


def test_known_counts():
    table = people([20] * 40)
    counts = tally(table, assign_splits(table, RATIOS[0], 0), list(CELL))
    assert (counts == [14, 3, 3]).all()


def test_order_of_rows_is_no_matter_but_the_seed_is():
    table = people([5] * 40)
    splits = assign_splits(table, RATIOS[0], 1)
    assert splits == assign_splits(table.sample(frac=1, random_state=3), RATIOS[0], 1)
    other = assign_splits(table, RATIOS[0], 2)
    assert sum(splits[i] != other[i] for i in splits) > 20


def test_the_seed_draws_people_within_a_cell():
    table = people([40])
    first, second = (assign_splits(table, RATIOS[0], seed) for seed in (1, 2))
    assert sum(first[i] != second[i] for i in first) > 5


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_pairs_split(n):
    assert sorted(assign_splits(people([n]), RATIOS[0], 0).values()) == ["train", "validation"][:n]


@pytest.mark.parametrize(
    "ratios",
    [
        [0.7, 0.3],
        [0.7, 0.2, 0.2],
        [1.2, -0.1, -0.1],
        [0, 0.5, 0.5],
        ["0.7", 0.1, 0.2],
        [True, 0, 0],
    ],
)
def test_ratios_that_are_none(ratios):
    with pytest.raises(StudyError, match="split_ratios"):
        check_ratios(ratios)


def test_a_person_in_two_splits_is_named():
    table = pd.DataFrame({"identity": ["a", "a", "b"], "split": ["train", "train", "test"]})
    check_disjoint(table)
    table.loc[1, "split"] = "test"
    with pytest.raises(StudyError, match="identity a is in more than one split"):
        check_disjoint(table)


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(lambda c: sum(c) >= 10),
    n_folds=st.sampled_from([3, 5, 10]),
    seed=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_folds_share_every_cell_alike(counts, n_folds, seed):
    table = people(counts)
    folds = assign_folds(table, n_folds, seed)
    fold = table["identity"].map(folds)
    sizes = fold.value_counts()
    assert set(folds.values()) == set(range(n_folds))
    assert sizes.max() - sizes.min() <= 1
    cells = pd.crosstab([table[key] for key in CELL], fold)
    shares = cells.sum(axis=1).to_numpy()[:, None] / n_folds
    assert np.abs(cells.to_numpy() - shares).max() <= 1 + 1e-9


def test_over_all_k_runs_everybody_is_tested_once_and_validates_once():
    table = people([4] * 40)
    folds = assign_folds(table, 5, 0)
    runs = [splits_by_fold(folds, folds, KFold(5, test)) for test in range(5)]
    for name in ("test", "validation"):
        assert {tuple(run[i] for run in runs).count(name) for i in folds} == {1}
    for key in CELL:
        counts = pd.crosstab(table["identity"].map(folds), table[key])
        assert np.abs(counts.to_numpy() - counts.sum().to_numpy() / 5).max() <= 1


def test_more_folds_than_pairs():
    with pytest.raises(StudyError, match="10 folds, more than the 4 usable pairs"):
        assign_folds(people([4]), 10, 0)


@given(
    counts=st.lists(st.integers(0, 8), min_size=2, max_size=40).filter(lambda c: sum(c) >= 3),
    tied=st.lists(st.lists(st.integers(0, 400), min_size=2, max_size=4), max_size=5),
    seed=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_a_group_comes_into_one_split(counts, tied, seed):
    table = people(counts)
    identities = list(table["identity"])
    groups = {identity: identity for identity in identities}
    for members in tied:
        ids = [identities[m % len(identities)] for m in members]
        for identity in ids:
            groups[identity] = ids[0]
    splits = assign_splits(table, RATIOS[0], seed, groups)
    assert set(splits) == set(identities)
    check_disjoint(pd.DataFrame({"identity": groups, "split": splits}))
    if len(table) >= 100:  # where there is room, groups cost no more than a pair or two
        gap = np.abs(tally(table, splits, [])[0] - len(table) * np.array(RATIOS[0]))
        assert gap.max() <= 2


def test_groups_that_leave_no_room_still_keep_together():
    table = people([6])
    ids = list(table["identity"])
    groups = dict.fromkeys(ids[:5], ids[0]) | {ids[5]: ids[5]}
    splits = assign_splits(table, RATIOS[0], 0, groups)
    assert len({splits[i] for i in ids[:5]}) == 1
    assert splits[ids[5]] != splits[ids[0]]


def test_people_alone_in_their_groups_are_split_as_without_groups():
    table = people([7] * 40)
    alone = {identity: identity for identity in table["identity"]}
    assert assign_splits(table, RATIOS[0], 3, alone) == assign_splits(table, RATIOS[0], 3)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [([5], KFold(5, 4)), ([5, 0], KFold(5, 0)), ([3, 2], KFold(3, 2)), ([0.7, 0.15, 0.15],) * 2],
)
def test_what_split_ratios_can_ask_for(asked, expected):
    assert check_split(asked) == (expected if isinstance(expected, KFold) else tuple(expected))


@pytest.mark.parametrize("asked", [[], [2], [21], [5, 5], [5, -1], [1, 0], [0.5, 0.5], [True]])
def test_what_split_ratios_cannot_ask_for(asked):
    with pytest.raises(StudyError, match="split_ratios"):
        check_split(asked)


def test_a_group_takes_the_fold_of_most_of_it():
    groups = {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d", "f": "d", "g": "g"}
    folds = keep_together({"a": 1, "b": 2, "c": 2, "d": 3, "e": 0, "g": 4}, groups)
    assert folds == {"a": 2, "b": 2, "c": 2, "d": 0, "e": 0, "f": 0, "g": 4}
