"""The study again with one thing changed, and what that does to its students.

An ablation is a file in `config/ablations` that holds only what departs from the study's config.
Its runs lie below the study's, in `ablations/<name>/`; what it leaves alone it shares.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import yaml

from helpers.compare import Panel, load_runs, make_panel
from helpers.errors import StudyError
from helpers.figures import teacher_of
from helpers.files import project_path, short_path, write_csv
from helpers.parameters import NOTEBOOKS, check_config
from helpers.readings import PRIMARY
from helpers.runs import Run
from helpers.tables import Study, comparisons

FOLDER = "ablations"
STUDY = "study"
# What only a taught student reads: changing it leaves teachers and untaught students as they are.
_TEACHING = {"distillation", "temperature", "teacher_labels", "allow_weak_teacher"}
_COLUMNS = "ablation kind first second seeds estimate low high".split()


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


def load_ablations(runs_dir: str | Path) -> dict[str, list[Run]]:
    """Return the finished ablations below `runs_dir`, each with its runs, by name.

    A run folder without `metrics.json` is not finished and is left out.
    """
    root = project_path(runs_dir) / FOLDER
    return {
        folder.name: load_runs(folder)
        for folder in sorted(root.glob("*"))
        if any(folder.glob("*/*/seed*/metrics.json"))
    }


def compare_ablations(
    study: Study, runs_dir: str | Path, results_dir: str | Path, samples: int, seed: int
) -> pd.DataFrame:
    """Return `ablation_table` of the ablations below `runs_dir`; write it as ablations.csv."""
    table = ablation_table(study.runs, load_ablations(runs_dir), samples, seed)
    write_csv(project_path(results_dir) / "ablations.csv", table)
    return table


def ablation_table(
    study: Iterable[Run], ablations: Mapping[str, list[Run]], samples: int, seed: int
) -> pd.DataFrame:
    """Return the primary endpoint, AUROC of `PRIMARY`, of every ablation beside the study's.

    One row a number. `kind` is `arm` (a student's AUROC), `taught` (two teachers' pupils, `first`
    minus `second`) or `change` (a student minus the study's student under the same teacher).
    Intervals are paired over identities, and over the `seeds` that the ablation has. The study
    itself comes first, as the ablation `study`. `samples`, `seed`: of the bootstrap.
    """
    students = [run for run in study if run.stage == "student"]
    rows = _rows(STUDY, students, samples, seed)
    for name, runs in ablations.items():
        changed = [run for run in runs if run.stage == "student"]
        rows += _rows(name, changed, samples, seed)
        seeds = {run.seed for run in changed}
        both = [_of_the_study(run) for run in students if run.seed in seeds] + changed
        panel = make_panel(both, samples, seed)
        for arm in dict.fromkeys(run.name for run in changed):
            twins = [a for a in panel.arms if a.startswith(f"{STUDY}:")]
            twins = [a for a in twins if teacher_of(a) == teacher_of(arm)]
            if twins:
                twin = f"{STUDY}:{arm}" if f"{STUDY}:{arm}" in twins else twins[0]
                found = panel.difference(arm, twin, PRIMARY, "auroc").row()
                second = twin.partition(":")[2]
                rows.append(_row(name, "change", arm, second, len(panel.seeds[arm])) | found)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_the_study(run: Run) -> Run:
    return replace(run, params={**run.params, "name": f"{STUDY}:{run.name}"})


def _rows(ablation: str, students: list[Run], samples: int, seed: int) -> list[dict]:
    if not students:
        return []
    panel: Panel = make_panel(students, samples, seed)
    rows = [
        _row(ablation, "arm", arm, "", len(panel.seeds[arm]))
        | panel.estimates(arm, PRIMARY)["auroc"].row()
        for arm in panel.arms
    ]
    return rows + [
        _row(ablation, kind, first, second, len(panel.seeds[first]))
        | panel.difference(first, second, PRIMARY, "auroc").row()
        for kind, first, second in comparisons(panel)
        if kind == "taught"
    ]


def _row(ablation: str, kind: str, first: str, second: str, seeds: int) -> dict:
    return {"ablation": ablation, "kind": kind, "first": first, "second": second, "seeds": seeds}
