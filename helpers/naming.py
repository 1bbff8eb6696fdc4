"""What the name of a SynPAIN pair says, and the label that each of its halves gets.

A pair is named `[ID]_[expression]_[gender]_[age].jpg`. The ID is ten digits `1 p g a r iiiii`:
p = 1 Pain, g = 1 Woman, a = 1 Old, r = 0..4 ethnicity, i = running number. Ethnicity is in the ID
alone; the other three stand there and in words, so that each checks the other.
"""

import re
from typing import NamedTuple

SIDES = ("left", "right")
EXPRESSIONS = ("NoPain", "Pain")
GENDERS = ("Man", "Woman")
AGES = ("Young", "Old")
ETHNICITIES = ("Black", "South Asian", "Middle Eastern", "Caucasian", "Asian")
CELL = ("expression", "gender", "age", "ethnicity")

# What a picture may be named; what it is, its bytes decide.
PICTURE_SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff".split())

# ASCII, because Unicode's rules of case take a dotless i for an i.
_NAME = re.compile(
    r"([^_]+)_ *(NoPain|Pain) *_ *(Man|Woman) *_ *(Young|Old) *\.[a-z]+", re.I | re.A
)
_ID = re.compile(r"1([01])([01])([01])([0-4])[0-9]{5}")


class Unusable(ValueError):
    """A file that cannot be used; `reason` is a short name, the text one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the short `reason` beside the sentence `detail`."""
        super().__init__(detail)
        self.reason = reason


class PairName(NamedTuple):
    """The person and the expression of one pair; `identity` is the ten-digit ID as text."""

    identity: str
    expression: str
    gender: str
    age: str
    ethnicity: str


def parse_id(identity: str) -> PairName:
    """Return what a ten-digit ID says by itself, or raise `Unusable` (`bad_id`)."""
    match = _ID.fullmatch(identity)
    if match is None:
        raise Unusable("bad_id", f"'{identity}' is not a ten-digit ID of the form 1pgariiiii.")
    pain, woman, old, ethnicity = map(int, match.groups())
    return PairName(identity, EXPRESSIONS[pain], GENDERS[woman], AGES[old], ETHNICITIES[ethnicity])


def parse_name(name: str) -> PairName:
    """Return what a file name (without its folder) says, words and ID checked against each other.

    The case of the words and of the suffix (`PICTURE_SUFFIXES`) is free, and so are spaces at the
    ends of a word: the ID says again what the words say. Raises `Unusable` with the reason
    `other_file` (no picture by its suffix), `bad_name` (the words), `bad_id` (the digits) or
    `id_contradicts_name`.
    """
    if not name.lower().endswith(PICTURE_SUFFIXES):
        raise Unusable("other_file", f"'{name}' is no picture by its name.")
    match = _NAME.fullmatch(name)
    if match is None:
        detail = f"'{name}' is not named [ID]_[Pain|NoPain]_[Man|Woman]_[Young|Old].jpg."
        raise Unusable("bad_name", detail)
    identity, *words = match.groups()
    pair = parse_id(identity.strip(" "))
    for from_id, from_name in zip(pair[1:4], words, strict=True):
        if from_id.lower() != from_name.lower():
            detail = f"The ID of '{name}' says {from_id}, its name says {from_name}."
            raise Unusable("id_contradicts_name", detail)
    return pair


def label(expression: str, side: str) -> str:
    """Return the label of one half: Pain only for the right half of a pair whose name says Pain.

    The left half is the neutral face of the same person, so it is always NoPain.
    """
    return "Pain" if expression == "Pain" and side == "right" else "NoPain"
