"""Chapters 3 and 4: the training loop of teachers and students, and what a trained network says.

The randomness of an epoch (order, views, torch's own) is drawn from (seed, epoch), so a run that
was killed and goes on after its last whole epoch ends in the bits of the undisturbed one. The last
weights count, in every config: none are chosen on validation.
"""

import io
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from tqdm import tqdm

from helpers import distil, models, runs
from helpers.devices import autocast, pick_device, precision, set_determinism
from helpers.faces import Batch, FaceStore, Feed, Rows, load_faces, plain_view, read_manifest
from helpers.files import StudyError, project_path, replacing, sha256, short_path
from helpers.models import CLASS, DISTILLATION, decision_logits, head_logits, is_head
from helpers.stats import measure_auroc

CHECKPOINT = "checkpoint.pt"
_BLOCKS = 10  # a training of so many steps is reported, and saved, in ten parts
_WARM_UP = 0.1  # one-cycle's share of warm-up: enough for Adam's second moments to settle
_BATCH = 64
_LOSSES = "train_loss train_loss_class train_loss_distillation teacher_disagreement".split()


class Stopped(KeyboardInterrupt):
    """The user's interruption, as one sentence; IPython shows it alone."""

    _render_traceback_ = StudyError._render_traceback_


@dataclass
class Trainer:
    """One training.

    `model`: a teacher with one head or a student with two, on its device. `rows`: of the faces to
    train on. `folder`: the run's. `params`: the run's; the `parameters` in it are the recipe.
    `teacher`: see `distil`; None without one. `labelled`: which of the rows carry labels, see
    `faces.Feed`. `steps`: so many optimiser steps instead of the recipe's epochs; an "epoch" is
    then a tenth of them.
    """

    model: nn.Module
    faces: FaceStore
    rows: np.ndarray
    folder: Path
    params: dict
    teacher: distil.Teacher | None = None
    labelled: Rows = None
    steps: int | None = None

    def __post_init__(self) -> None:
        recipe = self.recipe = SimpleNamespace(**self.params["parameters"])
        self.device = next(self.model.parameters()).device
        self.dtype = precision(self.device, recipe.amp)
        models.choose_attention(self.model, self.device, self.dtype)
        self.validation = self.faces.rows("validation")
        taught = self.teacher is not None
        self.feed = Feed(self.faces, self.rows, recipe, self.device, taught, self.labelled)
        self.lengths = [max(1, len(self.rows) // recipe.batch_size)] * recipe.epochs
        if self.steps is not None:
            parts = np.array_split(np.arange(self.steps), min(_BLOCKS, self.steps))
            self.lengths = [len(part) for part in parts]
        self.distillation_loss = distil.hard_distillation_loss
        if getattr(recipe, "distillation", "none") == "soft":
            soft = distil.soft_distillation_loss
            self.distillation_loss = partial(soft, temperature=recipe.temperature)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        rate, decay, total = recipe.learning_rate, recipe.weight_decay, sum(self.lengths)
        optimizer = kind(self.model.parameters(), lr=rate, weight_decay=decay, fused=True)
        if recipe.schedule == "step":
            schedule = StepLR(optimizer, recipe.lr_step * self.lengths[0], recipe.lr_gamma)
        else:
            schedule = one_cycle(optimizer, rate, total)
        self.optimizer, self.schedule = optimizer, schedule
        self.head_steps = getattr(recipe, "head_steps", 0)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.parts = {"model": self.model, "optimizer": self.optimizer}
        self.parts |= {"schedule": self.schedule, "scaler": self.scaler}
        self.history: list[dict] = []

    def run(self) -> runs.Run:
        """Train, let the network speak of all faces, and write the run."""
        decides_by, size = self.feed.decides_by, self.recipe.image_size
        self.params |= {"precision": str(self.dtype)[6:], "decides_by": decides_by}
        self.params |= runs.provenance(self.device)
        history, faces = self.fit(), self.faces
        logits = predict(self.model, faces.images, size, self.dtype)
        predictions = tabulate_predictions(faces, logits, decides_by)
        metrics = {
            "epochs": len(history),
            "train_seconds": float(history["seconds"].sum()),
            "images_per_second": float(history["images_per_second"].median()),
            "parameters": models.count_parameters(self.model),
            "macs": models.count_macs(self.model, size),
            "image_size": size,
            "weights_sha256": sha256(self.folder / runs.WEIGHTS),
        }
        for split in ("validation", "test"):
            rows = np.flatnonzero(faces.table["split"] == split)
            metrics[split] = scores(faces.labels[rows], logits[rows], decides_by)
        metrics["validation"] |= distil.reading(predictions)
        return runs.write_run(self.folder, self.params, history, predictions, metrics)

    def fit(self) -> pd.DataFrame:
        """Train to the last epoch, from the checkpoint where there is one.

        Writes the last weights as safetensors, and returns the history, one row an epoch. Raises
        `StudyError` where the loss is no longer finite or the disk is full, and `Stopped` after
        Ctrl-C; SIGTERM is left to whoever handles it. Nothing is lost but the epoch under way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        first = 0 if self.head_steps else 1  # epoch 0 is that of the heads alone
        lengths = dict(enumerate([self.head_steps] * (1 - first) + self.lengths, first))
        done, total = len(self.history), sum(lengths.values())
        initial = sum(list(lengths.values())[:done])
        try:
            whose = f"Training {self.params['name']}, seed {self.recipe.seed}"
            with tqdm(None, whose, total, unit="step", initial=initial, mininterval=2) as bar:
                for epoch in list(lengths)[done:]:
                    run_epoch = self._epoch if epoch else self._heads_alone
                    self.history.append(run_epoch(epoch, lengths[epoch], bar))
                    self._save()
        except KeyboardInterrupt:
            where = f"in epoch {epoch} of {len(self.lengths)}"
            way = f"after epoch {epoch - 1}" if epoch else "from the start"
            said = f"The training in {short_path(self.folder)} was stopped {where}"
            raise Stopped(f"{said}: call again to go on {way}.") from None
        state = {key: value.cpu().contiguous() for key, value in self.model.state_dict().items()}
        with replacing(self.folder / runs.WEIGHTS, durable=True) as temporary:
            temporary.write_bytes(safetensors.torch.save(state))
        return pd.DataFrame(self.history)

    def _heads_alone(self, epoch: int, steps: int, bar: tqdm) -> dict:
        """Train the heads alone, as if the frozen body were part of the data: epoch 0.

        A new head sends random gradients through a body that knows something already: where faces
        are few, the network ends below a line through the body's own features (Kumar et al. 2022,
        "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution").
        """
        whole, rate = (self.optimizer, self.schedule), self.recipe.head_learning_rate
        heads = [part for name, part in self.model.named_parameters() if is_head(name)]
        self.model.requires_grad_(False)
        for part in heads:
            part.requires_grad_(True)
        self.optimizer = torch.optim.Adam(heads, rate, fused=True)
        self.schedule = one_cycle(self.optimizer, rate, steps)
        row = self._epoch(epoch, steps, bar)
        self.model.requires_grad_(True)
        self.optimizer, self.schedule = whole
        return row

    def _epoch(self, epoch: int, steps: int, bar: tqdm) -> dict:
        torch.manual_seed(self.recipe.seed * 100_003 + epoch)
        self.model.train(epoch > 0)
        rate, begin, seen = self.schedule.get_last_lr()[0], time.perf_counter(), []
        for batch in self.feed.batches(epoch, steps):
            seen.append(self._step(batch))
            bar.update()
            # one step late, so that a GPU has the next one to do while the host waits for it
            self._check(*seen[max(0, len(seen) - 2)], f"epoch {epoch}")
        self._check(*seen[-1], f"epoch {epoch}")
        seconds = time.perf_counter() - begin
        losses = torch.stack([losses for losses, _, _ in seen]).mean(dim=0).tolist()
        size = self.recipe.image_size
        logits = predict(self.model, self.faces.images, size, self.dtype, self.validation)
        found = scores(self.faces.labels[self.validation], logits, self.feed.decides_by)
        bar.set_postfix(epoch=epoch, loss=f"{losses[0]:.3f}", auroc=f"{found['auroc']:.3f}")
        row = {"epoch": epoch, "learning_rate": rate, "seconds": seconds}
        row["images_per_second"] = steps * self.recipe.batch_size / seconds
        row |= dict(zip(_LOSSES, losses, strict=True))
        return row | {f"validation_{name}": value for name, value in found.items()}

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor, np.ndarray]:
        """One optimiser step.

        Returns the loss, its two parts and the share of labels that the teacher denies, (4,); a
        number for each face that is finite where its logits are, (N,); and the faces' rows.
        """
        with autocast(self.device, self.dtype):
            by_labels, by_teacher, logits, answers = distil.distillation_step(
                self.model, self.teacher, batch, self.distillation_loss
            )
        loss = by_labels + by_teacher
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        sound = logits.detach().float().sum(dim=1) + batch.labels
        if answers is None:
            denied = by_teacher = torch.full_like(loss, torch.nan)
        else:
            sound[batch.taught] += answers
            denied = (distil.hard_labels(answers) != batch.labels[batch.taught]).float().mean()
        return torch.stack([loss, by_labels, by_teacher, denied]).detach(), sound, batch.rows

    def _check(self, losses: Tensor, sound: Tensor, rows: np.ndarray, when: str) -> None:
        """Raise `StudyError`, with the faces, where the loss of a step is not finite."""
        if losses[0].isfinite():
            return
        bad = self.faces.table["image_id"].iloc[rows[~sound.isfinite().cpu().numpy()]]
        names = ", ".join(bad[:5]) + ", …" * (len(bad) > 5)
        which = f"{len(bad)} of the {len(rows)} faces of a batch ({names})"
        said = f"The training loss is {losses[0].item()} in {when}, for {which}"
        raise StudyError(f"{said}: look at these, or try a smaller learning_rate.")

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        torch.save(state | {"params": self.params, "history": self.history}, buffer)
        with replacing(self.folder / CHECKPOINT, durable=True) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def _resume(self) -> None:
        """Take up the checkpoint, if it is whole and of this training; else say why not."""
        for leftover in self.folder.glob(".checkpoint-*.pt"):  # of a save that was killed
            leftover.unlink(missing_ok=True)
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                whole = archive.testzip() is None
            state = torch.load(path, map_location="cpu", weights_only=True) if whole else {}
            other = "; ".join(runs.differences(state["params"], self.params))
        except Exception as error:
            other = f"it is damaged, {type(error).__name__}"
        if other:
            tqdm.write(f"{short_path(path)} is not used ({other}): the training starts anew.")
            return
        self.history = state["history"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def one_cycle(optimizer: torch.optim.Optimizer, rate: float, steps: int) -> OneCycleLR:
    """Return a schedule of `steps` that warms up to `rate` and ends at nearly 0."""
    return OneCycleLR(optimizer, rate, steps, pct_start=_WARM_UP, cycle_momentum=False)


def train_teacher(p: SimpleNamespace, out_dir: str | Path) -> runs.Run:
    """Fine-tune a teacher and write its run folder; a finished or published one is read instead.

    `p`: the parameters of notebook 03. `out_dir`: the run folder, resumed from its checkpoint where
    it holds one. Raises `StudyError` for crops that are not there, weights that cannot be had, or a
    finished run of other parameters (see `runs.finished_run`).
    """
    return _train(p, out_dir)


def distil_student(p: SimpleNamespace, out_dir: str | Path) -> runs.Run:
    """Distil a student from a finished teacher, or train it alone, and write its run folder.

    `p`: the parameters of notebook 04. With `teacher` = `none`, or `distillation` = `none`, it is
    the same student by the same code and no teacher is read. Every arm of a seed begins with the
    same student. Raises as `train_teacher`, and for a teacher that is not there, saw other views or
    does not pass the gate.
    """
    return _train(p, out_dir)


def _train(p: SimpleNamespace, out_dir: str | Path, fold: int | None = None) -> runs.Run:
    """Train a teacher, or with a `student` among the parameters that; `fold`: leave out its people.

    A run that is there, finished or published, is returned as it is.
    """
    params = runs.params_of(vars(p))
    params["parameters"] |= {} if fold is None else {"fold": fold, "folds": distil.FOLDS}
    if (run := runs.finished_run(out_dir, params)) and run.published:
        return run
    set_determinism(p.seed, p.deterministic)  # before anything is computed on a GPU
    table, teachers = read_manifest(p.crops_dir), []
    manifest = sha256(project_path(p.crops_dir) / "manifest.csv")
    params |= {"crops_dir": p.crops_dir, "crops_sha256": manifest}
    params |= {"faces_hash": runs.faces_hash(table), "code_hash": runs.code_hash()}
    if params["parameters"].get("distillation", "none") != "none":
        runs.finished_run(out_dir, params)  # makes way before folds are trained
        teachers = _teacher_runs(p, out_dir)
        params["teachers"] = [distil.pass_gate(run, p.allow_weak_teacher) for run in teachers]
        hashes = [sha256(runs.weights_of(run)) for run in teachers]
        params |= {"teacher_dir": p.teacher_dir, "teacher_sha256": "-".join(hashes)}
        params["allow_weak_teacher"] = p.allow_weak_teacher
    if run := runs.finished_run(out_dir, params):
        return run
    faces = load_faces(p.crops_dir, p.image_size)
    device, rows = pick_device(p.device), faces.rows("train")
    rows = rows if fold is None else rows[distil.fold_of(faces)[rows] != fold]
    labels = params["parameters"].get("teacher_labels")
    teacher = distil.make_teacher(labels, teachers, faces, p.seed, device) if teachers else None
    torch.manual_seed(p.seed)  # making a teacher has drawn from the generator
    build, name = models.BUILD[params["stage"]], params["parameters"][params["stage"]]
    model, params["initialisation"] = build(name, p.init, p.image_size)
    model.to(device, memory_format=torch.channels_last)
    return Trainer(model, faces, rows, project_path(out_dir), params, teacher).run()


def _teacher_runs(p: SimpleNamespace, out_dir: str | Path) -> list[runs.Run]:
    """Return the run in `teacher_dir`, or for `out_of_fold` those that lack one fold each.

    These are trained by its recipe, beside it, or beside the student where it is published. Raises
    `StudyError` where the folder holds another run or one that saw other views.
    """
    run = runs.read_run(p.teacher_dir)
    recipe, where = dict(run.params["parameters"]), short_path(run.folder)
    if (run.stage, run.name) != ("teacher", p.teacher):
        raise StudyError(f"The run in {where} is {run.name}, not the teacher {p.teacher}.")
    if (size := recipe["image_size"]) != p.image_size:
        said = f"The teacher in {where} was trained at {size} pixels, and the student's image_size"
        raise StudyError(f"{said} is {p.image_size}: both must see the same view.")
    if p.teacher_labels != "out_of_fold":
        return [run]
    recipe |= {"teacher_epochs": recipe["epochs"], "crops_dir": p.crops_dir, "device": p.device}
    beside = project_path(out_dir) if run.published else run.folder
    given = SimpleNamespace(**recipe)
    return [_train(given, beside / f"fold{fold}", fold) for fold in range(distil.FOLDS)]


def predict(
    model: nn.Module, images: Tensor, image_size: int, dtype: torch.dtype, rows: Rows = None
) -> Tensor:
    """Return the logits of every head, (N, heads) float32 on the CPU, for (N, 3, S, S) uint8.

    `rows`: which of the images, all without it; they are taken out batch by batch, so the images
    may be more than fit into memory. In low precision a batch of a few faces is rounded otherwise,
    which moves P(pain) by up to a hundredth, so the last batch is filled up to the size of the
    others: a face is told the same whoever else is there.
    """
    device, training = next(model.parameters()).device, model.training
    rows, parts = np.arange(len(images)) if rows is None else rows, []
    filled = 0 if dtype == torch.float32 else -len(rows) % _BATCH
    order = np.concatenate([rows, np.repeat(rows[-1:], filled)])
    model.eval()
    with torch.inference_mode(), autocast(device, dtype):
        for start in range(0, len(order), _BATCH):
            part = images[order[start : start + _BATCH]]
            part = part.to(device) if device.type == "cuda" else part
            views = plain_view(part, image_size).to(device)
            parts.append(head_logits(model, views).float().cpu())
    model.train(training)
    return torch.cat(parts)[: len(rows)]


def scores(labels: Tensor, logits: Tensor, decides_by: str) -> dict[str, float]:
    """Return loss, accuracy and AUROC (NaN where only one class is there) of (N, heads) logits."""
    decision, pain = decision_logits(logits, decides_by), labels > 0
    loss, right = distil.classification_loss(decision, labels), (decision > 0) == pain
    area = measure_auroc(pain.numpy(), decision.numpy())["auroc"]
    return {"loss": loss.item(), "accuracy": right.float().mean().item(), "auroc": area.item()}


def tabulate_predictions(faces: FaceStore, logits: Tensor, decides_by: str) -> pd.DataFrame:
    """Return P(pain) of every face by the decision and by each trained head.

    `logits` is (N, heads). A teacher's one head is the decision itself; a head of a student that
    was never trained stays empty.
    """
    table = faces.table[runs.FACE_COLUMNS].copy()
    table["probability"] = decision_logits(logits, decides_by).sigmoid().numpy()
    for name, head in (("class", CLASS), ("distillation", DISTILLATION)):
        trained = logits.shape[1] == 2 and decides_by in (name, "both")
        table[f"probability_{name}"] = logits[:, head].sigmoid().numpy() if trained else np.nan
    return table


def predictions_of(
    run: runs.Run, model: nn.Module, faces: FaceStore, images: Tensor
) -> pd.DataFrame:
    """Return what `run`'s `model` says of `images`, (N, 3, S, S) uint8, one for each of `faces`.

    `arm` and `seed`, then the columns of `predictions.csv`, one row a face. `model`: of
    `models.ready`; of faces that the run has scored it says what the run has said.
    """
    chosen, device = run.params["parameters"], next(model.parameters()).device
    logits = predict(model, images, chosen["image_size"], precision(device, chosen["amp"]))
    table = tabulate_predictions(faces, logits, models.decides_by(run))
    return table.assign(arm=run.name, seed=run.seed)[["arm", "seed", *table.columns]]


def predict_runs(many: Iterable[runs.Run], crops_dir: str | Path, device: str) -> pd.DataFrame:
    """Return every run's `predictions_of` all faces of `crops_dir`, by the arithmetic of the run.

    Raises `StudyError` for a run without its weights, or crops that cannot be read.
    """
    parts = []
    for run in many:
        model = models.ready(run, pick_device(device))
        faces = load_faces(crops_dir, run.params["parameters"]["image_size"])
        parts.append(predictions_of(run, model, faces, faces.images))
    return pd.concat(parts, ignore_index=True)
