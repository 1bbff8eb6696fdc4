"""How much of a model's AUROC is left on faces that are harder to read, and who shares the loss.

A drop is the AUROC on the faces as they are minus that on the same faces corrupted, so it is
paired over identities and seeds. A model near chance has little to lose: its drops are small for
that reason alone, and are to be read beside its clean AUROC.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn
from tqdm import tqdm

from helpers.bootstrap import Estimate, Seeds, identity_weights
from helpers.devices import pick_device
from helpers.evaluation.compare import FACE_COLUMNS, HEADS, Panel, panel_of
from helpers.evaluation.external import predictions_of, ready_model
from helpers.evaluation.tables import comparisons
from helpers.figures import teacher_of
from helpers.files import project_path, read_csv, sha256, write_csv
from helpers.inheritance.corruptions import CLEAN, STRENGTHS, conditions, corrupt
from helpers.training.faces import FaceStore, load_faces
from helpers.training.runs import Run
from helpers.training.trained import weights_of

CONTRASTS = ("expressive", "all")
_COLUMNS = ["arm", "seed", "corruption", "strength", *FACE_COLUMNS, *HEADS]
VERSION = 2  # of corruptions and scoring; a change of them makes old parts count for nothing


def predict_corrupted(
    runs: Iterable[Run],
    crops_dir: str | Path,
    parts_dir: str | Path,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Return every run's predictions on the test faces under each of `corruptions.conditions`.

    One row a run, condition and face: arm, seed, corruption, strength (0 for the faces as they
    are, then 1 to 3), the face's columns and those of `HEADS`. `seed` is that of the corruptions.
    Each run and condition is written to a file below `parts_dir` when it is done, and read from
    there the next time, as long as weights, crops and seed are the same. Raises `StudyError` for
    a run without its weights, and crops that cannot be read, lack landmarks or have no test face.
    """
    runs = list(runs)
    sizes = [run.params["parameters"]["image_size"] for run in runs]
    stores = {size: load_faces(crops_dir, size, "test") for size in set(sizes)}
    folders = [
        _folder(project_path(parts_dir), run, stores[size], seed)
        for run, size in zip(runs, sizes, strict=True)
    ]
    files = [[folder / f"{name}-{level}.csv" for name, level in conditions()] for folder in folders]
    models: dict[int, nn.Module] = {}
    total = len(runs) * len(conditions())
    with tqdm(total=total, desc="Corruptions", unit="set", disable=None) as bar:
        # A corruption is made once for all runs: some take longer than to ask a model.
        for place, (name, level) in enumerate(conditions()):
            images: dict[int, torch.Tensor] = {}
            for number, (run, size) in enumerate(zip(runs, sizes, strict=True)):
                path, faces = files[number][place], stores[size]
                if not path.is_file():
                    if number not in models:
                        models[number] = ready_model(run, pick_device(device))
                    if size not in images:
                        images[size] = corrupt(faces.images, faces.table, name, level, seed)
                    found = predictions_of(run, models[number], faces, images[size])
                    write_csv(path, found.assign(corruption=name, strength=level)[_COLUMNS])
                bar.update()
    return pd.concat([read_csv(path) for paths in files for path in paths], ignore_index=True)


def _folder(parts_dir: Path, run: Run, faces: FaceStore, seed: int) -> Path:
    """Return the folder of a run's parts, whose name tells all that decides what is in them."""
    rest = [VERSION, STRENGTHS, sha256(weights_of(run)), faces.manifest_sha256, seed]
    key = hashlib.sha256(repr(rest).encode()).hexdigest()[:12]
    return parts_dir / run.name / f"seed{run.seed}-{key}"


def robustness_panel(predictions: pd.DataFrame, samples: int, seed: int) -> Panel:
    """Return a panel whose heads are conditions (`eyes-2`), with the decision's P(pain) in each.

    `predictions`: of `predict_corrupted`. So all conditions share faces and draws. Raises
    `StudyError` where an arm lacks a face or a condition.
    """
    panels = {
        f"{name}-{level}": panel_of(table, 1, seed)
        for (name, level), table in predictions.groupby(["corruption", "strength"], sort=False)
    }
    first = panels[f"{CLEAN}-0"]
    probabilities = {
        arm: {key: panel.probabilities[arm]["probability"] for key, panel in panels.items()}
        for arm in first.arms
    }
    weights = identity_weights(first.faces["identity"].to_numpy(), samples, seed)
    return Panel(first.faces, probabilities, first.seeds, weights)


