from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.dataset.naming import (
    AGES,
    ETHNICITIES,
    EXPRESSIONS,
    GENDERS,
    NamingError,
    PairName,
    label,
    parse_id,
    parse_name,
)

ids = st.from_regex(r"\A1[01]{3}[0-4][0-9]{5}\Z")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1000020580_NoPain_man_Young.jpg", ("NoPain", "Man", "Young", "Black")),
        ("1101012621_Pain_Man_Old.jpg", ("Pain", "Man", "Old", "Black")),
        ("1110331210_Pain_woman_Young.jpg", ("Pain", "Woman", "Young", "Caucasian")),
        ("1011111140_NoPain_Woman_Old.JPG", ("NoPain", "Woman", "Old", "South Asian")),
        ("1010299999_NoPain_WOMAN_Young.jpeg", ("NoPain", "Woman", "Young", "Middle Eastern")),
        ("1101400000_Pain_man_Old.Png", ("Pain", "Man", "Old", "Asian")),
        ("1101400000_PAIN_MAN_OLD.JPG", ("Pain", "Man", "Old", "Asian")),
        ("1010100000_nopain_woman_young.jfif", ("NoPain", "Woman", "Young", "South Asian")),
    ],
)
def test_names_as_synpain_has_them(name, expected):
    assert parse_name(name) == PairName(name[:10], *expected)


@pytest.mark.parametrize(
    "name",
    [" 1101400000_Pain_man_Old.jpg", "1101400000 _Pain _ man_ Old .jpg"],
)
def test_spaces_at_the_ends_of_words_are_no_matter(name):
    assert parse_name(name) == PairName("1101400000", "Pain", "Man", "Old", "Asian")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "bad_name"),
        ("1000020580.jpg", "bad_name"),
        ("1000020580_NoPain_man.jpg", "bad_name"),
        ("1000020580_NoPain_man_Young.mp4", "bad_name"),
        ("1000020580_NoPain_man_Young_2.jpg", "bad_name"),
        ("1000020580_NoPain_man_Young.jpg\n", "bad_name"),
        ("1000020580_NoPainful_man_Young.jpg", "bad_name"),
        ("1000020580_NoPain_boy_Young.jpg", "bad_name"),
        ("1000020580_NoPain_man_Middle.jpg", "bad_name"),
        ("._1000020580_NoPain_man_Young.jpg", "bad_name"),
        ("1000020580_NoPa\u0131n_man_Young.jpg", "bad_name"),  # a dotless i
        ("1000020580_NoPain_man_Young (1).jpg", "bad_name"),
        ("1000020580_No Pain_man_Young.jpg", "bad_name"),
        ("1000020580_NoPain_mañ_Young.jpg", "bad_name"),
        ("1000020580_NoPain_man_Young.heic", "bad_name"),
        ("100002058_NoPain_man_Young.jpg", "bad_id"),
        ("10000205800_NoPain_man_Young.jpg", "bad_id"),
        ("2000020580_NoPain_man_Young.jpg", "bad_id"),
        ("1200020580_NoPain_man_Young.jpg", "bad_id"),
        ("1000520580_NoPain_man_Young.jpg", "bad_id"),
        ("1000O20580_NoPain_man_Young.jpg", "bad_id"),
        ("١٠٠٠٠٢٠٥٨٠_NoPain_man_Young.jpg", "bad_id"),
        ("1100020580_NoPain_man_Young.jpg", "id_contradicts_name"),
        ("1000020580_Pain_man_Young.jpg", "id_contradicts_name"),
        ("1000020580_NoPain_woman_Young.jpg", "id_contradicts_name"),
        ("1000020580_NoPain_man_Old.jpg", "id_contradicts_name"),
    ],
)
def test_other_names_are_refused_with_the_reason(name, reason):
    with pytest.raises(NamingError) as caught:
        parse_name(name)
    assert caught.value.reason == reason
    assert str(caught.value).endswith(".")


