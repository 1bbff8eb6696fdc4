"""Heads, starts and sizes of the models, against timm and published figures."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import models
from helpers.errors import StudyError
from helpers.models import (
    build_student,
    build_teacher,
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


@pytest.fixture(scope="module")
def undistilled(tmp_path_factory):
    """A file like the ImageNet weights of DeiT-Ti: 224 pixels, 1000 classes."""
    torch.manual_seed(3)
    source = timm.create_model("deit_tiny_patch16_224", num_classes=1000)
    path = tmp_path_factory.mktemp("weights") / "deit_tiny.safetensors"
    save_file(source.state_dict(), path)
    return source, path


def test_a_student_starts_from_undistilled_weights(undistilled):
    source, path = undistilled
    student, start = build_student("deit_tiny", str(path), 224)
    torch.testing.assert_close(student.blocks[5].mlp.fc1.weight, source.blocks[5].mlp.fc1.weight)
    torch.testing.assert_close(student.dist_token, source.cls_token)
    torch.testing.assert_close(student.pos_embed[:, 0], source.pos_embed[:, 0])
    torch.testing.assert_close(student.pos_embed[:, 1], source.pos_embed[:, 0])
    torch.testing.assert_close(student.pos_embed[:, 2:], source.pos_embed[:, 1:])
    assert student.head.weight.shape == student.head_dist.weight.shape == (1, 192)
    assert not torch.equal(student.head.weight, student.head_dist.weight)
    new = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert set(start["new"]) == new
    assert len(start["sha256"]) == 64


def test_weights_of_224_pixels_fit_another_size(undistilled):
    _, path = undistilled
    student, _ = build_student("deit_tiny", str(path), 112)
    assert student.pos_embed.shape == (1, 2 + 7 * 7, 192)
    assert torch.isfinite(student.pos_embed).all()


def test_a_teacher_starts_from_a_file_and_its_head_is_new(tmp_path):
    torch.manual_seed(4)
    source = timm.create_model("resnet50", num_classes=1000)
    save_file(source.state_dict(), tmp_path / "resnet.safetensors")
    teacher, start = build_teacher("resnet50", str(tmp_path / "resnet.safetensors"), 224)
    torch.testing.assert_close(teacher.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    assert teacher.fc.weight.shape == (1, 2048)
    assert start["new"] == ["fc.weight", "fc.bias"]


def test_weights_of_another_architecture_are_refused(undistilled):
    with pytest.raises(StudyError, match=r"does not fit resnet50: it lacks \d+ tensors"):
        build_teacher("resnet50", str(undistilled[1]), 224)


def test_the_start_from_faces_is_a_file_of_the_repository(undistilled, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "FACES_WEIGHTS", tmp_path)
    with pytest.raises(StudyError, match=r"deit_tiny_patch16_224\.safetensors .*does not exist"):
        build_student("deit_tiny", "faces", 224)


@pytest.mark.parametrize("build", [build_teacher, build_student])
def test_an_unknown_name_is_one_sentence(build):
    with pytest.raises(StudyError, match=r"Unknown (teacher|student) 'vgg': choose one of"):
        build("vgg", "scratch", SIZE)


def test_a_missing_weights_file_is_named():
    with pytest.raises(StudyError, match=r"no/such\.safetensors .*does not exist"):
        build_teacher("resnet50", "no/such.safetensors", SIZE)


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(models.timm, "create_model", unreachable)
    with pytest.raises(StudyError, match=r"could not be fetched .*set init to a local file"):
        build_teacher("resnet50", "imagenet", SIZE)
