"""The plan of the dataset: which pairs there are, what each is drawn from, how it is written.

Every pair is a function of the dataset's seed and the pair's serial number alone. Each aspect has
a random stream of its own, and the streams for wall, light, camera, seam and JPEG quality never
see label or kind, so nothing but the face can tell pain from no pain.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .expressions import NO_PAIN_KINDS, UNITS, actions_of, draw_units, pspi, units_of
from .identities import AGES, GENDERS, draw_identity
from .phenotypes import ETHNICITIES
from .shots import draw_setting, draw_shot

MOST_PAIRS = 5355  # as many as SynPAIN has
# People are dealt to folds by their place in the plan, a round of the 40 cells after another: ten
# rounds are site A, ten site B, two and a half validation, and from there on all are test.
ROUNDS = (10, 20, 22, 23)
QUICK = (*range(240), *range(400, 640))  # places of the people of `quick`: none of test
CELLS = [
    (pain, gender, age, ethnicity)
    for pain in (0, 1)
    for gender in (0, 1)
    for age in (0, 1)
    for ethnicity in range(len(ETHNICITIES))
]
# Names of the random streams of a pair; a number is never reused for something else.
PLAN, IDENTITY, SETTING, SPELLING, SEAM, QUALITY, KIND = 1, 2, 3, 4, 5, 6, 7
UNITS_OF_SIDE = {"left": 11, "right": 12, "relief": 13}  # wrinkles of their own: see singles.py
SHOT_OF_SIDE = {"left": 21, "right": 22}
ATTRIBUTES = ("image_id", "identity", "side", "kind", *UNITS, "pspi")


@dataclass(frozen=True)
class Pair:
    """One file to be: the dataset's seed, place and serial number, and the demographic cell."""

    seed: int
    place: int
    serial: int
    pain: int
    gender: int  # index into GENDERS
    age: int  # index into AGES
    ethnicity: int  # index into ETHNICITIES

    def stream(self, name):
        """The generator of one aspect of this pair."""
        return np.random.default_rng([self.seed, self.serial, name])

    @property
    def identity_id(self):
        """Ten digits: 1, pain, woman, old, ethnicity, five of the serial number."""
        return f"1{self.pain}{self.gender}{self.age}{self.ethnicity}{self.serial:05d}"

    @property
    def file_name(self):
        """SynPAIN's pattern; the gender is capitalised in a tenth of the files, as it happens.

        The people of `quick` lie in a folder of their own.
        """
        gender = GENDERS[self.gender]
        if self.stream(SPELLING).random() >= 0.1:
            gender = gender.lower()
        expression = "Pain" if self.pain else "NoPain"
        folder = "quick/" if self.place in QUICK else ""
        return f"{folder}{self.identity_id}_{expression}_{gender}_{AGES[self.age]}.jpg"

    @property
    def fold(self):
        """0 site A, 1 site B, 2 validation, 3 test: as chapter 1 reads any four folds.

        Of the round that is halved, every other cell is for validation: as many of each gender, age
        and label.
        """
        fold = sum(self.place // len(CELLS) >= end for end in ROUNDS)
        half = 2 + (self.pain + self.gender + self.age + self.ethnicity) % 2
        return (0, 1, 2, half, 3)[fold]

    def kind(self, side, pain=None):
        """Kind of expression of a side; in `pain` or not where it shall not be the pair's."""
        if side == "left":
            return "neutral"
        if self.pain if pain is None else pain:
            return "pain"
        shares = np.array(list(NO_PAIN_KINDS.values()))
        return str(self.stream(KIND).choice(list(NO_PAIN_KINDS), p=shares / shares.sum()))

    def actions(self, side, pain=None):
        """Facial action weights of a side; `pain`: see `kind`."""
        rng = self.stream(UNITS_OF_SIDE[side])
        return actions_of(draw_units(self.kind(side, pain), rng), rng)

    def photographed(self, side):
        """The person, the setting and the shot of a side."""
        ethnicity = self.ethnicity
        person = draw_identity(
            self.stream(IDENTITY), GENDERS[self.gender], AGES[self.age], ethnicity
        )
        setting = draw_setting(self.stream(SETTING))
        return person, setting, draw_shot(self.stream(SHOT_OF_SIDE[side]), setting)

    def attributes(self, side):
        """The row of this half in attributes.csv."""
        units = units_of(self.actions(side))
        head = (f"{self.identity_id}_{side}", self.identity_id, side, self.kind(side))
        return dict(zip(ATTRIBUTES, (*head, *units.values(), round(pspi(units), 3)), strict=True))


def plan(n_pairs, seed):
    """The first `n_pairs` pairs of the dataset: cells in balance, serial numbers in no order.

    A longer plan begins with a shorter one of the same seed.
    """
    if not 1 <= n_pairs <= MOST_PAIRS:
        raise ValueError(f"between 1 and {MOST_PAIRS} pairs, not {n_pairs}")
    rng = np.random.default_rng([seed, 0, PLAN])
    serials = rng.permutation(100_000)  # more than MOST_PAIRS: five digits each
    pairs = []
    while len(pairs) < n_pairs:
        for cell in rng.permutation(len(CELLS)):
            pairs.append(Pair(seed, len(pairs), int(serials[len(pairs)]), *CELLS[cell]))
    return pairs[:n_pairs]


def picture(pair, renderer):
    """The finished pair as an image of 656 x 368 pixels."""
    halves = []
    for side in ("left", "right"):
        person, setting, shot = pair.photographed(side)
        halves.append(renderer.render(person, pair.actions(side), shot, setting))
    joined = np.concatenate(halves, 1)
    rng = pair.stream(SEAM)
    width = int(rng.integers(2, 7))
    start = joined.shape[1] // 2 - width // 2 + int(rng.integers(-2, 3))
    joined[:, start : start + width] = 255
    return Image.fromarray(joined)


def encode(image, rng):
    """JPEG bytes at a quality drawn by `rng`, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(78, 85)), subsampling=2, optimize=True)
    return buffer.getvalue()


def write_whole(path, data):
    """Write a file under a temporary name and rename it, so that it is there whole or not."""
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_pair(pair, renderer, folder):
    """Render a pair into `folder`."""
    write_whole(
        Path(folder) / pair.file_name, encode(picture(pair, renderer), pair.stream(QUALITY))
    )


def write_table(path, rows):
    """Write rows (dicts of the same keys) as CSV, sorted by the first of them."""
    rows = sorted(rows, key=lambda row: next(iter(row.values())))
    lines = [",".join(rows[0])] + [",".join(str(v) for v in r.values()) for r in rows]
    write_whole(path, ("\n".join(lines) + "\n").encode())
