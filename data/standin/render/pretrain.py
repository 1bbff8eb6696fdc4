"""Faces to start from: other people, every facial action over its whole range.

The identities come from streams that no pair of the study uses. Each person is shown several
times, every time with another random mixture of facial actions, in another shot.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .dataset import encode, write_whole
from .expressions import UNITS, actions_of, draw_free_units, pspi, units_of
from .identities import AGES, GENDERS, draw_identity
from .phenotypes import ETHNICITIES
from .shots import draw_setting, draw_shot

STREAM = 900_001  # above every serial number: keeps these people apart from the study's


@dataclass(frozen=True)
class Face:
    """One picture to be: the seed, the number of the person and of the expression."""

    seed: int
    person: int
    expression: int

    def stream(self, name, of_person=False):
        """The generator of one aspect, of this picture or shared by the person's pictures."""
        key = [self.seed, STREAM, self.person, name]
        return np.random.default_rng(key if of_person else [*key, self.expression])

    @property
    def cell(self):
        """Gender, age and ethnicity as indices; the people go round the twenty cells."""
        return self.person % 2, self.person // 2 % 2, self.person // 4 % len(ETHNICITIES)

    @property
    def file_name(self):
        """Person and expression; there is no label in it."""
        return f"p{self.person:05d}_{self.expression:02d}.jpg"

    def actions(self):
        """Facial action weights."""
        rng = self.stream(1)
        return actions_of(draw_free_units(rng), rng)

    def attributes(self):
        """Targets: demographics, action units, facial actions, PSPI."""
        gender, age, ethnicity = self.cell
        actions = self.actions()
        units = units_of(actions)
        return {
            "image_id": self.file_name.removesuffix(".jpg"),
            "identity": f"p{self.person:05d}",
            "gender": GENDERS[gender],
            "age": AGES[age],
            "ethnicity": ETHNICITIES[ethnicity].name,
            **{u: units[u] for u in UNITS},
            "pspi": round(pspi(units), 3),
            **{name: round(weight, 4) for name, weight in sorted(actions.items())},
        }


def plan(identities, expressions, seed):
    """All faces of the pretraining set."""
    return [Face(seed, p, e) for p in range(identities) for e in range(expressions)]


def write_face(face, renderer, folder):
    """Render a face into `folder`: a picture of the size of a half, to be cropped like one."""
    gender, age, ethnicity = face.cell
    identity = draw_identity(face.stream(2, of_person=True), GENDERS[gender], AGES[age], ethnicity)
    setting = draw_setting(face.stream(3))
    shot = draw_shot(face.stream(4), setting)
    picture = Image.fromarray(renderer.render(identity, face.actions(), shot, setting))
    write_whole(Path(folder) / face.file_name, encode(picture, face.stream(5)))
