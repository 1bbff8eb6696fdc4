"""The training loop of teachers and students: seeded, resumable after every epoch.

All randomness of an epoch is drawn from (seed, epoch): the order of the faces, their views and
torch's own generators. So a run that was killed and resumed gives what the undisturbed one gives.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm import tqdm

from helpers.augment import augment, draw_views, plain_view
from helpers.devices import autocast, precision
from helpers.errors import StudyError
from helpers.faces import FaceStore
from helpers.files import replacing
from helpers.losses import DISTILLATION_LOSSES, classification_loss, hard_labels
from helpers.models import CLASS, DISTILLATION, decision_logits, head_logits
from helpers.runs import identity_of

# One-cycle's share of warm-up: enough for Adam's second moments to settle.
_WARM_UP = 0.1
_EVALUATION_BATCH = 64


@dataclass
class Trainer:
    """One training run.

    Attributes:
        model: a teacher with one head or a student with two, on `device`.
        faces: all faces of the study.
        recipe: the notebook's parameters (`batch_size`, `learning_rate`, ... and `seed`).
        epochs: how many to train.
        folder: the run folder, for the checkpoint and the best weights.
        params: the run's `params.json`; a checkpoint of other parameters is not resumed.
        teacher: gives the (N,) logits for N views and their rows in `faces`; None without one.
        distillation: `hard` or `soft`, how the second head follows the teacher.
        train_rows: rows of `faces` to train on.
    """

    model: nn.Module
    faces: FaceStore
    recipe: SimpleNamespace
    epochs: int
    folder: Path
    params: dict
    teacher: Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None = None
    distillation: str = "hard"
    train_rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.dtype = precision(self.device, self.recipe.amp)
        if self.train_rows is None:
            self.train_rows = self.faces.rows("train")
        self.validation_rows = self.faces.rows("validation")
        self.steps = max(1, len(self.train_rows) // self.recipe.batch_size)
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.schedule = make_schedule(self.optimizer, self.recipe, self.steps * self.epochs)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.history: list[dict] = []
        self.best_epoch, self._best = 0, (-1.0, -float("inf"))

    @property
    def checkpoint(self) -> Path:
        """The file from which the run can be resumed."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The file of the best weights."""
        return self.folder / "model.safetensors"

    def fit(self) -> pd.DataFrame:
        """Train to the last epoch, from the last checkpoint where there is one.

        Leaves the model with its best weights (highest AUROC on validation, then lowest loss)
        and returns the history, one row an epoch. Raises `StudyError` where the loss is no
        longer finite.
        """
        self._resume()
        start = len(self.history)
        with tqdm(
            total=self.epochs * self.steps, initial=start * self.steps, mininterval=2, unit="step"
        ) as bar:
            for epoch in range(start + 1, self.epochs + 1):
                self.history.append(self._train_epoch(epoch, bar))
                self._keep_best(epoch)
                self._save()
        self.model.load_state_dict(load_file(self.weights, device=str(self.device)))
        return pd.DataFrame(self.history)

    def _train_epoch(self, epoch: int, bar: tqdm) -> dict:
        recipe, device = self.recipe, self.device
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        order = np.random.default_rng([recipe.seed, epoch, 0]).permutation(self.train_rows)
        views = draw_views(len(self.faces.table), recipe.seed, epoch)
        learning_rate = self.schedule.get_last_lr()[0]
        sums = torch.zeros(4, device=device)
        self.model.train()
        begin = time.perf_counter()
        for step in range(self.steps):
            rows = order[step * recipe.batch_size :][: recipe.batch_size]
            images = self.faces.images[rows].to(device, non_blocking=True)
            images = augment(images, views[rows].to(device), recipe.image_size)
            labels = self.faces.labels[rows].to(device)
            sums += self._step(images, labels, rows)
            bar.update()
        seconds = time.perf_counter() - begin
        loss, loss_class, loss_distillation, disagreement = (sums / self.steps).tolist()
        if not np.isfinite(loss):
            raise StudyError(
                f"The training loss is {loss} in epoch {epoch}: try a smaller learning_rate."
            )
        scores = self._validate()
        bar.set_postfix(
            epoch=epoch, loss=f"{loss:.3f}", validation_auroc=f"{scores['validation_auroc']:.3f}"
        )
        taught = self.teacher is not None
        return {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "seconds": seconds,
            "images_per_second": self.steps * recipe.batch_size / seconds,
            "train_loss": loss,
            "train_loss_class": loss_class,
            "train_loss_distillation": loss_distillation if taught else None,
            "teacher_disagreement": disagreement if taught else None,
            **scores,
        }

    def _step(self, images: torch.Tensor, labels: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """One optimiser step; returns loss, its two parts and the teacher's error rate, (4,)."""
        distillation_loss = disagreement = torch.zeros((), device=self.device)
        with autocast(self.device, self.dtype):
            logits = head_logits(self.model, images)
        loss_class = classification_loss(logits[:, CLASS], labels)
        if self.teacher is not None:
            teacher_logits = self.teacher(images, rows)
            distillation_loss = DISTILLATION_LOSSES[self.distillation](
                logits[:, DISTILLATION], teacher_logits
            )
            disagreement = (hard_labels(teacher_logits) != labels).float().mean()
        loss = loss_class + distillation_loss
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return torch.stack([loss, loss_class, distillation_loss, disagreement]).detach()

    def _validate(self) -> dict:
        rows = self.validation_rows
        logits = predict(self.model, self.faces.images[rows], self.recipe.image_size, self.dtype)
        decision = decision_logits(logits, self.teacher is not None)
        labels = self.faces.labels[rows]
        return {
            "validation_loss": classification_loss(decision, labels).item(),
            "validation_accuracy": ((decision > 0).float() == labels).float().mean().item(),
            "validation_auroc": auroc(labels, decision),
        }

    def _keep_best(self, epoch: int) -> None:
        scores = self.history[-1]
        area = scores["validation_auroc"]
        score = (0.0 if np.isnan(area) else area, -scores["validation_loss"])
        if score > self._best:
            self._best, self.best_epoch = score, epoch
            with replacing(self.weights) as temporary:
                save_file(contiguous_state(self.model), temporary)

    def _save(self) -> None:
        state = {
            "identity": identity_of(self.params),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best": self._best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not (self.checkpoint.is_file() and self.weights.is_file()):
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["identity"] != identity_of(self.params):
            return
        self.history = state["history"]
        self.best_epoch, self._best = state["best_epoch"], tuple(state["best"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])


def make_optimizer(model: nn.Module, recipe: SimpleNamespace) -> torch.optim.Optimizer:
    """Return Adam or AdamW over all parameters, by the recipe."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: SimpleNamespace, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate, stepped after every batch.

    `step` multiplies by `lr_gamma` every `lr_step` epochs; `one_cycle` warms up for a tenth of
    the steps and falls by a cosine.
    """
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps, pct_start=_WARM_UP, cycle_momentum=False
        )
    steps_an_epoch = total_steps // recipe.epochs
    return torch.optim.lr_scheduler.StepLR(
        optimizer, recipe.lr_step * steps_an_epoch, recipe.lr_gamma
    )


def predict(
    model: nn.Module, images: torch.Tensor, image_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the logits of every head, (N, heads) float32 on the CPU, for (N, 3, S, S) uint8."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for batch in images.split(_EVALUATION_BATCH):
            with autocast(device, dtype):
                parts.append(head_logits(model, plain_view(batch.to(device), image_size)).float())
    model.train(training)
    return torch.cat(parts).cpu()


def auroc(labels: torch.Tensor, scores: torch.Tensor) -> float:
    """Return the area under the ROC curve, NaN where only one class is there."""
    if len(labels.unique()) < 2:
        return float("nan")
    return float(roc_auc_score(labels.numpy(), scores.numpy()))


def contiguous_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's state as safetensors takes it: contiguous tensors on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
