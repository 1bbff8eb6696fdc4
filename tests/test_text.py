import re
from collections import Counter

import nbformat
import numpy as np
import pytest

from helpers import text
from helpers.files import ROOT, StudyError
from helpers.stats import Estimate


def difference(low, high, seeds):
    """A difference whose interval is about [low, high]."""
    middle, reach = (low + high) / 2, (high - low) / 2
    draws = middle + reach / 1.96 * np.random.default_rng(0).normal(size=20_000)
    return Estimate(middle, draws, seeds, limits=(-1.0, 1.0))


def test_arms_and_numbers_in_words():
    assert text.name_of("deit_tiny-swin") == "DeiT-Ti ← Swin-T"
    assert text.name_of("deit_tiny-none") == "DeiT-Ti, no teacher"
    assert text.name_of(text.name_of("swin_base")) == "Swin-B"
    assert (text.signed(0.0541), text.signed(-0.01), text.signed(0.0004)) == (
        "+0.054",
        "−0.010",
        "0.000",
    )
    assert text.percent(0.128) == "13 %"
    assert text.shown(difference(0.01, 0.03, (0.02,))) == "+0.020 [+0.010, +0.030]"
    share = Estimate(0.5, np.full(9, np.nan), (0.5,), limits=(0.0, 1.0))
    assert text.shown(share) == "0.50 [no interval]"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (difference(0.01, 0.03, (0.02, 0.01)), "By the rule A is higher."),
        (difference(-0.03, -0.01, (-0.02, -0.01)), "By the rule B is higher."),
        (difference(0.01, 0.03, (0.05, -0.01)), "This leaves open which is higher, A or B."),
        (difference(-0.5, 0.6, (0.1, 0.2)), "This leaves open which is higher, A or B."),
        (difference(0.01, 0.03, (0.02,)), "One seed"),
        (difference(0.01, 0.03, (0.02, 0.01)).without_interval(), "There are too few people"),
    ],
)
def test_the_verdict_is_the_rules(found, said):
    assert text.verdict(found, "A", "B").startswith(said)


def test_a_discussion_is_shown_as_long_as_its_claims_hold(tmp_path):
    path = tmp_path / "standin.md"
    path.write_text("---\nclaims: ['low(d) < 0 < high(d)', 'n == 3']\n---\nOpen: {{ d }}.\n")
    shown = text.discussion(path, {"d": difference(-0.1, 0.1, ()), "n": 3}).data
    assert shown.startswith("Open: ")
    flipped = text.discussion(path, {"d": difference(0.1, 0.2, ()), "n": 3}).data
    assert "`low(d) < 0 < high(d)`" in flipped
    with pytest.raises(StudyError, match=r"'n == 3' cannot be evaluated .*may speak of d"):
        text.discussion(path, {"d": difference(-0.1, 0.1, ())})
    assert "No discussion has been written" in text.discussion(tmp_path / "none.md", {}).data


def test_every_reference_has_an_entry_and_every_entry_a_reference():
    words = "".join(path.read_text() for path in (ROOT / "notebooks").rglob("*.[im][pd]*"))
    cited = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", words) for key in keys.split(",")}
    entries = re.findall(r"^@\w+\{([^,]+),", (ROOT / "notebooks/references.bib").read_text(), re.M)
    assert max(Counter(entries).values()) == 1
    assert set(entries) == cited


def test_no_chapter_calls_a_wide_interval_no_difference_or_resamples_rows():
    drawn = r"sns\.(lineplot|pointplot|barplot|relplot|catplot|regplot|lmplot)"
    paths = [*(ROOT / "helpers").glob("*.py"), *(ROOT / "notebooks").rglob("*.[im][pd]*")]
    for path in [*paths, ROOT / "README.md"]:
        assert not re.search(r"shows?\s+no\s+difference", path.read_text()), path
        for cell in nbformat.read(path, 4).cells if path.suffix == ".ipynb" else []:
            if cell.cell_type == "code" and re.search(drawn, cell.source):
                assert re.search(r'(errorbar|estimator|ci)"?[:=] ?None', cell.source), path
