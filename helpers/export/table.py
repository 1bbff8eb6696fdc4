"""Teachers and students in torch, ONNX and int8, in one table: what is lost and what is saved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.evaluation.compare import FACE_COLUMNS, HEADS, Panel, panel_of
from helpers.evaluation.kept import kept_table
from helpers.export.cost import (
    FORMS,
    PUBLISHED,
    architecture_of,
    macs_as_published,
    onnx_call,
    time_forms,
    torch_call,
)
from helpers.export.int8 import quantise_run, read_crops
from helpers.export.onnx_file import export_run
from helpers.files import project_path, sha256, short_path
from helpers.predict.in_torch import spec_of_run
from helpers.training.faces import read_manifest
from helpers.training.runs import Run, provenance

# What a form is held against: ONNX against torch in float32, int8 against ONNX in float32.
AGAINST = {"onnx": "torch", "int8": "onnx"}
MEASURES = (
    *(("accuracy", "all"), ("auroc", "all"), ("auroc", "expressive")),
    *(("brier", "all"), ("ece", "all")),
)
_BATCH = 32


def export_table(
    runs: Sequence[Run],
    work: Path,
    samples: int,
    seed: int,
    crops_dir: str | Path | None = None,
    seconds: float = 1.0,
) -> pd.DataFrame:
    """Return one row an arm and form (`FORMS`).

    `parameters`, `macs` at the run's image size, `macs_224` with the published figure beside it,
    `megabytes` of the file; `ms_1`, `ms_2` and `images_per_second_1`, `_2` by threads, as
    `export_cost.time_forms` has them, of one run an architecture; each of `MEASURES` on the test
    faces with its interval, and its change against the form in `against`; `largest_difference` in
    P(pain) from that form, for torch from the run's own predictions; `changed_decisions`, their
    share. Exports and scores are kept in `work`, and found there by the next call.

    Args:
        runs: teachers and students, with their weights.
        work: the folder for the exports, a folder a run.
        samples: of the bootstrap over identities.
        seed: of it.
        crops_dir: where the runs' crops are now, if not where they were.
        seconds: that each timing may take.

    Raises:
        StudyError: for a run without weights, or crops that are not the run's.
    """
    scores, files = [], {}
    for run in tqdm(runs, desc="Exporting and scoring", unit="run"):
        folder = work / run.stage / run.name / f"seed{run.seed}"
        onnx = export_run(run, folder, crops_dir)
        files[run.name] = {"onnx": onnx, "int8": quantise_run(run, onnx, crops_dir)}
        scores.append(_kept_scores(run, folder, files[run.name], crops_dir))
    predictions = pd.concat(scores, ignore_index=True)
    panel = panel_of(predictions.drop(columns="own"), samples, seed)
    first = {architecture_of(run): run for run in reversed(runs)}
    times = {
        name: time_forms(run, files[run.name], seconds).set_index(["form", "threads"])
        for name, run in tqdm(first.items(), desc="Timing", unit="architecture")
    }
    arms = {run.name: run for run in reversed(runs)}
    machine = provenance(torch.device("cpu"))["device"]
    rows = []
    for arm in dict.fromkeys(run.name for run in runs):
        run = arms[arm]
        for form in FORMS:
            size = _size_of(run, files[arm], form)
            row = {"arm": arm, "form": form, "against": AGAINST.get(form)}
            row |= _cost(run, times[architecture_of(run)].loc[form]) | {"megabytes": size}
            row |= _quality(panel, arm, form) | _differences(predictions, arm, form)
            rows.append(row | {"machine": machine})
    return pd.DataFrame(rows)


def score_forms(
    run: Run, paths: dict[str, Path], crops_dir: str | Path | None = None
) -> pd.DataFrame:
    """Return what each form says of the run's test faces, one row a face and form.

    The columns of `predictions.csv`, `arm` (`<run's name> <form>`), `seed`, and `own`, what the
    run itself had said. Raises `StudyError` where the crops are not those of the run.
    """
    spec = spec_of_run(run, crops_dir)
    faces = run.predictions[run.predictions["split"] == "test"]
    crops = _crops_of(run, faces["image_id"], spec.side, crops_dir)
    calls = {"torch": torch_call(run, spec)} | {f: onnx_call(p) for f, p in paths.items()}
    parts = []
    for form, call in calls.items():
        starts = range(0, len(crops), _BATCH)
        found = np.concatenate([call(crops[start : start + _BATCH]) for start in starts])
        table = faces[FACE_COLUMNS].assign(**dict.fromkeys(HEADS, np.nan))
        table[list(spec.heads)] = found.astype(float)
        parts.append(
            table.assign(arm=f"{run.name} {form}", seed=run.seed, own=faces["probability"])
        )
    return pd.concat(parts, ignore_index=True)


def _kept_scores(
    run: Run, folder: Path, paths: dict[str, Path], crops_dir: str | Path | None
) -> pd.DataFrame:
    path = folder / "scores.csv"
    return kept_table(path, [run], lambda: score_forms(run, paths, crops_dir))


def _crops_of(
    run: Run, image_ids: pd.Series, side: int, crops_dir: str | Path | None
) -> np.ndarray:
    folder = project_path(crops_dir or run.params["crops_dir"])
    table = read_manifest(folder).set_index("image_id")
    if sha256(folder / "manifest.csv") != run.params["crops_sha256"]:
        raise StudyError(
            f"The crops in {short_path(folder)} are not those of {short_path(run.folder)}."
        )
    return read_crops([folder / path for path in table.loc[image_ids, "path"]], side)


def _size_of(run: Run, paths: dict[str, Path], form: str) -> float:
    path = paths.get(form, run.folder / "model.safetensors")
    return path.stat().st_size / 1e6


def _cost(run: Run, times: pd.DataFrame) -> dict:
    name = architecture_of(run)
    row = {"parameters": run.metrics["parameters"], "image_size": run.metrics["image_size"]}
    row |= {"macs": run.metrics["macs"], "macs_224": macs_as_published(name)}
    row |= {"published_macs_224": PUBLISHED[name][1]}
    for threads, found in times.iterrows():
        row |= {f"{column}_{threads}": found[column] for column in times.columns}
    return row


def _quality(panel: Panel, arm: str, form: str) -> dict:
    row = {"seeds": len(panel.seeds[f"{arm} {form}"]), "faces": len(panel.faces)}
    for metric, contrast in MEASURES:
        name = metric if contrast == "all" else f"{metric}_{contrast}"
        found = panel.estimates(f"{arm} {form}", contrast)[metric].row()
        if form in AGAINST:
            against = f"{arm} {AGAINST[form]}"
            change = panel.difference(f"{arm} {form}", against, contrast, metric).row()
            found |= {f"change_{key}": value for key, value in change.items()}
        row |= {f"{name}_{key}": value for key, value in found.items()}
    return row


def _differences(predictions: pd.DataFrame, arm: str, form: str) -> dict:
    """Return how far one form's P(pain) is from that of the form that it is held against."""
    key = ["seed", "image_id"]
    own = predictions[predictions["arm"] == f"{arm} {form}"].set_index(key)
    other = own["own"]
    if form in AGAINST:
        against = f"{arm} {AGAINST[form]}"
        other = predictions[predictions["arm"] == against].set_index(key)["probability"]
    mine, other = own["probability"].align(other, join="inner")
    return {
        "largest_difference": float((mine - other).abs().max()),
        "changed_decisions": float(((mine > 0.5) != (other > 0.5)).mean()),
    }
