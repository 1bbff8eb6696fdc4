import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import naming
from helpers.naming import PairName, Unusable, label, parse_id, parse_name

WORDS = (naming.EXPRESSIONS, naming.GENDERS, naming.AGES)
ids = st.from_regex(r"\A1[01]{3}[0-4][0-9]{5}\Z")


def reason_of(name):
    try:
        return parse_name(name) and None
    except Unusable as error:
        return error.reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1000020580_NoPain_man_Young.jpg", "NoPain Man Young Black"),
        ("1101012621_Pain_Man_Old.jpg", "Pain Man Old Black"),
        ("1110331210_Pain_woman_Young.jpg", "Pain Woman Young Caucasian"),
        ("1010299999_NoPain_WOMAN_Young.JPEG", "NoPain Woman Young Middle Eastern"),
        (" 1101400000 _PAIN _ man_ Old .Png", "Pain Man Old Asian"),
    ],
)
def test_names_as_synpain_has_them(name, expected):
    assert parse_name(name) == PairName(name.strip()[:10], *expected.split(" ", 3))


REFUSED = {
    "other_file": ["", "1000020580_NoPain_man_Young.mp4", "1000020580_NoPain_man_Young.jpg\n"],
    "bad_name": """1000020580.jpg 1000020580_NoPain_man.jpg 1000020580_NoPain_man_Young_2.jpg
        1000020580_NoPainful_man_Young.jpg 1000020580_No-Pain_man_Young.jpg
        1000020580_NoPain_boy_Young.jpg 1000020580_NoPa\u0131n_man_Young.jpg
        1000020580_NoPain_man_Young(1).jpg 1000020580_NoPain_man_Young.jpg.png
        ._1000020580_NoPain_man_Young.jpg""".split(),
    "bad_id": """100002058_NoPain_man_Young.jpg 10000205800_NoPain_man_Young.jpg
        2000020580_NoPain_man_Young.jpg 1200020580_NoPain_man_Young.jpg
        1000520580_NoPain_man_Young.jpg ١٠٠٠٠٢٠٥٨٠_NoPain_man_Young.jpg""".split(),
    "id_contradicts_name": """1100020580_NoPain_man_Young.jpg 1000020580_Pain_man_Young.jpg
        1000020580_NoPain_woman_Young.jpg 1000020580_NoPain_man_Old.jpg""".split(),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_names_are_refused_with_the_reason(reason):
    assert {reason_of(name) for name in REFUSED[reason]} == {reason}


@given(
    identity=ids,
    words=st.tuples(*map(st.sampled_from, WORDS)),
    change=st.sampled_from([str, str.lower, str.upper]),
    suffix=st.sampled_from(["jpg", "JPG", "jpeg", "png", "TIFF"]),
)
def test_words_and_digits_must_agree(identity, words, change, suffix):
    name = f"{identity}_{'_'.join(map(change, words))}.{suffix}"
    digits = "".join(str(int(word in ("Pain", "Woman", "Old"))) for word in words)
    if identity[1:4] == digits:
        ethnicity = naming.ETHNICITIES[int(identity[4])]
        assert parse_name(name) == PairName(identity, *words, ethnicity) == parse_id(identity)
    else:
        assert reason_of(name) == "id_contradicts_name"


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(name):
    assert reason_of(name) in ("other_file", "bad_name", "bad_id", "id_contradicts_name")


def test_only_the_right_half_of_a_pain_pair_is_pain():
    labels = {(e, s): label(e, s) for e in naming.EXPRESSIONS for s in ("left", "right")}
    assert [key for key, value in labels.items() if value == "Pain"] == [("Pain", "right")]
    assert set(labels.values()) == {"Pain", "NoPain"}
