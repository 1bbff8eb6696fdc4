"""What chapter 5 shows of the networks' insides: layers that are alike, and where they look."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image

from helpers.bootstrap import Estimate
from helpers.errors import StudyError
from helpers.evaluation.kept import kept_table
from helpers.evaluation.tables import Study
from helpers.figures import save_fig
from helpers.files import project_path, write_csv
from helpers.inside import plots as inside_plots
from helpers.inside.attribution import (
    Attribution,
    attribute,
    attribution_ratios,
    attribution_table,
    examples,
)
from helpers.inside.cka import cka_table
from helpers.training.runs import Run

_DIGITS = 6


@dataclass(frozen=True)
class Inside:
    """Tables that were made from the trained weights, or kept since.

    `cka`: see `cka.cka_table`. `ratios`: see `attribution.attribution_ratios`. `shares`: see
    `attribution.attribution_table`. `missing`: why there is nothing, or empty.
    """

    cka: pd.DataFrame
    ratios: dict[tuple[str, str, str], Estimate]
    shares: pd.DataFrame
    missing: str = ""


def look_inside(study: Study, results_dir: str | Path, samples: int, seed: int) -> Inside:
    """Return what the networks hold, and keep it in `results_dir`.

    Nothing, and why, where neither the weights nor kept tables are there, or the test faces are too
    few. `samples`, `seed`: of the bootstrap.
    """
    folder, crops_dir = project_path(results_dir), study.runs[0].params["crops_dir"]
    try:
        cka = kept_table(
            folder / "cka.csv.gz",
            study.runs,
            lambda: cka_table(study.runs, crops_dir).round(_DIGITS),
        )
        faces = kept_table(
            folder / "attribution_faces.csv.gz",
            study.runs,
            lambda: attribute(study.runs, crops_dir).faces.round(_DIGITS),
        )
    except StudyError as error:
        return _nothing(str(error))
    if cka is None or faces is None:
        return _nothing("The weights of these runs are not on this machine, so nothing is shown.")
    undetected = int(study.test.positive.sum()) - faces["image_id"].nunique()
    found = Attribution(faces, undetected)
    shares = attribution_table(found)
    write_csv(folder / "attribution.csv", shares)
    return Inside(cka, attribution_ratios(found, samples, seed), shares)


def _nothing(why: str) -> Inside:
    return Inside(pd.DataFrame(), {}, pd.DataFrame(), why)


def _has_weights(runs: list[Run]) -> bool:
    return all((run.folder / "model.safetensors").is_file() for run in runs)


def gallery(study: Study, figures_dir: str | Path, name: str) -> Image | None:
    """Return a picture of the first seed's maps on a few Pain faces, as a notebook shows it.

    It is drawn where the weights are, and otherwise the one that was drawn before is shown; None
    where there is neither.
    """
    path = project_path(figures_dir) / f"{name}.png"
    seed = min(run.seed for run in study.runs)
    runs = [run for run in study.runs if run.seed == seed]
    if _has_weights(runs):
        fig = inside_plots.gallery(examples(runs, runs[0].params["crops_dir"]))
        save_fig(fig, figures_dir, name)
        plt.close(fig)
    return Image(filename=str(path)) if path.is_file() else None
