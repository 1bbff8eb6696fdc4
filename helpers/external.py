"""Trained runs asked about faces from another source."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.devices import pick_device, precision
from helpers.engine import predict
from helpers.errors import StudyError
from helpers.experiments import tabulate_predictions
from helpers.faces import FaceStore, load_faces
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
        model = trained_model(run, device)
        faces = load_faces(crops_dir, run.params["parameters"]["image_size"])
        parts.append(predictions_of(run, model, faces, faces.images))
    return pd.concat(parts, ignore_index=True)


def weights_of(run: Run) -> Path:
    """Return the path of a run's weights; raise `StudyError` where they are missing."""
    weights = run.folder / "model.safetensors"
    if not weights.is_file():
        raise StudyError(f"The run folder {short_path(run.folder)} lacks model.safetensors.")
    return weights


def trained_model(run: Run, device: str = "auto") -> nn.Module:
    """Return the model that `run` trained, on `device`."""
    chosen, weights = run.params["parameters"], weights_of(run)
    teacher = run.stage == "teacher"
    build, name = (build_teacher, run.name) if teacher else (build_student, chosen["student"])
    model, _ = build(name, "scratch", chosen["image_size"])
    model.load_state_dict(load_file(weights))
    return model.to(pick_device(device))


def predictions_of(
    run: Run, model: nn.Module, faces: FaceStore, images: torch.Tensor
) -> pd.DataFrame:
    """Return what `run`'s `model` says of `images`, (N, 3, S, S) uint8, one for each of `faces`.

    `arm` and `seed`, then the columns of `predictions.csv`, one row a face.
    """
    chosen = run.params["parameters"]
    dtype = precision(next(model.parameters()).device, chosen["amp"])
    logits = predict(model, images, chosen["image_size"], dtype)
    distilled = chosen.get("distillation", "none") != "none"
    table = tabulate_predictions(faces, logits, distilled)
    table.insert(0, "arm", run.name)
    table.insert(1, "seed", run.seed)
    return table
