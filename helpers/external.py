"""Trained runs asked about faces from another source."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

from helpers.devices import pick_device, precision
from helpers.engine import predict
from helpers.errors import StudyError
from helpers.experiments import tabulate_predictions
from helpers.faces import load_faces
from helpers.files import short_path
from helpers.models import build_student, build_teacher
from helpers.runs import Run


def predict_runs(runs: Iterable[Run], crops_dir: str | Path, device: str = "auto") -> pd.DataFrame:
    """Return every run's predictions on all faces of `crops_dir`.

    One row a face and run: `arm` (the run's name) and `seed`, then the columns of
    `predictions.csv`. Raises `StudyError` for a run without its weights, or crops that cannot be
    read.
    """
    parts = []
    for run in runs:
        chosen = run.params["parameters"]
        weights = run.folder / "model.safetensors"
        if not weights.is_file():
            raise StudyError(f"The run folder {short_path(run.folder)} lacks model.safetensors.")
        teacher = run.stage == "teacher"
        build, name = (build_teacher, run.name) if teacher else (build_student, chosen["student"])
        model, _ = build(name, "scratch", chosen["image_size"])
        model.load_state_dict(load_file(weights))
        model.to(pick_device(device))
        faces = load_faces(crops_dir, chosen["image_size"])
        dtype = precision(pick_device(device), chosen["amp"])
        logits = predict(model, faces.images, chosen["image_size"], dtype)
        distilled = chosen.get("distillation", "none") != "none"
        table = tabulate_predictions(faces, logits, distilled)
        table.insert(0, "arm", run.name)
        table.insert(1, "seed", run.seed)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)
