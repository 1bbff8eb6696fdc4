"""The losses against values worked out by hand, and against timm's."""

import math

import pytest
import torch
from timm.loss import BinaryCrossEntropy

from helpers.losses import (
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
