import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.naming import (
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
    ],
)
def test_names_as_synpain_has_them(name, expected):
    assert parse_name(name) == PairName(name[:10], *expected)


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


def outcome(name):
    try:
        return parse_name(name).identity
    except NamingError as error:
        return error.reason


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(name):
    assert outcome(name) in (name[:10], "bad_name", "bad_id", "id_contradicts_name")


def test_only_the_right_half_of_a_pain_pair_is_pain():
    labels = {(e, s): label(e, s) for e in EXPRESSIONS for s in ("left", "right")}
    assert labels == {
        ("Pain", "left"): "NoPain",
        ("Pain", "right"): "Pain",
        ("NoPain", "left"): "NoPain",
        ("NoPain", "right"): "NoPain",
    }
