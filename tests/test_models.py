"""Heads and sizes of the models, against timm and published figures; starts: test_weights."""

import pytest
import torch

from helpers.errors import StudyError
from helpers.networks.models import (
    build_student,
    build_teacher,
    choose_attention,
    count_macs,
    count_parameters,
    decision_logits,
    head_logits,
)

SIZE = 32


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return build_student("deit_tiny", "scratch", SIZE)[0]


def views(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
def test_the_two_heads_are_two_outputs(student, training):
    student.train(training)
    logits = head_logits(student, views())
    assert logits.shape == (2, 2)
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_the_decision_of_a_distilled_student_is_timms_output(student):
    student.eval()
    with torch.no_grad():
        ours = decision_logits(head_logits(student, views()), distilled=True)
        timms = student(views())[:, 0]
    torch.testing.assert_close(ours, timms)


def test_each_loss_reaches_its_own_head_alone(student):
    student.train()
    for loss_of, untouched in ((0, student.head_dist), (1, student.head)):
        student.zero_grad()
        head_logits(student, views())[:, loss_of].sum().backward()
        assert untouched.weight.grad is None or not untouched.weight.grad.any()


def test_a_student_without_teacher_decides_by_its_class_head():
    logits = torch.tensor([[1.0, -3.0]])
    assert decision_logits(logits, distilled=False).item() == 1.0
    assert decision_logits(logits, distilled=True).item() == -1.0


@pytest.mark.parametrize("name", ["resnet50", "swin"])
def test_a_teacher_has_one_logit(name):
    model, start = build_teacher(name, "scratch", SIZE)
    assert head_logits(model.eval(), views()).shape == (2, 1)
    assert start["init"] == "scratch"


@pytest.mark.parametrize(
    ("build", "name", "parameters", "macs"),
    [
        # He et al. 2016 (25.6 M with 1000 classes), 4.1 G; Liu et al. 2021 (28.3 M), 4.5 G;
        # Touvron et al. 2021, DeiT-Ti (5.7 M), 1.3 G
        (build_teacher, "resnet50", 25.6e6 - 999 * 2049, 4.1e9),
        (build_teacher, "swin", 28.3e6 - 999 * 769, 4.5e9),
        (build_student, "deit_tiny", 5.7e6 - 999 * 193, 1.26e9),
    ],
)
def test_size_and_cost_are_the_published_ones(build, name, parameters, macs):
    model, _ = build(name, "scratch", 224)
    assert count_parameters(model) == pytest.approx(parameters, rel=0.01)
    assert count_macs(model, 224) == pytest.approx(macs, rel=0.02)


@pytest.mark.parametrize("build", [build_teacher, build_student])
def test_an_unknown_name_is_one_sentence(build):
    with pytest.raises(StudyError, match=r"Unknown (teacher|student) 'vgg': choose one of"):
        build("vgg", "scratch", SIZE)


@pytest.mark.parametrize(("build", "name"), [(build_student, "deit_tiny"), (build_teacher, "swin")])
def test_both_ways_to_compute_attention_give_the_same_gradients(build, name):
    torch.manual_seed(0)
    model, _ = build(name, "scratch", SIZE)
    model.eval()  # Swin drops paths at random in training
    gradients = {}
    for device, dtype in (
        ("cpu", torch.bfloat16),
        ("cpu", torch.float32),
        ("cuda", torch.bfloat16),
    ):
        choose_attention(model, torch.device(device), dtype)
        fused = {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
        assert fused == {(device, dtype) != ("cpu", torch.bfloat16)}
        model.zero_grad()
        head_logits(model, views()).sum().backward()
        gradients[device, dtype] = [parameter.grad.clone() for parameter in model.parameters()]
    plain, fused, _ = gradients.values()
    for mine, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