def auroc(panel: Panel, arm: str, contrast: str, name: str, level: int) -> Estimate:
    """Return an arm's AUROC in one condition of a `robustness_panel`."""
    return panel.auroc(arm, contrast, f"{name}-{level}")


def drop(panel: Panel, arm: str, contrast: str, name: str, level: int | None = None) -> Estimate:
    """Return what a corruption costs an arm in AUROC; without `level`, the mean over levels."""
    levels = (1, 2, 3) if level is None else (level,)
    clean = auroc(panel, arm, contrast, CLEAN, 0)
    return _mean([clean - auroc(panel, arm, contrast, name, level) for level in levels])


def _mean(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates of the same runs on the same draws."""
    luck = tuple(
        Seeds(
            np.mean([found.values for found in sets], axis=0),
            np.mean([found.draws for found in sets], axis=0),
        )
        for sets in zip(*(part.luck for part in parts), strict=True)
    )
    return replace(
        parts[0],
        value=float(np.mean([part.value for part in parts])),
        draws=np.mean([part.draws for part in parts], axis=0),
        seeds=tuple(np.mean([part.seeds for part in parts], axis=0).tolist()),
        luck=luck,
    )


def robustness_table(panel: Panel) -> pd.DataFrame:
    """Return AUROC and its drop with intervals, one row an arm, contrast, corruption, strength."""
    rows = []
    for arm in panel.arms:
        for contrast in CONTRASTS:
            for name, level in conditions():
                row = {"arm": arm, "contrast": contrast, "corruption": name, "strength": level}
                row |= auroc(panel, arm, contrast, name, level).row()
                lost = drop(panel, arm, contrast, name, level).row()
                rows.append(row | {f"drop_{key}": value for key, value in lost.items()})
    return pd.DataFrame(rows)


def extra_drop(panel: Panel, first: str, second: str, contrast: str, name: str) -> Estimate:
    """Return the drop of `first` minus that of `second`, the mean over levels.

    Paired over identities, and over seeds where both arms have the same ones.
    """
    a, b = (drop(panel, arm, contrast, name) for arm in (first, second))
    return a - b if panel.seeds[first] == panel.seeds[second] else a.unpaired(b)


def pupil_pairs(panel: Panel) -> list[tuple[str, str, str, str]]:
    """Return (teacher, teacher, pupil, pupil) for each two pupils whose teachers are both there.

    First and second as in `tables.comparisons`: Swin's before ResNet's.
    """
    return [
        (teacher_of(first), teacher_of(second), first, second)
        for kind, first, second in comparisons(panel)
        if kind == "taught" and {teacher_of(first), teacher_of(second)} <= set(panel.teachers)
    ]


def inherited_table(panel: Panel) -> pd.DataFrame:
    """Return for each corruption how much more it costs one teacher, and one teacher's pupil.

    `teachers_*`: drop of `first_teacher` minus that of `second_teacher`, the mean over levels.
    `pupils_*`: the same for their pupils. One row a pair of pupils, contrast and corruption.
    """
    rows = []
    for *teachers, first, second in pupil_pairs(panel):
        for contrast in CONTRASTS:
            for name in STRENGTHS:
                row = {"first": first, "second": second}
                row |= {"first_teacher": teachers[0], "second_teacher": teachers[1]}
                row |= {"contrast": contrast, "corruption": name}
                for who, pair in (("teachers", teachers), ("pupils", (first, second))):
                    found = extra_drop(panel, *pair, contrast, name)
                    row |= {f"{who}_{key}": value for key, value in found.row().items()}
                rows.append(row)
    keys = [f"{who}_{key}" for who in ("teachers", "pupils") for key in ("estimate", "low", "high")]
    columns = "first second first_teacher second_teacher contrast corruption".split()
    return pd.DataFrame(rows, columns=[*columns, *keys])


def rank_correlations(inherited: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's ρ over corruptions between the teachers' and the pupils' difference.

    `inherited`: see `inherited_table`. Columns first, second, contrast, corruptions, rho. It
    describes: the corruptions are a handful, chosen by hand, and no sample of any population.
    """
    rows = []
    for (first, second, contrast), part in inherited.groupby(
        ["first", "second", "contrast"], sort=False
    ):
        known = part[["teachers_estimate", "pupils_estimate"]].dropna().to_numpy()
        varied = len(known) > 2 and (np.ptp(known, axis=0) > 0).all()
        rho = float(spearmanr(*known.T).statistic) if varied else np.nan
        row = {"first": first, "second": second, "contrast": contrast}
        rows.append(row | {"corruptions": len(known), "rho": rho})
    return pd.DataFrame(rows, columns=["first", "second", "contrast", "corruptions", "rho"])
