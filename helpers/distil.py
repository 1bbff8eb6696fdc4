"""What a student learns from: the labels, and a teacher that passed the gate.

A teacher is called with the student's own views, and with the rows of their faces, and answers with
one logit each: `FrozenTeacher`, or `FoldTeachers` and `ShuffledTeacher` around it.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from helpers.compare import panel_of
from helpers.faces import Batch, FaceStore
from helpers.files import StudyError, short_path
from helpers.models import CLASS, DISTILLATION, family, head_logits, trained
from helpers.runs import Run
from helpers.stats import Estimate
from helpers.text import shown

# DeiT's temperature for soft distillation (Touvron et al. 2021, section 5.2).
TEMPERATURE = 3.0
FOLDS = 3
Teacher = Callable[[Tensor, np.ndarray], Tensor]


def distillation_step(
    student: nn.Module, teacher: Teacher | None, batch: Batch, distillation_loss: Callable
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return what one batch teaches: both losses, the student's logits and the teacher's.

    The loss is the sum of the two. The frozen teacher sees the student's own views. The class token
    answers to the labels, the distillation token to the teacher (Touvron et al. 2021, eq. 3).
    """
    logits = head_logits(student, batch.images)  # (N, 2): class token, distillation token
    from_labels = from_teacher = torch.zeros((), device=logits.device)
    if len(labels := batch.labels[batch.labelled]):
        from_labels = classification_loss(logits[batch.labelled, CLASS], labels)
    if teacher is None:
        return from_labels, from_teacher, logits, None
    answers = teacher(batch.images[batch.taught], batch.rows[batch.taught])
    from_teacher = distillation_loss(logits[batch.taught, DISTILLATION], answers)
    return from_labels, from_teacher, logits, answers


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean BCE of (N,) logits against (N,) labels in 0..1."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def hard_labels(teacher_logits: Tensor) -> Tensor:
    """Return the teacher's decisions, (N,) of 0 or 1: with one logit, argmax is `logit > 0`."""
    return (teacher_logits > 0).float()


def hard_distillation_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return the BCE of the distillation token against the teacher's hard label, both (N,).

    Hard-label distillation of DeiT (Touvron et al. 2021, eq. 3), with BCE on one logit z in place
    of cross-entropy on two. BCE on z is the cross-entropy on the pair of logits (0, z). A head of
    two free logits (a, b), as timm's `TokenDistillationTask` has it, gives the same loss wherever
    z = b - a, but each of its logits gets the gradient of z, one with the opposite sign: b - a
    moves by twice the step that z would. Hence equal losses and another pace.
    """
    return classification_loss(logits, hard_labels(teacher_logits))


def soft_distillation_loss(
    logits: Tensor, teacher_logits: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Return temperature² × KL(teacher ‖ student) between the two Bernoulli distributions.

    Hinton et al. 2015; DeiT eq. 2. Both logits, (N,), are divided by the temperature.
    """
    student, teacher = logits.float() / temperature, teacher_logits.float() / temperature
    bce, target = F.binary_cross_entropy_with_logits, teacher.sigmoid()
    return (bce(student, target) - bce(teacher, target)) * temperature**2


class FrozenTeacher:
    """A trained teacher that never changes: evaluation mode, no gradients.

    It computes in the precision of whoever calls it, so under the student's autocast. Batch norms
    are folded into the convolutions before them: the same function, a seventh sooner on a CPU.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        model = trained(run, device)
        self.model = (fuse(model) if family(model) == "resnet" else model).requires_grad_(False)

    def __call__(self, images: Tensor, rows: np.ndarray) -> Tensor:
        """Return the (N,) logits for N normalised views; `rows` is not needed here."""
        with torch.no_grad():
            return head_logits(self.model, images)[:, 0].float()


class FoldTeachers:
    """Teachers of which each answers for the people that it was not trained on.

    A teacher that has fitted its training set hands back the labels; these have not seen the face.
    """

    def __init__(self, teachers: list[Teacher], folds: np.ndarray) -> None:
        self.teachers, self.folds = teachers, folds

    def __call__(self, images: Tensor, rows: np.ndarray) -> Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`."""
        logits = torch.empty(len(rows), device=images.device)
        for fold, teacher in enumerate(self.teachers):
            if len(mine := np.flatnonzero(self.folds[rows] == fold)):
                logits[mine] = teacher(images[mine], rows[mine])
        return logits


class ShuffledTeacher:
    """A control: a teacher whose answers are dealt out at random among the faces of the batch.

    The student gets as many answers of each kind, and none of them tells it anything of its face:
    what it still gains, it gains from being taught, not from what the teacher knows. Who gets whose
    answer is drawn by the run's seed and the rows of the batch, so a resumed run deals alike.
    """

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self.teacher, self.seed = teacher, seed

    def __call__(self, images: Tensor, rows: np.ndarray) -> Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`, permuted."""
        order = np.random.default_rng([self.seed, *rows]).permutation(len(rows))
        return self.teacher(images, rows)[order]


def fold_of(faces: FaceStore) -> np.ndarray:
    """Return the fold of every face, (N,): training identities dealt out in turn, others -1."""
    train = (faces.table["split"] == "train").to_numpy()
    folds = np.full(len(faces.table), -1)
    folds[train] = pd.factorize(faces.table.loc[train, "identity"], sort=True)[0] % FOLDS
    return folds


def make_teacher(
    labels: str, runs: list[Run], faces: FaceStore, seed: int, device: torch.device
) -> Teacher:
    """Return who answers, by `teacher_labels`: the teacher, itself or shuffled, or one a fold."""
    teachers = [FrozenTeacher(run, device) for run in runs]
    if labels == "out_of_fold":
        return FoldTeachers(teachers, fold_of(faces))
    return ShuffledTeacher(teachers[0], seed) if labels == "shuffled" else teachers[0]


def validation_auroc(predictions: pd.DataFrame) -> Estimate:
    """Return the AUROC on the validation faces of a predictions.csv, Pain against the rest."""
    faces = predictions[predictions["split"] == "validation"].assign(arm="it", seed=0)
    return panel_of(faces, samples=2000, seed=0).auroc("it")


def reading(predictions: pd.DataFrame) -> dict:
    """Return `validation_auroc` and whether it beats chance, as metrics.json holds them.

    A model beats chance where the whole interval lies above 0.5; without an interval it is not
    shown to. An end that does not exist is None.
    """
    area = validation_auroc(predictions)
    low, high = (None if np.isnan(end) else end for end in (area.low, area.high))
    found = {"auroc": area.value, "auroc_low": low, "auroc_high": high}
    return found | {"beats_chance": bool(area.low > 0.5)}


def pass_gate(run: Run, allow_weak: bool) -> dict:
    """Return the `reading` of a teacher.

    Raises `StudyError` where it is not shown to beat chance, unless `allow_weak`.
    """
    found, area = reading(run.predictions), shown(validation_auroc(run.predictions))
    if not (found["beats_chance"] or allow_weak):
        said = f"may not teach, for validation does not show it to beat chance (AUROC {area})"
        way = "train it otherwise, or set allow_weak_teacher"
        raise StudyError(f"The teacher in {short_path(run.folder)} {said}: {way}.")
    return found
