"""Heads, sizes and starts of the networks, against timm, published figures and frozen hashes."""

import hashlib
import json

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import models
from helpers.files import ROOT, StudyError
from helpers.models import build_student, build_teacher, decision_logits, head_logits

DEIT, SWIN = "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
STARTS = json.loads((ROOT / "tests/golden/engine.json").read_text())["starts"]
BUILD = {
    "resnet50": (build_teacher, "resnet50"),
    SWIN: (build_teacher, "swin"),
    DEIT: (build_student, "deit_tiny"),
}
VIEWS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def made(architecture, **options):
    """Weights of an architecture as timm has them, each tensor with values of its own."""
    torch.manual_seed(3)
    state = timm.create_model(architecture, **options).state_dict()
    moved = {k: v + 0.02 * torch.randn_like(v) for k, v in state.items() if v.is_floating_point()}
    return state | moved


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with weights of 224 pixels and 1000 classes for all three backbones."""
    folder = tmp_path_factory.mktemp("imagenet")
    for architecture in BUILD:
        save_file(made(architecture), folder / f"{architecture}.safetensors")
    return folder


def test_two_heads_are_trained_apart_and_decide_as_timms():
    torch.manual_seed(0)
    student = build_student("deit_tiny", "scratch", 32)[0].train()
    for head, untouched in ((0, student.head_dist), (1, student.head)):
        student.zero_grad()
        logits = head_logits(student, VIEWS)
        logits[:, head].sum().backward()
        assert untouched.weight.grad is None or not untouched.weight.grad.any()
    logits = head_logits(student.eval(), VIEWS)
    torch.testing.assert_close(decision_logits(logits, "both"), student(VIEWS)[:, 0])


@pytest.mark.parametrize("name", STARTS)
def test_the_start_from_faces_is_the_one_that_was_frozen(name):
    """By the code before: every tensor but the heads, the file's hash, the student's new heads."""
    torch.manual_seed(2)
    build = build_student if name == "deit_tiny" else build_teacher
    model, start = build(name, "faces", 112)
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key not in start["new"]:
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    assert digest.hexdigest() == STARTS[name]["body"]
    assert (start["sha256"], start["loaded"]) == (STARTS[name]["file"], STARTS[name]["loaded"])
    if name == "deit_tiny":
        heads = model.head.weight[0, :4].tolist() + model.head_dist.weight[0, :4].tolist()
        assert heads == pytest.approx(STARTS[name]["head"], rel=1e-4)


def test_size_and_cost_are_the_published_ones():
    """DeiT-Ti of Touvron et al. 2021: 5.7 M with 1000 classes, 1.26 G."""
    model, _ = build_student("deit_tiny", "scratch", 224)
    assert models.count_parameters(model) == pytest.approx(5.7e6 - 999 * 193, rel=0.01)
    assert models.count_macs(model, 224) == pytest.approx(1.26e9, rel=0.02)


def test_a_student_starts_from_undistilled_weights_and_its_token_from_the_class_token(files):
    source = timm.models.load_state_dict(str(files / f"{DEIT}.safetensors"))
    student, _ = build_student("deit_tiny", str(files), 224)
    for key in set(source) - {"pos_embed", "head.weight", "head.bias"}:
        assert torch.equal(student.state_dict()[key], source[key]), key
    assert torch.equal(student.dist_token, source["cls_token"])
    place = source["pos_embed"]
    assert torch.equal(student.pos_embed, torch.cat([place[:, :1], place], 1))


@pytest.mark.parametrize("architecture", BUILD)
def test_weights_of_another_task_precision_and_size_fit(tmp_path, architecture):
    """Half precision, 31 targets, another image size."""
    build, name = BUILD[architecture]
    options = {} if architecture == "resnet50" else {"img_size": 112}
    half = made(architecture, num_classes=31, **options)
    half = {k: v.half() if v.is_floating_point() else v for k, v in half.items()}
    save_file(half, tmp_path / f"{architecture}.safetensors")
    model, start = build(name, str(tmp_path), 64)
    mine, rest = model.state_dict(), {*start["new"], *start["unused"]}
    same = [k for k in mine if k in half and torch.equal(mine[k], half[k].to(mine[k].dtype))]
    assert len(same) > 100
    assert all(key.startswith(("fc.", "head")) for key in rest)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_weights_that_cannot_be_had_or_do_not_fit_are_one_sentence(files, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    torch.save({"model": print}, tmp_path / "code.pth")
    for name, init, sentence in (
        ("resnet50", "imagenet", r"resnet50\.a2_in1k cannot be had .*: set init .* the hub"),
        ("resnet50", files / f"{DEIT}.safetensors", r"resnet50: \d+ tensors are missing"),
        ("resnet50", tmp_path / "code.pth", r"code\.pth cannot be had"),
    ):
        with pytest.raises(StudyError, match=sentence):
            build_teacher(name, str(init), 224)
