"""What chapter 5 shows of inheritance: corrupted faces, shared errors, the dose of pain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.evaluation.compare import HEADS, Panel
from helpers.evaluation.kept import kept_table
from helpers.evaluation.tables import Study
from helpers.files import project_path, write_csv
from helpers.inheritance.consistency import consistency_table, surplus_table
from helpers.inheritance.dose import dose_table, read_pspi, response_table
from helpers.inheritance.robustness import (
    VERSION,
    inherited_table,
    predict_corrupted,
    rank_correlations,
    robustness_panel,
    robustness_table,
)

_KEPT = ["arm", "seed", "corruption", "strength", "image_id", "probability"]
_DIGITS = 5


@dataclass(frozen=True)
class Inheritance:
    """What a student may have from its teacher.

    `corrupted`: the panel of `robustness_panel`; None where neither weights nor kept predictions
    are there. `pspi`: of each test face, None for faces without it. `tables`: by name.
    """

    corrupted: Panel | None
    pspi: np.ndarray | None
    tables: dict[str, pd.DataFrame]


def inherit(
    study: Study, runs_dir: str | Path, results_dir: str | Path, samples: int, seed: int
) -> Inheritance:
    """Build the tables and write them to `results_dir`; `samples`, `seed`: of the bootstrap.

    The predictions on corrupted faces are made where the weights are, and kept in `results_dir`.
    """
    results_dir, crops_dir = project_path(results_dir), study.runs[0].params["crops_dir"]
    tables = {
        "error_consistency": consistency_table(study.test),
        "error_surplus": surplus_table(study.test),
    }
    pspi = read_pspi(study.test.faces)
    if pspi is not None:
        tables["dose"] = dose_table(study.test, pspi)
        tables["dose_response"] = response_table(study.test, pspi)
    kept = kept_table(
        results_dir / "corrupted_predictions.csv.gz",
        study.runs,
        lambda: predict_corrupted(study.runs, crops_dir, project_path(runs_dir) / "corrupted")[
            _KEPT
        ].round(_DIGITS),
        VERSION,
    )
    panel = None
    if kept is not None:
        faces = kept.merge(study.test.faces, on="image_id")
        panel = robustness_panel(faces.assign(**{h: faces["probability"] for h in HEADS}),
                                 samples, seed)  # fmt: skip
        tables["robustness"] = robustness_table(panel)
        tables["inherited"] = inherited_table(panel)
        tables["inherited_ranks"] = rank_correlations(tables["inherited"])
    for name, table in tables.items():
        write_csv(results_dir / f"{name}.csv", table)
    return Inheritance(panel, pspi, tables)
