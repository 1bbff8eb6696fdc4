"""The losses against values worked out by hand, and against timm's."""

import math

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy
from timm.task import TokenDistillationTask
from torch import nn

from helpers.training.losses import (
    DISTILLATION_LOSSES,
    classification_loss,
    hard_distillation_loss,
    hard_labels,
    soft_distillation_loss,
)


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def test_classification_loss_is_the_mean_binary_cross_entropy():
    logits, labels = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    by_hand = (bce(2, 1) + bce(-1, 1) + bce(0, 0)) / 3
    assert classification_loss(logits, labels).item() == pytest.approx(by_hand, abs=1e-6)
    timms = BinaryCrossEntropy(smoothing=0.0)(logits[:, None], labels[:, None])
    assert classification_loss(logits, labels).item() == pytest.approx(timms.item(), abs=1e-6)


def test_a_hard_label_is_the_sign_of_the_one_logit():
    assert hard_labels(torch.tensor([-3.0, -0.1, 0.1, 5.0])).tolist() == [0, 0, 1, 1]


def test_hard_distillation_follows_the_decision_and_not_the_confidence():
    logits = torch.tensor([0.7, -0.4])
    by_hand = (bce(0.7, 1) + bce(-0.4, 0)) / 2
    for sure in (0.01, 1.0, 20.0):
        teacher = torch.tensor([sure, -sure])
        loss = hard_distillation_loss(logits, teacher).item()
        assert loss == pytest.approx(by_hand, abs=1e-6)


def test_soft_distillation_equals_the_divergence_of_two_classes():
    # A logit z is a pair of logits (0, z): the Bernoulli case of timm's and DeiT's formula.
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 9, generator=generator).unbind()
    temperature = 3.0
    student_pair, teacher_pair = (
        torch.log_softmax(torch.stack([torch.zeros(9), z / temperature], 1), 1)
        for z in (logits, teacher)
    )
    expected = torch.nn.functional.kl_div(
        student_pair, teacher_pair, log_target=True, reduction="batchmean"
    )
    loss = soft_distillation_loss(logits, teacher, temperature)
    assert loss.item() == pytest.approx(expected.item() * temperature**2, abs=1e-6)


def test_soft_distillation_is_zero_only_where_both_agree():
    teacher = torch.tensor([1.5, -2.0])
    assert soft_distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert soft_distillation_loss(-teacher, teacher).item() > 0.1


def float64_loss(kind, z, t, temperature):
    """The mean loss over (N,) logits and its gradient, by the definitions, in NumPy's float64."""
    z, t = np.asarray(z, np.float64), np.asarray(t, np.float64)
    scale = temperature if kind == "soft" else 1.0
    p, q = 1 / (1 + np.exp(-z / scale)), 1 / (1 + np.exp(-t / scale))
    if kind == "hard":
        q = (t > 0).astype(np.float64)
        loss = -np.mean(np.where(q == 1, np.log(p), np.log1p(-p)))
    else:
        divergence = q * (np.log(q) - np.log(p)) + (1 - q) * (np.log1p(-q) - np.log1p(-p))
        loss = temperature**2 * np.mean(divergence)
    # d BCE / dz = p - q; the soft one has T² in front and z / T inside
    return loss, (p - q) * scale / len(z)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_loss_and_gradient_equal_float64(kind, temperature):
    generator = torch.Generator().manual_seed(1)
    logits, teacher = 4 * torch.randn(2, 64, generator=generator)
    logits.requires_grad_()
    loss = DISTILLATION_LOSSES[kind](logits, teacher, temperature)
    loss.backward()
    expected, gradient = float64_loss(kind, logits.detach(), teacher, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-4, atol=1e-7)


class Pairs(nn.Module):
    """Two heads of two logits as timm's task wants them, straight from parameters."""

    def __init__(self, class_pair, distillation_pair):
        super().__init__()
        self.num_classes, self.in_chans = 2, 3
        self.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        self.heads = nn.ParameterList([class_pair, distillation_pair])

    def set_distilled_training(self, enable):
        assert enable

    def forward(self, images):
        return tuple(self.heads)


class Says(nn.Module):
    """A teacher that says these logits of whatever it is shown."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def pair(z):
    """One logit z as two, (0, z): the softmax of the pair is the sigmoid of z."""
    return torch.stack([torch.zeros_like(z), z], dim=1)


def timms(kind, class_pair, distillation_pair, teacher_logits, temperature=1.0):
    """The loss of timm's task on pairs of logits, its parts, and the gradients of both heads."""
    student = Pairs(class_pair, distillation_pair)
    task = TokenDistillationTask(
        student,
        Says(teacher_logits),
        criterion=nn.CrossEntropyLoss(),
        distill_type=kind,
        temperature=temperature,
        verbose=False,
    )
    labels = torch.tensor([1, 0, 0, 1, 0])
    found = task(torch.zeros(5, 3, 2, 2), labels)
    found["loss"].backward()
    return found, [head.grad for head in student.heads]


@pytest.fixture
def batch():
    """Logits of the class head, of the distillation head and of the teacher, and the labels."""
    logits = 3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    return (*logits, torch.tensor([1.0, 0, 0, 1, 0]))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_of_timms_task_is_ours_on_pairs_of_logits(batch, kind):
    z_class, z, teacher, labels = batch
    found, _ = timms(kind, pair(z_class), pair(z), pair(teacher), temperature=3.0)
    ours = DISTILLATION_LOSSES[kind](z, teacher, 3.0)
    assert found["distill_loss"].item() == pytest.approx(ours.item(), rel=1e-5)
    total = classification_loss(z_class, labels) + ours
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_pair_of_logits_moves_twice_as_far_as_one(batch, kind):
    """The difference to timm: each logit of a pair gets the gradient, one with the other sign."""
    _, z, teacher, _ = batch
    z = z.requires_grad_()
    DISTILLATION_LOSSES[kind](z, teacher, 3.0).backward()
    shift = torch.randn(5, 1, generator=torch.Generator().manual_seed(3))
    _, (_, gradient) = timms(kind, pair(z.detach()), pair(z.detach()) + shift, pair(teacher), 3.0)
    torch.testing.assert_close(gradient, torch.stack([-z.grad, z.grad], dim=1))


def test_on_one_logit_timms_hard_loss_would_teach_nothing(batch):
    """The trap: the argmax over one logit is always 0, and cross-entropy over one class is 0."""
    z_class, z, teacher, _ = batch
    found, (_, gradient) = timms("hard", pair(z_class), z[:, None].clone(), teacher[:, None])
    assert found["distill_loss"].item() == 0
    assert not gradient.any()
    assert hard_distillation_loss(z, teacher).item() > 0.1
