"""The study's loss: binary cross-entropy on the labels, and on what the teacher says."""

import torch
import torch.nn.functional as F

# DeiT's temperature for soft distillation (Touvron et al. 2021, section 5.2).
TEMPERATURE = 3.0


def classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean BCE of (N,) logits against (N,) labels in 0..1."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def hard_labels(teacher_logits: torch.Tensor) -> torch.Tensor:
    """Return the teacher's decisions, (N,) of 0 or 1: with one logit, argmax is `logit > 0`."""
    return (teacher_logits > 0).float()


def hard_distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float | None = None
) -> torch.Tensor:
    """Return the BCE of the distillation token against the teacher's hard label.

    Hard-label distillation of DeiT (Touvron et al. 2021, eq. 3), with BCE on one logit z in place
    of cross-entropy on two. BCE on z is the cross-entropy on the pair of logits (0, z). A head of
    two free logits (a, b), as timm's `TokenDistillationTask` has it, gives the same loss wherever
    z = b - a, but each of its logits gets the gradient of z, one with the opposite sign: b - a
    moves by twice the step that z would. Hence equal losses and another pace.

    Args:
        logits: (N,) of the student's distillation head.
        teacher_logits: (N,) of the frozen teacher, for the same views.
        temperature: not used, as a decision has none; the soft loss takes it.
    """
    return classification_loss(logits, hard_labels(teacher_logits))


def soft_distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Return temperature² × KL(teacher ‖ student) between the two Bernoulli distributions.

    Hinton et al. 2015; DeiT eq. 2. Both logits, (N,), are divided by the temperature.
    """
    student, teacher = logits.float() / temperature, teacher_logits.float() / temperature
    target = teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(student, target)
    entropy = F.binary_cross_entropy_with_logits(teacher, target)
    return (cross_entropy - entropy) * temperature**2


DISTILLATION_LOSSES = {"hard": hard_distillation_loss, "soft": soft_distillation_loss}
