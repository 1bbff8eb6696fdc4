"""Folds files: which layouts are understood, and what of the data they then decide."""

import json
import random

import pandas as pd
import pytest

from helpers.dataset.folds import describe, read_folds
from helpers.dataset.naming import parse_id
from helpers.dataset.splits import KFold
from helpers.dataset.splitting import choose_folds, split_people
from helpers.dataset.tree import Tree
from helpers.errors import StudyError

IDS = [f"10000000{n:02}" for n in range(10)]
LISTS = [IDS[n::5] for n in range(5)]
RATIOS = (0.7, 0.15, 0.15)


def truth(first=0):
    return {identity: n % 5 + first for n, identity in enumerate(IDS)}


def understood(tmp_path, text):
    path = tmp_path / "folds.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_folds(path)


@pytest.mark.parametrize(
    "form",
    [
        "{id} {fold}\n",
        "{id},{fold}\r\n",
        "{id}\t{fold}\n\n",
        "  {id} ;  {fold}  \n",
        "{id}: {fold}\n",
        "{id} fold {fold}\n",
        "('{id}', {fold}),\n",
        "{fold}, {id}\n",
        "fold{fold} {id}\n",
        "{id}_NoPain_man_Young.jpg {fold}\n",
        "Images/{id}_NoPain_man_Young.jpg,{fold}\n",
    ],
)
@pytest.mark.parametrize("head", ["", "\ufeff", "ID fold\n", "# folds of SynPAIN\n"])
def test_lines_of_an_id_and_its_fold(tmp_path, form, head):
    lines = [form.format(id=identity, fold=n % 5) for n, identity in enumerate(IDS)]
    assert understood(tmp_path, head + "".join(lines)).of == truth()


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("".join(f"Fold {n}:\n" + "\n".join(ids) + "\n" for n, ids in enumerate(LISTS)), 0),
        ("".join(f"# fold {n}\n" + ", ".join(ids) + "\n" for n, ids in enumerate(LISTS)), 0),
        ("".join(f"[fold_{n + 1}]\r\n" + "\r\n".join(ids) + "\r\n\r\n"
                 for n, ids in enumerate(LISTS)), 1),
        ("\n".join(f"Fold {n + 1}: {ids}" for n, ids in enumerate(LISTS)), 1),
        ("\n".join(f"fold_{n} = {ids}" for n, ids in enumerate(LISTS)), 0),
        ("".join(f"{n}\n" + "\n".join(ids) + "\n" for n, ids in enumerate(LISTS)), 0),
        ("\n".join(" ".join(ids) for ids in LISTS), 0),
        ("\n".join(str(ids) for ids in LISTS), 0),
        ("\n\n".join("\n".join(ids) for ids in LISTS), 0),
        (json.dumps(LISTS), 0),
        (str(LISTS), 0),
        (json.dumps(dict(enumerate(LISTS))), 0),
        (json.dumps({"folds": LISTS}), 0),
        (str({f"fold_{n + 1}": ids for n, ids in enumerate(LISTS)}), 1),
        (json.dumps(truth()), 0),
        (str(truth(1)), 1),
        (json.dumps([[identity, fold] for identity, fold in truth().items()]), 0),
        (json.dumps([{"id": i, "sex": "m", "fold": f} for i, f in truth().items()]), 0),
        (json.dumps([{"train": [*{*IDS} - {*ids}], "test": ids} for ids in LISTS]), 0),
        ("id,age,fold\n" + "".join(f"{i},Old,{f}\n" for i, f in truth().items()), 0),
        (",id,fold\n" + "".join(f"{n},{i},{f}\n" for n, (i, f) in enumerate(truth().items())), 0),
        ("\n".join(f"{i} {f}" for i, f in truth().items()).encode("utf-16"), 0),
    ],
)  # fmt: skip
def test_lists_of_ids_and_tables(tmp_path, text, first):
    assert understood(tmp_path, text).of == truth(first)


def test_parts_named_in_words(tmp_path):
    words = ["train", "train", "train", "val", "test"]
    text = "".join(f"{identity},{words[n % 5]}\n" for n, identity in enumerate(IDS))
    folds = understood(tmp_path, text)
    assert folds.of == {identity: max(0, n % 5 - 2) for n, identity in enumerate(IDS)}


@pytest.mark.parametrize("form", ["{},{}\r\n", "{}, {}\n"])
def test_a_file_of_synpains_size_has_14_bytes_a_pair(tmp_path, form):
    rng = random.Random(0)
    folds = {f"1{rng.randrange(10**9):09}": rng.randrange(5) for _ in range(5355)}
    read = understood(tmp_path, "".join(form.format(*item) for item in folds.items()))
    assert read.of == folds
    assert "(74,970 bytes, 14.0 an ID)" in describe(read)
    assert "5,355 IDs in 5 folds" in describe(read)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "0 different folds"),
        ("1000000000 1\n1000000001 2\n", "2 different folds"),
        ("\n".join(f"10000000{n:02} {n}" for n in range(30)), "30 different folds"),
        ("1000000000 1\nhello\n", "line 2: 'hello'"),
        ("1000000000 1\n1000000001 2 3\n", "line 2"),
        ("1000000000 one\n", "line 1"),
        ("1000000000 1\n1000000001\n", "line 2"),
        ("1000000000\n1000000001\n", "line 1"),
        ("1000000000 1\n1000000000 2\n", "line 2: 1000000000 has two different folds"),
        ("Fold 1 train: 1000000001\nFold 2 train: 1000000001\n", "line 2: 1000000001 has two"),
        ("\x00\x01\x02", "0 different folds"),
        (json.dumps(IDS), "stands in no fold"),
        (json.dumps({"1000000000": "first", "1000000001": "second"}), "is not an ID and its fold"),
        (json.dumps([LISTS]), "is not a fold"),
        ("[" * 5000, "0 different folds"),
    ],
)
def test_folds_that_cannot_be_understood(tmp_path, text, complaint):
    with pytest.raises(StudyError, match=complaint):
        understood(tmp_path, text)


