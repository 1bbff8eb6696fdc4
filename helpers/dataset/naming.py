"""What the name of a SynPAIN pair says, and the label that each of its halves gets.

A pair is named `[ID]_[expression]_[gender]_[age].jpg`. The ID is ten digits `1 p g a r iiiii`:
p = 1 Pain, g = 1 Woman, a = 1 Old, r = 0..4 ethnicity, i = running number. Ethnicity is in the ID
alone; the other three stand there and in words, so that each checks the other.
"""

import re
from dataclasses import dataclass

LABELS = ("NoPain", "Pain")
SIDES = ("left", "right")
EXPRESSIONS = ("NoPain", "Pain")
GENDERS = ("Man", "Woman")
AGES = ("Young", "Old")
ETHNICITIES = ("Black", "South Asian", "Middle Eastern", "Caucasian", "Asian")
CELL = ("expression", "gender", "age", "ethnicity")

# What a picture may be named; what it is, its bytes decide.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)

# ASCII, because Unicode's rules of case take a dotless i for an i.
_NAME = re.compile(
    r"([^_]+)_ *(NoPain|Pain) *_ *(Man|Woman) *_ *(Young|Old) *"
    rf"(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})",
    re.IGNORECASE | re.ASCII,
)
_ID = re.compile(r"1([01])([01])([01])([0-4])[0-9]{5}")


class NamingError(ValueError):
    """A name or an ID that is not SynPAIN's; `reason` is its short name, the text one sentence.

    Reasons: `bad_name` (the words), `bad_id` (the digits), `id_contradicts_name`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the short `reason` beside the sentence `detail`."""
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class PairName:
    """The person and the expression of one pair; `identity` is the ten-digit ID as text."""

    identity: str
    expression: str
    gender: str
    age: str
    ethnicity: str


def parse_id(identity: str) -> PairName:
    """Return what a ten-digit ID says by itself, or raise `NamingError` (`bad_id`)."""
    match = _ID.fullmatch(identity)
    if match is None:
        raise NamingError("bad_id", f"'{identity}' is not a ten-digit ID of the form 1pgariiiii.")
    pain, woman, old, ethnicity = (int(digit) for digit in match.groups())
    return PairName(identity, EXPRESSIONS[pain], GENDERS[woman], AGES[old], ETHNICITIES[ethnicity])


def parse_name(name: str) -> PairName:
    """Return what a file name (without its folder) says, words and ID checked against each other.

    The case of the words and of the suffix (`PICTURE_SUFFIXES`) is free, and so are spaces at the
    ends of a word: the ID says again what the words say. Raises `NamingError`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise NamingError(
            "bad_name", f"'{name}' is not named [ID]_[Pain|NoPain]_[Man|Woman]_[Young|Old].jpg."
        )
    identity, *words = match.groups()
    pair = parse_id(identity.strip(" "))
    says = (pair.expression, pair.gender, pair.age)
    for from_id, from_name in zip(says, words, strict=True):
        if from_id.lower() != from_name.lower():
            raise NamingError(
                "id_contradicts_name",
                f"The ID of '{name}' says {from_id}, its name says {from_name}.",
            )
    return pair


def label(expression: str, side: str) -> str:
    """Return the label of one half: Pain only for the right half of a pair whose name says Pain.

    The left half is the neutral face of the same person, so it is always NoPain.
    """
    return "Pain" if expression == "Pain" and side == "right" else "NoPain"