@given(
    identity=ids,
    words=st.tuples(*(st.sampled_from(v) for v in (EXPRESSIONS, GENDERS, AGES))),
    change=st.sampled_from([str, str.lower, str.upper]),
    suffix=st.sampled_from(["jpg", "JPG", "jpeg", "png", "PNG"]),
)
def test_words_and_digits_must_agree(identity, words, change, suffix):
    expression, gender, age = words
    name = f"{identity}_{expression}_{change(gender)}_{age}.{suffix}"
    digits = "".join(str(int(w in ("Pain", "Woman", "Old"))) for w in words)
    if identity[1:4] == digits:
        ethnicity = ETHNICITIES[int(identity[4])]
        assert parse_name(name) == PairName(identity, *words, ethnicity) == parse_id(identity)
    else:
        with pytest.raises(NamingError) as caught:
            parse_name(name)
        assert caught.value.reason == "id_contradicts_name"


PIECES = {
    "id": ["1000020580", "1101412621", "1110331210", "1011111140", "1000520580", "100002058", "x"],
    "expression": ["NoPain", "Pain", "nopain", "PAIN", "Painful", "No Pain", "Paın", ""],
    "gender": ["Man", "man", "Woman", "woman", "WOMAN", "mann", "Frau", " man "],
    "age": ["Young", "Old", "old", "YOUNG", "Middle", "Óld", "Young ", "Old_2"],
    "suffix": [".jpg", ".JPG", ".png", ".tiff", ".txt", ".jpg.part", "", ".jpg\n"],
}
pieces = st.tuples(
    st.sampled_from(["_", "_", " _", "-", "__"]),
    st.lists(st.sampled_from(PIECES["id"]) | ids | st.text(max_size=11), min_size=2, max_size=2),
    *(
        st.lists(st.sampled_from(PIECES[key]), min_size=3, max_size=3, unique=True)
        for key in ("expression", "gender", "age", "suffix")
    ),
)


def told(name):
    """The same rules as `parse_name`, by splitting instead of by a pattern."""
    stem, dot, suffix = name.rpartition(".")
    fields = [field.strip(" ") for field in stem.split("_")]
    places = [("nopain", "pain"), ("man", "woman"), ("young", "old")]
    picture = suffix.lower() in "jpg jpeg jpe jfif png webp bmp gif tif tiff".split()
    if not dot or not picture or len(fields) != 4 or not stem.split("_")[0]:
        return "bad_name"
    words = [field.lower() for field in fields[1:]]
    if not all(word in choices for word, choices in zip(words, places, strict=True)):
        return "bad_name"
    digits = fields[0]
    if len(digits) != 10 or digits.strip("0123456789") or digits[0] != "1":
        return "bad_id"
    if digits[1:4].strip("01") or digits[4] not in "01234":
        return "bad_id"
    if [choices[int(d)] for d, choices in zip(digits[1:4], places, strict=True)] != words:
        return "id_contradicts_name"
    return (
        digits,
        *words,
        "Black,South Asian,Middle Eastern,Caucasian,Asian".split(",")[int(digits[4])],
    )


def outcome(name):
    try:
        pair = parse_name(name)
    except NamingError as error:
        return error.reason
    words = (pair.expression.lower(), pair.gender.lower(), pair.age.lower())
    return (pair.identity, *words, pair.ethnicity)


@given(pieces)
@settings(max_examples=100, deadline=None)  # of 162 names each
def test_any_name_is_parsed_right_or_refused_with_a_reason(drawn):
    separator, *parts = drawn
    for *words, suffix in product(*parts):
        name = separator.join(words) + suffix
        assert outcome(name) == told(name), name


@given(st.text(max_size=40))
def test_any_text_is_parsed_right_or_refused_with_a_reason(name):
    assert outcome(name) == told(name)


def test_only_the_right_half_of_a_pain_pair_is_pain():
    labels = {(e, s): label(e, s) for e in EXPRESSIONS for s in ("left", "right")}
    assert labels == {
        ("Pain", "left"): "NoPain",
        ("Pain", "right"): "Pain",
        ("NoPain", "left"): "NoPain",
        ("NoPain", "right"): "NoPain",
    }
