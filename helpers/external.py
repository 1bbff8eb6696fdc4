"""Trained runs asked about faces from another source."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from helpers.devices import pick_device, precision
from helpers.engine import predict
from helpers.experiments import tabulate_predictions
from helpers.faces import FaceStore, load_faces
from helpers.inference import predict_alike
from helpers.models import choose_attention
from helpers.runs import Run
from helpers.trained import is_distilled, trained_model


def predict_runs(runs: Iterable[Run], crops_dir: str | Path, device: str = "auto") -> pd.DataFrame:
    """Return every run's predictions on all faces of `crops_dir`, by the arithmetic of the run.

    One row a face and run: `arm` (the run's name) and `seed`, then the columns of
    `predictions.csv`. Raises `StudyError` for a run without its weights, or crops that cannot be
    read.
    """
    parts = []
    for run in runs:
        where = pick_device(device)
        model = trained_model(run, where)
        choose_attention(model, where, precision(where, run.params["parameters"]["amp"]))
        faces = load_faces(crops_dir, run.params["parameters"]["image_size"])
        parts.append(predictions_of(run, model, faces, faces.images, predict_alike))
    return pd.concat(parts, ignore_index=True)


def predictions_of(
    run: Run,
    model: nn.Module,
    faces: FaceStore,
    images: torch.Tensor,
    ask: Callable[..., torch.Tensor] = predict,
) -> pd.DataFrame:
    """Return what `run`'s `model` says of `images`, (N, 3, S, S) uint8, one for each of `faces`.

    `arm` and `seed`, then the columns of `predictions.csv`, one row a face. `ask`: `predict`, or
    `predict_alike`.
    """
    chosen = run.params["parameters"]
    dtype = precision(next(model.parameters()).device, chosen["amp"])
    logits = ask(model, images, chosen["image_size"], dtype)
    table = tabulate_predictions(faces, logits, is_distilled(run))
    table.insert(0, "arm", run.name)
    table.insert(1, "seed", run.seed)
    return table
