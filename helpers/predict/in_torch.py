"""A run's network in torch, as it scored in the run."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from helpers.cropping.mtcnn import Cascade
from helpers.devices import one_thread, pick_device, precision
from helpers.files import sha256
from helpers.networks.models import CLASS, choose_attention, decision_logits
from helpers.predict.face_spec import (
    CLASS_HEAD,
    DECISION,
    DISTILLATION_HEAD,
    FaceSpec,
    crop_settings,
    heads_of,
    side_of,
)
from helpers.predict.faces import FaceFinder
from helpers.predict.predictor import Predictor
from helpers.training.inference import predict_alike
from helpers.training.runs import Run, read_run
from helpers.training.trained import is_distilled, trained_model, weights_of

_LEAST_CANDIDATES = 16


def torch_predictor(folder: Path, device: str) -> Predictor:
    """Return the network of the run in `folder`; raise `StudyError` where it lacks a file.

    It scores as the run did: in its precision, where the hardware has it, with its attention, and
    in bfloat16 in batches of its size, filled up where there are fewer faces. float32 in place of
    bfloat16 changes P(pain) by up to a hundredth, torch's fused attention by a thousandth, and so
    do batches of a few faces, for which other kernels round otherwise. With which others a face is
    scored changes nothing. (The last batch of a run may have been a smaller one.)
    """
    run = read_run(folder)
    spec, where = spec_of_run(run), pick_device(device)
    network = trained_model(run, where)
    dtype = precision(where, run.params["parameters"]["amp"])
    choose_attention(network, where, dtype)

    def score(images: np.ndarray) -> np.ndarray:
        crops = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        logits = predict_alike(network, crops, spec.image_size, dtype)
        return head_probabilities(logits, spec.heads)

    used, before = str(dtype).removeprefix("torch."), run.params["device"].partition(" ")[0]
    note = f"Scored in torch ({used}), as in the run."
    if (used, where.type) != (spec.precision, before):
        note = (
            f"Scored in torch ({used} on {where.type}); the run scored in {spec.precision} on "
            f"{before}, and probabilities may differ by a hundredth."
        )
    return Predictor(spec, "torch", score, lambda: torch_finder(device, spec), note, one_thread)


def torch_finder(device: str, spec: FaceSpec) -> FaceFinder:
    """Return the detector of chapter 2, for pictures that come one by one."""
    return FaceFinder(filled_cascade(pick_device(device)).eval(), spec.min_face_size)


def filled_cascade(device: torch.device) -> Cascade:
    """Return MTCNN's cascade, its networks never shown fewer than 16 candidates.

    Chapter 2 searches many pictures together. Of few candidates a processor sums in another order,
    which moves the box of one face in sixty by 0.01 pixels, and P(pain) by up to a hundredth.
    """
    cascade = Cascade(device)
    cascade.rnet, cascade.onet = _FilledUp(cascade.rnet), _FilledUp(cascade.onet)
    return cascade


class _FilledUp(nn.Module):
    """A network that is never shown fewer candidates than `_LEAST_CANDIDATES`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what the network says of `views` (k, 3, size, size) alone."""
        more = max(0, _LEAST_CANDIDATES - len(views))
        filled = torch.cat((views, views[-1:].expand(more, -1, -1, -1)))
        if views.is_contiguous(memory_format=torch.channels_last):
            filled = filled.contiguous(memory_format=torch.channels_last)
        return tuple(said[: len(views)] for said in self.network(filled))


def spec_of_run(run: Run, crops_dir: str | Path | None = None) -> FaceSpec:
    """Return how faces come to the network of `run`; raise `StudyError` without its weights.

    `crops_dir`: where the run's crops are now, if not where they were.
    """
    chosen = run.params["parameters"]
    settings = crop_settings(crops_dir or run.params["crops_dir"])
    return FaceSpec(
        model=run.name,
        seed=run.seed,
        heads=heads_of(run.stage, is_distilled(run)),
        image_size=chosen["image_size"],
        side=side_of(chosen["image_size"], settings["crop_size"]),
        weights_sha256=sha256(weights_of(run)),
        precision=run.params["precision"],
        **settings,
    )


def head_probabilities(logits: torch.Tensor, heads: tuple[str, ...]) -> np.ndarray:
    """Return P(pain) of each of `heads`, (N, heads) float32, from logits, (N, 1) or (N, 2)."""
    columns = {
        DECISION: decision_logits(logits, DISTILLATION_HEAD in heads),
        CLASS_HEAD: logits[:, CLASS],
        DISTILLATION_HEAD: logits[:, -1],
    }
    return torch.stack([columns[head] for head in heads], dim=1).sigmoid().numpy()
