"""What each ablation does to the study's students, on the primary endpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from helpers.evaluation.ablations import FOLDER
from helpers.evaluation.compare import Panel, load_runs, make_panel
from helpers.evaluation.tables import Study, comparisons
from helpers.figures import teacher_of
from helpers.files import project_path, write_csv
from helpers.metrics import PRIMARY
from helpers.training.runs import Run

STUDY = "study"
_COLUMNS = "ablation kind first second seeds estimate low high".split()


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
