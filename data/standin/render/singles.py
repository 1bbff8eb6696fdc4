"""Single faces of people who are in no pair of the study, each the size of a half.

- `scratch`: expressive halves, half of them in pain, to tune recipes on.
- `control`: the same, but the wrinkles (relief) belong to another expression than the one that
  moves the face (geometry); each is pain or not, independently of the other.
- `cues`: 40 people, each in one and the same shot, of whom one thing at a time is moved.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .dataset import ATTRIBUTES, CELLS, QUALITY, Pair, encode, plan, write_whole
from .expressions import actions_of
from .identities import AGES, GENDERS
from .phenotypes import ETHNICITIES

SEEDS = {"scratch": 100, "control": 101, "cues": 102}
# A pain that shows all that `cues` take apart; the upper face is that of FACS.
SHOWN = {"AU4": 4, "AU6": 3, "AU7": 4, "AU9": 3.5, "AU10": 3.5, "AU20": 2, "AU25": 3, "AU43": 0.6}
UPPER = ("AU4", "AU6", "AU7", "AU43")
DOSES = (1, 3, 5)
ALONE = ("AU4", "AU6", "AU7", "AU9", "AU10", "AU25", "AU26", "AU43")


@dataclass(frozen=True)
class Single:
    """One picture to be: who (and in what shot), what moves the face and, if apart, its relief.

    `about` is the rest of its row in attributes.csv.
    """

    pair: Pair
    name: str
    actions: dict
    relief: dict | None
    about: dict

    @property
    def file_name(self):
        """The picture's file."""
        return f"{self.image_id}.jpg"

    @property
    def image_id(self):
        """The person's ID and what is shown."""
        return f"{self.pair.identity_id}_{self.name}"

    def attributes(self):
        """The row of this face in attributes.csv."""
        who = {"image_id": self.image_id, "identity": self.pair.identity_id}
        who |= {"gender": GENDERS[self.pair.gender], "age": AGES[self.pair.age]}
        return who | {"ethnicity": ETHNICITIES[self.pair.ethnicity].name} | self.about


def write_single(single, renderer, folder):
    """Render a face into `folder`."""
    person, setting, shot = single.pair.photographed("right")
    pixels = renderer.render(person, single.actions, shot, setting, single.relief)
    data = encode(Image.fromarray(pixels), single.pair.stream(QUALITY))
    write_whole(Path(folder) / single.file_name, data)


def plan_singles(name, people, seed):
    """The faces of the set `name` of so many people, as a list."""
    make = {"scratch": _scratch, "control": _control, "cues": _cues}[name]
    return [single for i, pair in enumerate(plan(people, seed)) for single in make(i, pair)]


def _scratch(_, pair):
    row = pair.attributes("right")
    about = {key: row[key] for key in ATTRIBUTES if key not in ("image_id", "identity", "side")}
    return [Single(pair, "right", pair.actions("right"), None, about | {"pain": pair.pain})]


def _control(place, pair):
    relief = (pair.pain + place // len(CELLS)) % 2  # as often the other as the same
    about = {"geometry": pair.pain, "relief": relief}
    return [Single(pair, "right", pair.actions("right"), pair.actions("relief", relief), about)]


def _cues(_, pair):
    """The two 2 x 2 tables, which share neutral and pain, and single units at three doses.

    A column is empty where the face is not of that table.
    """
    columns = ("geometry", "relief", "upper", "lower", "unit", "intensity")
    neutral, pain = actions_of({}), actions_of(SHOWN)
    upper = actions_of({unit: SHOWN[unit] for unit in UPPER})
    lower = actions_of({unit: value for unit, value in SHOWN.items() if unit not in UPPER})
    shown = [
        ("neutral", neutral, None, (0, 0, 0, 0, "", 0)),
        ("pain", pain, None, (1, 1, 1, 1, "", "")),
        ("geometry", pain, neutral, (1, 0, "", "", "", "")),
        ("relief", neutral, pain, (0, 1, "", "", "", "")),
        ("upper", upper, None, ("", "", 1, 0, "", "")),
        ("lower", lower, None, ("", "", 0, 1, "", "")),
    ]
    for unit in ALONE:
        for dose in DOSES:
            value = dose / 5 if unit == "AU43" else dose
            row = ("", "", "", "", unit, dose)
            shown.append((f"{unit}-{dose}", actions_of({unit: value}), None, row))
    return [
        Single(pair, name, actions, relief, dict(zip(columns, row, strict=True)))
        for name, actions, relief, row in shown
    ]
