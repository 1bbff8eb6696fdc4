"""Trained runs asked about faces from another source."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from helpers.devices import pick_device, precision
from helpers.networks.models import choose_attention
from helpers.training.experiments import tabulate_predictions
from helpers.training.faces import FaceStore, load_faces
from helpers.training.inference import predict_alike
from helpers.training.runs import Run
from helpers.training.trained import is_distilled, trained_model


def predict_runs(runs: Iterable[Run], crops_dir: str | Path, device: str = "auto") -> pd.DataFrame:
    """Return every run's predictions on all faces of `crops_dir`, by the arithmetic of the run.

    One row a face and run: `arm` (the run's name) and `seed`, then the columns of
    `predictions.csv`. Raises `StudyError` for a run without its weights, or crops that cannot be
    read.
    """
    parts = []
    for run in runs:
        model = ready_model(run, pick_device(device))
        faces = load_faces(crops_dir, run.params["parameters"]["image_size"])
        parts.append(predictions_of(run, model, faces, faces.images))
    return pd.concat(parts, ignore_index=True)


def ready_model(run: Run, device: torch.device) -> nn.Module:
    """Return the trained network of `run`, set to compute as it did at the end of the run."""
    model = trained_model(run, device)
    choose_attention(model, device, precision(device, run.params["parameters"]["amp"]))
    return model


def predictions_of(
    run: Run, model: nn.Module, faces: FaceStore, images: torch.Tensor
) -> pd.DataFrame:
    """Return what `run`'s `model` says of `images`, (N, 3, S, S) uint8, one for each of `faces`.

    `arm` and `seed`, then the columns of `predictions.csv`, one row a face. `model`: of
    `ready_model`; of faces that the run has scored it says what the run has said.
    """
    chosen = run.params["parameters"]
    dtype = precision(next(model.parameters()).device, chosen["amp"])
    logits = predict_alike(model, images, chosen["image_size"], dtype)
    table = tabulate_predictions(faces, logits, is_distilled(run))
    table.insert(0, "arm", run.name)
    table.insert(1, "seed", run.seed)
    return table
