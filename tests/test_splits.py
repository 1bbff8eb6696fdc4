import random
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.files import ROOT, StudyError, read_csv
from helpers.naming import AGES, CELL, ETHNICITIES, EXPRESSIONS, GENDERS, parse_id
from helpers.splits import KFold, check_split, draw, read_folds, split_people

CELLS = list(product(EXPRESSIONS, GENDERS, AGES, ETHNICITIES))
SHARES = (0.7, 0.15, 0.15)
IDS = [f"10000000{n:02}" for n in range(10)]
LINES = "".join(f"{identity} {n % 5 + 1}\n" for n, identity in enumerate(IDS))


def people(counts):
    """A table of pairs with `counts[i]` of them in the i-th of the 40 cells."""
    rows = [cell for cell, count in zip(CELLS, counts, strict=False) for _ in range(count)]
    table = pd.DataFrame(rows, columns=CELL)
    return table.assign(identity=[f"1{number:09}" for number in range(len(rows))])


def alone(table):
    return dict(zip(table["identity"], table["identity"], strict=True))


def far(table, places, shares, key):
    """How far the counts by `key` and place lie from their shares."""
    by = [table[k] for k in key] if key else np.zeros(len(table))
    counts = pd.crosstab(by, table["identity"].map(places))
    counts = counts.reindex(columns=range(len(shares)), fill_value=0).to_numpy()
    return np.abs(counts - counts.sum(axis=1, keepdims=True) * np.array(shares)).max()