def test_a_missing_folds_file_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.txt does not exist"):
        read_folds(tmp_path / "nowhere.txt")


def tree(*folds_files, identities=IDS):
    return Tree([(parse_id(i), [i]) for i in identities], [], list(folds_files))


def table(identities):
    return pd.DataFrame([vars(parse_id(identity)) for identity in identities])


def decide(tmp_path, text, identities=IDS, ratios=RATIOS, groups=None, folds_file="auto"):
    (tmp_path / "folds.txt").write_text(text)
    folds_file = folds_file or tmp_path / "folds.txt"
    chosen = choose_folds(folds_file, tmp_path, tree("folds.txt", identities=identities), ratios)
    groups = {identity: identity for identity in identities} | (groups or {})
    return split_people(table(identities), ratios, 0, groups, chosen)


LINES = "".join(f"{identity} {n % 5 + 1}\n" for n, identity in enumerate(IDS))


@pytest.mark.parametrize("folds_file", ["auto", None])
def test_highest_fold_is_test_and_the_next_validation(tmp_path, folds_file):
    identities = [*IDS[:5], "1000000099"]
    made = decide(tmp_path, LINES, identities, folds_file=folds_file)
    assert [made.splits[i] for i in identities] == [
        "train", "train", "train", "validation", "test", "train",
    ]  # fmt: skip
    assert "lines of an ID and its fold" in made.note
    assert "Fold 5 is test, fold 4 is validation" in made.note
    assert "no fold for 1 of the pairs (1000000099)" in made.note
    assert "5 of its IDs have no usable pair (1000000005, 1000000006, 1000000007, …)" in made.note
    status = made.folds.set_index("identity")["status"]
    assert status["1000000000"] == "used"
    assert status["1000000099"] == "without_fold"
    assert status["1000000009"] == "without_pair"


def test_an_id_that_is_none_is_one_without_a_pair(tmp_path):
    made = decide(tmp_path, LINES + "9000000001 3\n")
    assert "1 of its IDs have no usable pair (9000000001)" in made.note


def test_the_dataset_s_folds_in_turn(tmp_path):
    made = decide(tmp_path, LINES, ratios=KFold(5, 0))
    assert [made.splits[i] for i in IDS[:5]] == ["test", "train", "train", "train", "validation"]
    assert "every ID of the file a pair" in made.note
    with pytest.raises(StudyError, match=r"asks for 4 folds, and the folds file .* has 5"):
        decide(tmp_path, LINES, ratios=KFold(4, 0))


def test_near_duplicates_leave_their_fold_for_one_split(tmp_path):
    made = decide(tmp_path, LINES, groups={IDS[4]: IDS[0], IDS[5]: IDS[0]})
    assert {made.splits[i] for i in (IDS[0], IDS[4], IDS[5])} == {"train"}
    assert "1 person left the fold of the file" in made.note


@pytest.mark.parametrize(
    ("text", "why"),
    [("1000000000 1\nhello\n", "line 2: 'hello'"), ("", "0 different folds")],
)
def test_a_file_that_was_only_looked_for_may_be_unreadable(tmp_path, text, why):
    made = decide(tmp_path, text)
    assert why in made.note
    assert "It was not used. The splits were drawn by identity" in made.note
    assert made.folds is None
    with pytest.raises(StudyError, match=why):
        decide(tmp_path, text, folds_file=None)


def test_folds_of_other_people_are_refused(tmp_path):
    strangers = ["1000000099", "1000000098", IDS[0]]
    with pytest.raises(StudyError, match="no fold for 2 of the 3 pairs, 1000000098"):
        decide(tmp_path, LINES, strangers, folds_file=None)
    assert "no fold for 2 of the 3 pairs" in decide(tmp_path, LINES, strangers).note


def test_without_a_folds_file_the_draw_is_our_own(tmp_path):
    made = split_people(
        table(IDS), KFold(5, 1), 0, dict(zip(IDS, IDS, strict=True)),
        choose_folds("auto", tmp_path, tree(), KFold(5, 1)),
    )  # fmt: skip
    assert "No folds file lies beside the pairs. People were drawn into 5 folds" in made.note
    assert "Fold 1 is test, fold 0 is validation" in made.note
    assert made.folds["fold"].value_counts().to_list() == [2] * 5
