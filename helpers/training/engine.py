"""The training loop of teachers and students: seeded, and resumable at any step.

All randomness of an epoch is drawn from (seed, epoch): the order of the faces, their views and
torch's own generators. A checkpoint holds the rest, generators included, so a run that was killed
and resumed gives what the undisturbed one gives.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from helpers.devices import autocast, precision
from helpers.files import short_path
from helpers.interrupts import StopRequest
from helpers.networks.models import (
    CLASS,
    DISTILLATION,
    choose_attention,
    decision_logits,
    head_logits,
)
from helpers.training.checkpoints import (
    NEWEST,
    drop_previous,
    durable,
    random_state,
    read_checkpoint,
    restore_random_state,
    write_checkpoint,
)
from helpers.training.faces import FaceStore
from helpers.training.feed import Feed
from helpers.training.inference import auroc, predict
from helpers.training.losses import (
    DISTILLATION_LOSSES,
    TEMPERATURE,
    classification_loss,
    hard_labels,
)
from helpers.training.optimisation import make_optimizer, make_schedule
from helpers.training.replay import RecordedTeacher
from helpers.training.runs import identity_of
from helpers.training.teachers import Teacher
from helpers.training.watch import LossWatch

CHECKPOINT_SECONDS = 180.0


@dataclass
class Position:
    """A place within an epoch.

    Attributes:
        epoch: its number, from 1.
        learning_rate: that it began with.
        step: how many steps of it are done.
        seconds: how long they took.
        sums: (4,) what `Trainer._step` returned, summed over them.
        answers: what the teacher has said in it, where that is written down.
    """

    epoch: int
    learning_rate: float
    step: int = 0
    seconds: float = 0.0
    sums: torch.Tensor | None = None
    answers: torch.Tensor | None = None


@dataclass
class Trainer:
    """One training run.

    Attributes:
        model: a teacher with one head or a student with two, on its device.
        faces: all faces of the study.
        recipe: the notebook's parameters (`batch_size`, `learning_rate`, ... and `seed`).
        epochs: how many to train.
        folder: the run folder, for the checkpoints and the best weights.
        params: the run's `params.json`; a checkpoint of other parameters is not resumed.
        teacher: gives the (N,) logits for N views and their rows in `faces`; None without one.
        distillation: `hard` or `soft`, how the second head follows the teacher.
        temperature: of `soft`; see `losses.soft_distillation_loss`.
        train_rows: rows of `faces` to train on.
    """

    model: nn.Module
    faces: FaceStore
    recipe: SimpleNamespace
    epochs: int
    folder: Path
    params: dict
    teacher: Teacher | None = None
    distillation: str = "hard"
    temperature: float = TEMPERATURE
    train_rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.device = next(self.model.parameters()).device
        self.dtype = precision(self.device, recipe.amp)
        choose_attention(self.model, self.device, self.dtype)
        if self.train_rows is None:
            self.train_rows = self.faces.rows("train")
        self.validation_rows = self.faces.rows("validation")
        self.feed = Feed(
            self.faces,
            self.train_rows,
            recipe.seed,
            recipe.batch_size,
            recipe.image_size,
            self.device,
        )
        self.steps = self.feed.steps
        self.optimizer = make_optimizer(self.model, recipe)
        self.schedule = make_schedule(self.optimizer, recipe, self.steps * self.epochs)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.watch = LossWatch(self.faces.table["image_id"].tolist(), self._losses, self.device)
        self.history: list[dict] = []
        self.best_epoch, self._best, self._best_state = 0, (-1.0, -float("inf")), {}
        self._stop = StopRequest()
        self._position: Position | None = None
        self._random_state: dict = {}
        self._saved_at = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        """The file from which the run can be resumed."""
        return self.folder / NEWEST

    @property
    def weights(self) -> Path:
        """The file of the best weights."""
        return self.folder / "model.safetensors"

    def fit(self) -> pd.DataFrame:
        """Train to the last epoch, from the last checkpoint where there is one.

        Leaves the model with its best weights (highest AUROC on validation, then lowest loss),
        writes them as safetensors, and returns the history, one row an epoch. Ctrl-C and SIGTERM
        end it after the step, with a checkpoint. Raises `StudyError` where the loss is no longer
        finite or the disk is full, `Stopped` after Ctrl-C.
        """
        self._resume()
        done = len(self.history) * self.steps + (self._position.step if self._position else 0)
        total = self.epochs * self.steps
        with self._stop, tqdm(total=total, initial=done, mininterval=2, unit="step") as bar:
            for epoch in range(len(self.history) + 1, self.epochs + 1):
                self.history.append(self._train_epoch(epoch, bar))
                self._keep_best(epoch)
                self._save()
                if self._stop.asked:
                    self._obey(epoch, self.steps)
        self.model.load_state_dict(self._best_state)
        with durable(self.weights) as temporary:
            save_file(self._best_state, temporary)
        drop_previous(self.folder)
        return pd.DataFrame(self.history)

    def _train_epoch(self, epoch: int, bar: tqdm) -> dict:
        at = self._begin_epoch(epoch)
        self.model.train()
        begin = time.perf_counter() - at.seconds
        for batch in self.feed.batches(epoch, at.step):
            at.step += 1
            at.sums += self._step(batch.images, batch.labels, batch.rows, at)
            bar.update()
            if at.step < self.steps:
                at.seconds = time.perf_counter() - begin
                self._pause(at)
        self.watch.look(epoch, self.steps)
        seconds = time.perf_counter() - begin
        if isinstance(self.teacher, RecordedTeacher):
            self.teacher.end_epoch()
        loss, loss_class, loss_distillation, disagreement = (at.sums / self.steps).tolist()
        scores = self._validate()
        bar.set_postfix(
            epoch=epoch, loss=f"{loss:.3f}", validation_auroc=f"{scores['validation_auroc']:.3f}"
        )
        taught = self.teacher is not None
        return {
            "epoch": epoch,
            "learning_rate": at.learning_rate,
            "seconds": seconds,
            "images_per_second": self.steps * self.recipe.batch_size / seconds,
            "train_loss": loss,
            "train_loss_class": loss_class,
            "train_loss_distillation": loss_distillation if taught else None,
            "teacher_disagreement": disagreement if taught else None,
            **scores,
        }

    def _begin_epoch(self, epoch: int) -> Position:
        """Return where to begin: at the first step, or where the checkpoint was written."""
        resumed, self._position = self._position, None
        at = resumed or Position(epoch, self.schedule.get_last_lr()[0])
        if isinstance(self.teacher, RecordedTeacher):
            self.teacher.begin_epoch(epoch, self.feed.order(epoch), at.answers)
        if resumed:
            at.sums = at.sums.to(self.device)
            restore_random_state(self._random_state, self.device)
        else:
            at.sums = torch.zeros(4, device=self.device)
            torch.manual_seed(self.recipe.seed * 100_003 + epoch)
        return at

    def _step(
        self, images: torch.Tensor, labels: torch.Tensor, rows: np.ndarray, at: Position
    ) -> torch.Tensor:
        """One optimiser step; returns loss, its two parts and the teacher's error rate, (4,)."""
        with autocast(self.device, self.dtype):
            logits = head_logits(self.model, images)
        teacher_logits = None if self.teacher is None else self.teacher(images, rows)
        loss, *parts = self._losses(logits, labels, teacher_logits)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.watch.note(at.step, rows, loss.detach(), logits.detach(), labels, teacher_logits):
            self.watch.look(at.epoch, self.steps)
        return torch.stack([loss, *parts]).detach()

    def _losses(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher_logits: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Return the loss, its two parts, and the share of faces whose label the teacher denies."""
        distillation_loss = disagreement = torch.zeros((), device=self.device)
        loss_class = classification_loss(logits[:, CLASS], labels)
        if teacher_logits is not None:
            distillation_loss = DISTILLATION_LOSSES[self.distillation](
                logits[:, DISTILLATION], teacher_logits, self.temperature
            )
            disagreement = (hard_labels(teacher_logits) != labels).float().mean()
        return loss_class + distillation_loss, loss_class, distillation_loss, disagreement

    def _pause(self, at: Position) -> None:
        """Between two steps: write a checkpoint if it is time to, and stop if asked to."""
        if self._stop.asked or time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
            self.watch.look(at.epoch, self.steps)
            self._save(at)
        if self._stop.asked:
            self._obey(at.epoch, at.step)

    def _obey(self, epoch: int, step: int) -> None:
        self._stop.obey(
            f"The training in {short_path(self.folder)} was stopped at epoch {epoch}, step {step} "
            f"of {self.steps}; call again to go on from there."
        )

    def _validate(self) -> dict:
        rows = self.validation_rows
        size = self.recipe.image_size
        logits = predict(self.model, self.faces.images, size, self.dtype, rows)
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
            self._best_state = contiguous_state(self.model)

    def _state(self, at: Position | None = None) -> dict:
        """All that decides how the training goes on, `at` a place within an epoch or after one."""
        if at is not None and isinstance(self.teacher, RecordedTeacher):
            at.answers = self.teacher.heard
        return {
            "identity": identity_of(self.params),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best": self._best,
            "best_state": self._best_state,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(self.device),
            "position": None if at is None else vars(at),
        }

    def _save(self, at: Position | None = None) -> None:
        write_checkpoint(self.folder, self._state(at))
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        state = read_checkpoint(self.folder, identity_of(self.params), set(self._state()))
        if state is None:
            return
        self.history, self._best_state = state["history"], state["best_state"]
        self.best_epoch, self._best = state["best_epoch"], tuple(state["best"])
        self._position = Position(**state["position"]) if state["position"] else None
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self._random_state = state["random"]
        restore_random_state(self._random_state, self.device)


def contiguous_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the model's state as safetensors takes it: contiguous, on the CPU."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