@given(
    counts=st.lists(st.integers(0, 10), min_size=1, max_size=40).filter(any),
    shares=st.sampled_from([SHARES, (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.9, 0, 0.1), [0.2] * 5]),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_shares_hold_overall_and_in_every_cell(counts, shares, seed):
    table = people(counts)
    places = draw(table, shares, seed)
    forced = len(table) * min(share for share in shares if share) <= 0.5  # else one would be empty
    assert far(table, places, shares, []) < (2 if forced else 1)
    if len(table) >= len(shares):
        assert set(places.values()) == {place for place, share in enumerate(shares) if share}
    assert far(table, places, shares, list(CELL)) <= (2 if forced else 1 + 1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_attributes_stay_balanced_where_a_cell_has_one_person_or_two(count):
    table = people([count] * 40)
    places = draw(table, SHARES, 0)
    assert max(far(table, places, SHARES, [key]) for key in CELL) <= 1
    assert places == draw(table.sample(frac=1, random_state=3), SHARES, 0)
    other = draw(table, SHARES, 1)
    assert sum(other[identity] != place for identity, place in places.items()) > 5


def test_the_split_of_the_committed_study_stays():
    """Golden: the split in results/standin/runs/*/predictions.csv."""
    golden = read_csv(ROOT / "tests/golden/standin_split.csv").set_index("identity")["split"]
    table = pd.DataFrame([parse_id(identity) for identity in golden.index])
    made = split_people(table, check_split(list(SHARES)), 0, alone(table)).set_index("identity")
    assert made["split"].to_dict() == golden.to_dict()


@given(st.lists(st.sets(st.integers(0, 79), min_size=2, max_size=4), max_size=5), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_group_comes_into_one_split(tied, seed):
    table = people([2] * 40)
    groups = alone(table)
    for members in tied:
        ids = {groups[f"1{member:09}"] for member in members}
        groups |= {i: min(ids) for i, group in groups.items() if group in ids}
    made = split_people(table, SHARES, seed, groups)
    assert set(made["identity"]) == set(groups)
    assert (made.groupby(made["identity"].map(groups))["split"].nunique() == 1).all()


def test_over_all_k_runs_everybody_is_tested_once_and_validates_once():
    table = people([4] * 40)
    runs = [split_people(table, KFold(5, test), 0, alone(table)) for test in range(5)]
    for name in ("test", "validation"):
        assert (sum(run["split"] == name for run in runs) == 1).all()
    assert (runs[0]["fold"].value_counts() == 32).all()
    with pytest.raises(StudyError, match="5 folds of only 4 people"):
        split_people(people([4]), KFold(5, 0), 0, alone(people([4])))


@pytest.mark.parametrize(("asked", "count"), [(SHARES, 5), (KFold(5, 4), 5), (KFold(3, 0), 6)])
def test_people_for_training_come_from_two_sites_alike(asked, count):
    table = people([count] * 40)
    made = split_people(table, asked, 0, alone(table)).merge(table)
    assert made.loc[made["split"] != "train", "site"].isna().all()
    sites = made[made["split"] == "train"].groupby("site")
    assert sorted(sites.groups) == ["A", "B"]
    for key in CELL:
        assert np.ptp(sites[key].value_counts().unstack(), axis=0).max() <= 2


def test_the_first_half_of_a_files_training_folds_is_site_a():
    table = people([6] * 40)
    folds = pd.Series({name: n % 6 for n, name in enumerate(table["identity"]) if n % 7})
    made = split_people(table, KFold(6, 2), 0, alone(table), folds)
    train = made[made["split"] == "train"]
    known = train.dropna(subset="fold").groupby("fold")["site"].unique().explode()
    assert known.to_dict() == {0: "A", 3: "A", 4: "B", 5: "B"}
    assert abs((train[train["fold"].isna()]["site"] == "A").mean() - 0.5) < 0.1
    odd = split_people(table, KFold(5, 2), 0, alone(table), folds.replace(5, 4))
    shared = odd[(odd["split"] == "train") & odd["fold"].fillna(3).eq(3)]
    assert np.ptp(shared["site"].value_counts()) <= 1


NONE = [[], [2], [21], [5, 5], [5, -1], [0.7, 0.3], [0.7, 0.2, 0.2], [1.2, -0.1, -0.1]]


@pytest.mark.parametrize("asked", [*NONE, [0, 0.5, 0.5], ["0.7", 0.1, 0.2], [True, 0, 0], [True]])
def test_what_split_ratios_can_ask_for(asked):
    assert (check_split([5]), check_split([5, 0])) == ((5, 4), (5, 0))
    assert check_split([1, 0, 0]) == (1, 0, 0)
    with pytest.raises(StudyError, match="split_ratios"):
        check_split(asked)


def folds_of(tmp_path, text, identities=IDS, asked=SHARES):
    path = tmp_path / "folds.txt"
    path.write_bytes(text.encode())
    return read_folds(path, identities, asked).to_dict()


FORMS = """{} {}~{},{}\r~{}\t{}\n~ {} ;  fold {} ~{}: fold_{}~"{}","{}"~{},{},train
    ~Images/{}_NoPain_man_Young.jpg,{}""".split("~")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", ["", "\ufeff", "ID fold\n", "identity,fold,split\n", "# folds\n"])
def test_lines_and_tables_of_an_id_and_its_fold(tmp_path, form, head):
    text = head + "\n".join(form.format(identity, n % 5) for n, identity in enumerate(IDS))
    assert folds_of(tmp_path, text) == {identity: n % 5 for n, identity in enumerate(IDS)}


def test_a_file_of_synpains_size(tmp_path):
    rng = random.Random(0)
    folds = {f"1{rng.randrange(10**9):09}": rng.randrange(5) for _ in range(5355)}
    text = "".join(f"{identity},{fold}\r\n" for identity, fold in folds.items())
    assert 74_000 < len(text) < 76_000
    assert folds_of(tmp_path, text, folds) == folds


UNUSABLE = {
    "0 different folds": "",
    "2 different folds": "1000000000 1\n1000000001 2\n",
    "'hello' is not an ID and its fold": LINES + "hello\n",
    "'1000000001 2 3' is not": "1000000001 2 3\n",
    "'fold 1: 1000000001 10000": "fold 1: 1000000001 1000000002",
    "1000000000 has two different folds": LINES + "1000000000 2\n",
    "no fold for 6 of 10 people .1000000004": LINES[: 4 * 13],
    "5 folds, and split_ratios asks for 4": LINES,
}


@pytest.mark.parametrize("complaint", UNUSABLE)
def test_folds_that_cannot_be_used(tmp_path, complaint):
    with pytest.raises(StudyError, match=complaint):
        folds_of(tmp_path, UNUSABLE[complaint], asked=KFold(4, 0))


def test_the_folds_of_a_file_decide(tmp_path):
    folds = pd.Series(folds_of(tmp_path, LINES))
    table = people([6]).assign(identity=[*IDS[:5], "1000000099"])
    made = split_people(table, SHARES, 0, alone(table), folds)
    assert made["split"].to_list() == ["train"] * 3 + ["validation", "test", "train"]
    made = split_people(table, KFold(5, 0), 0, alone(table) | {IDS[4]: IDS[0]}, folds)
    assert made["split"].to_list() == ["test", "train", "train", "train", "test", "train"]
