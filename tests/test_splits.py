from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import StudyError
from helpers.naming import AGES, CELL, ETHNICITIES, EXPRESSIONS, GENDERS
from helpers.splits import (
    SPLITS,
    assign_splits,
    check_disjoint,
    check_ratios,
    read_folds,
    splits_from_folds,
)

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


IDS = [f"10000000{n:02}" for n in range(10)]


@pytest.mark.parametrize(
    "form",
    [
        "{id} {fold}\n",
        "{id},{fold}\r\n",
        "{id}\t{fold}\n\n",
        "  {id} ;  {fold}  \n",
        "{fold}, {id}\n",
        "{id}_NoPain_man_Young.jpg {fold}\n",
    ],
)
@pytest.mark.parametrize("head", ["", "\ufeff", "ID fold\n", "# folds of SynPAIN\n"])
def test_folds_are_read_in_any_layout(tmp_path, form, head):
    path = tmp_path / "folds.txt"
    lines = (form.format(id=identity, fold=n % 5) for n, identity in enumerate(IDS))
    path.write_bytes((head + "".join(lines)).encode())
    assert read_folds(path) == {identity: n % 5 for n, identity in enumerate(IDS)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "0 different folds"),
        ("1000000000 1\n1000000001 2\n", "2 different folds"),
        ("\n".join(f"10000000{n:02} {n}" for n in range(30)), "30 different folds"),
        ("1000000000 1\nhello\n", "line 2: 'hello'"),
        ("1000000000 1\n1000000001 2 3\n", "line 2"),
        ("1000000000 one\n", "line 1"),
        ("1000000000 1\n1000000000 2\n", "line 2: 1000000000 has two different folds"),
        ("\x00\x01\x02", "0 different folds"),
    ],
)
def test_folds_that_cannot_be_understood(tmp_path, text, complaint):
    path = tmp_path / "folds.txt"
    path.write_text(text)
    with pytest.raises(StudyError, match=complaint):
        read_folds(path)


def test_a_missing_folds_file_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.txt does not exist"):
        read_folds(tmp_path / "nowhere.txt")


def test_highest_fold_is_test_and_the_next_validation():
    folds = {identity: n % 5 + 1 for n, identity in enumerate(IDS)}
    splits, note = splits_from_folds([*IDS[:5], "1000000099"], folds)
    assert list(splits.values()) == ["train", "train", "train", "validation", "test", "train"]
    assert "fold 5 is test, fold 4 is validation" in note
    assert "no fold for 1 of the pairs" in note


def test_folds_of_other_people_are_refused():
    folds = {identity: n % 3 for n, identity in enumerate(IDS)}
    with pytest.raises(StudyError, match="no fold for 2 of the 3 pairs, 1000000098"):
        splits_from_folds(["1000000099", "1000000098", IDS[0]], folds)
