"""The study again with one thing changed: which changes there are.

An ablation is a file in `config/ablations` that holds only what departs from the study's config.
Its runs lie below the study's, in `ablations/<name>/`; what it leaves alone it shares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from helpers.errors import StudyError
from helpers.files import project_path, short_path
from helpers.parameters import NOTEBOOKS, check_config

FOLDER = "ablations"
# What only a taught student reads: changing it leaves teachers and untaught students as they are.
_TEACHING = {"distillation", "temperature", "teacher_labels", "allow_weak_teacher"}


@dataclass(frozen=True)
class Ablation:
    """An ablation: its name and the parameters that depart from the study's."""

    name: str
    departures: Mapping

    @property
    def teaches_anew(self) -> bool:
        """Whether its teachers differ from the study's."""
        return bool(self._changed & set(NOTEBOOKS["03_train_teacher"]))

    @property
    def trains_untaught(self) -> bool:
        """Whether its student without a teacher differs from the study's."""
        return bool((self._changed - _TEACHING) & {*NOTEBOOKS["04_distill_student"], "students"})

    @property
    def _changed(self) -> set[str]:
        return set(self.departures)


def read_ablations(folder: str | Path, study: Mapping) -> list[Ablation]:
    """Return the ablations of `folder`, by name, checked against the config `study`.

    Raises `StudyError` for a file that is not a mapping, departs in nothing, names a parameter
    that no notebook has, or changes the faces (a parameter of chapters 1 or 2): these all runs of
    a study share.
    """
    found = []
    faces = set(NOTEBOOKS["01_prepare_dataset"] + NOTEBOOKS["02_crop_faces"]) - {"device"}
    for path in sorted(project_path(folder).glob("*.yaml")):
        departures = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = short_path(path)
        if not isinstance(departures, dict) or not departures:
            raise StudyError(f"{name} names nothing that departs from the study.")
        checked = check_config({**study, **departures}, name)
        if touched := sorted(faces & set(departures)):
            raise StudyError(f"{name}: an ablation shares the study's faces, so not {touched[0]}.")
        found.append(Ablation(path.stem, {key: checked[key] for key in departures}))
    return found
