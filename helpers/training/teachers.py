"""Those who answer for the teacher while a student learns: frozen, by fold, or shuffled.

A teacher is called with the student's own views and says what it makes of them: `FrozenTeacher`,
or `FoldTeachers` and `ShuffledTeacher` around it. Whatever can be called so can teach, see
`Teacher`.
"""

from copy import deepcopy
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.devices import autocast, precision
from helpers.errors import StudyError
from helpers.files import short_path
from helpers.networks.models import head_logits
from helpers.networks.packed import PackedResNet, can_pack
from helpers.training.faces import FaceStore
from helpers.training.runs import Run, read_run
from helpers.training.trained import trained_model

FOLDS = 3


class Teacher(Protocol):
    """What the training loop asks of a teacher."""

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`."""


def read_teacher(parameters: SimpleNamespace) -> Run:
    """Read the run in `teacher_dir`; raise `StudyError` where it is not that teacher's."""
    run = read_run(parameters.teacher_dir)
    folder = short_path(run.folder)
    if (run.stage, run.name) != ("teacher", parameters.teacher):
        raise StudyError(
            f"The run folder {folder} holds the {run.stage} {run.name}, not the teacher "
            f"{parameters.teacher}."
        )
    if not (run.folder / "model.safetensors").is_file():
        raise StudyError(f"The run folder {folder} lacks model.safetensors.")
    trained_at = run.params["parameters"]["image_size"]
    if trained_at != parameters.image_size:
        raise StudyError(
            f"The teacher in {folder} was trained at {trained_at} pixels and the student's "
            f"image_size is {parameters.image_size}: both must see the same view."
        )
    return run


class FrozenTeacher:
    """A trained teacher that never changes: evaluation mode, no gradients.

    Args:
        run: its finished run.
        device: where it answers.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        chosen = run.params["parameters"]
        self.model = trained_model(run, device).requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        self.device, self.dtype = device, precision(device, chosen["amp"])
        self.margin = 0.0

    def use(self, dtype: torch.dtype, margin: float = 0.0) -> "FrozenTeacher":
        """Answer in `dtype` from now on, and return the teacher; see `low_precision`.

        A logit closer to 0 than `margin` is computed again in float32.
        """
        self.dtype, self.margin = dtype, margin
        if dtype == torch.float32:
            return self
        if margin:
            self.exact = deepcopy(self.model)
        if self.device.type == "cpu" and dtype == torch.bfloat16 and can_pack(self.model):
            self.model = PackedResNet(self.model)
            return self
        # Autocast would cast these weights anew at every step, to the same values.
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
        return self

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views; `rows` is not needed here."""
        with torch.inference_mode():
            with autocast(self.device, self.dtype):
                logits = head_logits(self.model, images)[:, 0].float()
            close = logits.abs() < self.margin if self.margin else None
            if close is not None and close.any():
                logits[close] = head_logits(self.exact, images[close])[:, 0]
        return logits.clone()  # out of inference mode, so that a loss may keep it


class FoldTeachers:
    """Teachers of which each answers for the faces that it was not trained on."""

    def __init__(self, teachers: list[FrozenTeacher], folds: np.ndarray) -> None:
        self.teachers, self.folds = teachers, folds

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`."""
        logits = torch.empty(len(rows), device=images.device)
        for fold, teacher in enumerate(self.teachers):
            mine = np.flatnonzero(self.folds[rows] == fold)
            if len(mine):
                where = torch.from_numpy(mine).to(images.device, non_blocking=True)
                logits[where] = teacher(images[where], rows[mine])
        return logits


class ShuffledTeacher:
    """A control: a teacher whose answers are dealt out at random among the faces of the batch.

    The student gets as many answers of each kind, and none of them tells it anything of its face:
    what it still gains, it gains from being taught, not from what the teacher knows.

    Args:
        teacher: who answers.
        seed: the run's. With the rows of the batch, which are drawn by seed, epoch and step, it
            determines who gets whose answer, so a resumed run deals as the undisturbed one.
    """

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self.teacher, self.seed = teacher, seed

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`, permuted."""
        order = np.random.default_rng([self.seed, *rows]).permutation(len(rows))
        places = torch.from_numpy(order).to(images.device, non_blocking=True)
        return self.teacher(images, rows)[places]


def fold_of(faces: FaceStore) -> np.ndarray:
    """Return the fold of every face, (N,): training identities dealt out in turn, others -1."""
    train = (faces.table["split"] == "train").to_numpy()
    folds = np.full(len(faces.table), -1)
    folds[train] = pd.factorize(faces.table.loc[train, "identity"], sort=True)[0] % FOLDS
    return folds
