"""Starts: formats, image sizes, what was loaded and what was not, a hub that cannot be reached."""

import hashlib
from argparse import Namespace

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from helpers.errors import StudyError
from helpers.networks import weights
from helpers.networks.models import build_student, build_teacher
from helpers.networks.weights import tensors_sha256

DEIT, DEIT_DISTILLED = "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
SWIN = "swin_tiny_patch4_window7_224"
HEADS = ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
BUILD = {
    "resnet50": (build_teacher, "resnet50", "fc."),
    SWIN: (build_teacher, "swin", "head.fc."),
    DEIT: (build_student, "deit_tiny", "head"),
}


def made(architecture, **options):
    """Weights of an architecture as timm has them, each tensor with values of its own."""
    torch.manual_seed(3)
    model = timm.create_model(architecture, **options)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value += 0.02 * torch.randn_like(value)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with weights of 224 pixels and 1000 classes for all three backbones."""
    folder = tmp_path_factory.mktemp("imagenet")
    for architecture in BUILD:
        save_file(made(architecture).state_dict(), folder / f"{architecture}.safetensors")
    return folder


def file_of(files, architecture):
    return weights.load_state_dict(str(files / f"{architecture}.safetensors"))


def body(model, head):
    return {key: v for key, v in model.state_dict().items() if not key.startswith(head)}


def test_a_student_starts_from_undistilled_weights(files):
    source = file_of(files, DEIT)
    student, start = build_student("deit_tiny", str(files / f"{DEIT}.safetensors"), 224)
    mine = student.state_dict()
    for key in set(source) - {"pos_embed", "head.weight", "head.bias"}:
        assert torch.equal(mine[key], source[key]), key
    assert torch.equal(student.dist_token, source["cls_token"])
    assert torch.equal(student.pos_embed[:, 0], source["pos_embed"][:, 0])
    assert torch.equal(student.pos_embed[:, 1], source["pos_embed"][:, 0])
    assert torch.equal(student.pos_embed[:, 2:], source["pos_embed"][:, 1:])
    assert student.head.weight.shape == student.head_dist.weight.shape == (1, 192)
    assert not torch.equal(student.head.weight, student.head_dist.weight)
    assert start["new"] == HEADS
    assert start["unused"] == ["head.bias", "head.weight"]
    assert start["loaded"] == len(mine) - len(HEADS)
    assert start["resampled"] == []
    assert start["distillation_token"] == "copied from the class token"


def pth(content):
    return lambda state, path: torch.save(content(state), path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".safetensors", save_file),
        (".pth", pth(lambda state: {"model": state})),
        (".pth", pth(lambda state: {"state_dict": state, "epoch": 3, "args": Namespace(lr=0.1)})),
        (".pt", pth(lambda state: {f"module.{key}": value for key, value in state.items()})),
    ],
    ids=["safetensors", "model", "state_dict", "parallel"],
)
def test_every_format_of_timm_gives_the_same_start(tmp_path, suffix, write):
    source = made(DEIT).state_dict()
    path = tmp_path / f"weights{suffix}"
    write(source, path)
    student, start = build_student("deit_tiny", str(path), 224)
    assert torch.equal(student.blocks[5].mlp.fc1.weight, source["blocks.5.mlp.fc1.weight"])
    assert start["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert start["tensors_sha256"] == tensors_sha256(source)


def test_the_tensors_hash_tells_values_names_and_shapes_apart():
    a = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.zeros(2)}
    others = [a | {"x": a["x"] + 1e-6}, a | {"x": a["x"].reshape(3, 2)}, {"x": a["x"]}]
    others.append({"z": a["x"], "y": a["y"]})
    assert len({tensors_sha256(found) for found in (a, *others)}) == 5
    assert tensors_sha256(a) == tensors_sha256({"y": a["y"], "x": a["x"].T.contiguous().T})


def test_the_authors_own_file_of_swin_is_understood(tmp_path):
    """Microsoft's names: downsampling ends a stage, one head, buffers among the weights."""
    source = made(SWIN).state_dict()
    theirs = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49)}
    for key, value in source.items():
        if "downsample" in key:
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}", f"layers.{stage - 1}")
        theirs[key.replace("head.fc", "head")] = value
    torch.save({"model": theirs}, tmp_path / "swin.pth")
    teacher, start = build_teacher("swin", str(tmp_path / "swin.pth"), 224)
    mine = body(teacher, "head.fc")
    assert all(torch.equal(mine[key], source[key]) for key in mine)
    assert start["unused"] == sorted(start["new"]) == ["head.fc.bias", "head.fc.weight"]


@pytest.mark.parametrize("architecture", BUILD)
def test_weights_of_another_task_precision_and_size_fit(tmp_path, architecture):
    """Like the faces' own: half precision, 31 targets, another image size."""
    options = {} if architecture == "resnet50" else {"img_size": 112}
    source = made(architecture, num_classes=31, **options).state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.items()}
    save_file(half, tmp_path / f"{architecture}.safetensors")
    whole = {k: v.float() if v.is_floating_point() else v for k, v in half.items()}
    whole = tensors_sha256(whole)
    build, name, head = BUILD[architecture]
    for image_size in (112, 64):
        model, start = build(name, str(tmp_path), image_size)
        assert all(v.dtype == torch.float32 for v in model.parameters())
        assert start["tensors_sha256"] == whole
        mine, moved = body(model, head), start["resampled"]
        untouched = set(mine) & set(half) - set(moved) - {"pos_embed"}
        assert len(untouched) > 100
        assert all(torch.equal(mine[key], half[key].to(mine[key].dtype)) for key in untouched)
        assert all(key.startswith(head) for key in [*start["new"], *start["unused"]])
        assert len(start["unused"]) == 2
        out = model.eval()(torch.zeros(1, 3, image_size, image_size))
        assert out.shape == (1, 1)
        assert out.isfinite().all()
    assert bool(moved) == (architecture != "resnet50")


def test_what_the_file_has_too_much_is_told(tmp_path):
    source = made(DEIT).state_dict() | {"odd.weight": torch.zeros(2)}
    save_file(source, tmp_path / "w.safetensors")
    _, start = build_student("deit_tiny", str(tmp_path / "w.safetensors"), 224)
    assert start["unused"] == ["head.bias", "head.weight", "odd.weight"]


@pytest.mark.parametrize("architecture", BUILD)
def test_resampling_to_the_same_size_changes_nothing(files, architecture):
    build, name, head = BUILD[architecture]
    model, start = build(name, str(files), 224)
    source = file_of(files, architecture)
    mine = body(model, head)
    same = set(mine) - {"dist_token", "pos_embed" if architecture == DEIT else ""}
    assert all(torch.equal(mine[key], source[key]) for key in same)
    assert start["resampled"] == []


def smooth_positions(side, width=192):
    """Waves over a side × side grid of patches, which any size samples alike, (1, side², D)."""
    place = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(place, place, indexing="ij")
    waves = torch.arange(width)
    angle = 3 * (x[..., None] * (waves % 4) + y[..., None] * (waves // 4 % 4)) + waves
    return angle.sin().reshape(1, side * side, width)


@pytest.mark.parametrize("distilled", [False, True])
def test_positions_of_224_pixels_are_those_of_256_on_a_finer_grid(tmp_path, distilled):
    source = made(DEIT_DISTILLED if distilled else DEIT).state_dict()
    prefix = source["pos_embed"][:, : 1 + distilled] + 5
    source["pos_embed"] = torch.cat([prefix, smooth_positions(14)], 1)
    save_file(source, tmp_path / "w.safetensors")
    student, start = build_student("deit_tiny", str(tmp_path / "w.safetensors"), 256)
    assert student.pos_embed.shape == (1, 2 + 16 * 16, 192)
    # class and distillation token have no place on the grid
    assert torch.equal(student.pos_embed[:, :1], prefix[:, :1])
    assert torch.equal(student.pos_embed[:, 1:2], prefix[:, -1:])
    inner = (student.pos_embed[0, 2:] - smooth_positions(16)[0]).reshape(16, 16, -1)[2:-2, 2:-2]
    assert inner.abs().max() < 0.02
    assert start["resampled"] == ["pos_embed"]


def test_swin_keeps_its_windows_at_256_pixels(files):
    teacher, start = build_teacher("swin", str(files), 256)
    windows = {block.attn.window_size for stage in teacher.layers for block in stage.blocks}
    assert windows == {(7, 7)}
    assert start["resampled"] == []


# a warning would stand in the notebook that trains
@pytest.mark.filterwarnings("error")
def test_a_smaller_window_keeps_the_weight_of_what_lies_straight_ahead(files):
    """At 112 pixels the last stage has 4 × 4 places: the table's middle is offset (0, 0)."""
    key = "layers.3.blocks.1.attn.relative_position_bias_table"
    teacher, start = build_teacher("swin", str(files), 112)
    mine, source = teacher.state_dict()[key], file_of(files, SWIN)[key]
    assert mine.shape == (7 * 7, 24)
    torch.testing.assert_close(mine[24], source[84], atol=1e-4, rtol=1e-3)
    assert key in start["resampled"]


@pytest.mark.parametrize("architecture", BUILD)
def test_a_picture_is_seen_alike_at_224_and_256_pixels(files, architecture):
    """Of four pictures, each one's features at 256 are nearest to its own at 224."""
    build, name, _ = BUILD[architecture]
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    features = []
    for image_size in (224, 256):
        model, _ = build(name, str(files), image_size)
        pictures = F.interpolate(noise, (image_size, image_size), mode="bicubic")
        with torch.inference_mode():
            found = model.eval().forward_features(pictures)
        # ResNet (N, C, H, W), Swin (N, H, W, C), DeiT (N, tokens, C)
        axes = {"resnet50": (2, 3), SWIN: (1, 2), DEIT: 1}[architecture]
        features.append(found.mean(axes))
    small, large = (part - part.mean(0) for part in features)
    alike = F.cosine_similarity(small[:, None], large[None], dim=2)
    assert alike.argmax(1).tolist() == [0, 1, 2, 3]
    assert alike.diagonal().min() > 0.7


@pytest.fixture
def hub(monkeypatch):
    """A hub that has every model; the list is what was asked of it."""
    asked = []
    create = timm.create_model

    def fetch(architecture, pretrained=False, **options):
        if not pretrained:
            return create(architecture, **options)
        asked.append(architecture)
        return made(architecture)

    monkeypatch.setattr(weights.timm, "create_model", fetch)
    return asked


def test_imagenet_means_undistilled_weights_for_students(hub):
    _, start = build_student("deit_tiny", "imagenet", 224)
    assert hub == ["deit_tiny_patch16_224.fb_in1k"]
    assert start["init"] == "imagenet"
    assert start["architecture"] == "deit_tiny_patch16_224.fb_in1k"
    assert start["tensors_sha256"] == tensors_sha256(made(DEIT).state_dict())
    assert start["distillation_token"] == "copied from the class token"


def test_the_distilled_checkpoint_brings_its_own_token_but_no_head(hub):
    student, start = build_student("deit_tiny", "imagenet_distilled", 224)
    source = made(DEIT_DISTILLED).state_dict()
    assert hub == ["deit_tiny_distilled_patch16_224.fb_in1k"]
    assert torch.equal(student.dist_token, source["dist_token"])
    assert not torch.equal(student.dist_token, source["cls_token"])
    assert torch.equal(student.pos_embed, source["pos_embed"])
    assert start["init"] == "imagenet_distilled"
    assert start["distillation_token"] == "from the weights"
    assert start["new"] == HEADS
    assert start["unused"] == sorted(HEADS)
    assert student.head_dist.weight.shape == (1, 192)


def test_beside_distilled_students_teachers_start_as_ever(hub):
    _, start = build_teacher("resnet50", "imagenet_distilled", 224)
    assert hub == ["resnet50.a2_in1k"]
    assert start["init"] == "imagenet"


def test_a_hub_that_cannot_be_reached_is_one_sentence_with_two_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StudyError) as caught:
        build_teacher("resnet50", "imagenet", 224)
    said = str(caught.value)
    assert "resnet50.a2_in1k could not be fetched" in said
    assert "connect to the hub once, or set init to a local file" in said
    assert said.count(". ") == 0
    assert "\n" not in said


def test_one_folder_serves_every_arm(files):
    for architecture, (build, name, _) in BUILD.items():
        _, start = build(name, str(files), 32)
        assert start["file"].endswith(f"{architecture}.safetensors")
        assert start["folder"] == str(files)


def test_the_start_from_faces_is_a_file_of_the_repository(files, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "FACES_WEIGHTS", tmp_path)
    with pytest.raises(StudyError, match=r"deit_tiny_patch16_224\.safetensors .*does not exist"):
        build_student("deit_tiny", "faces", 224)
    monkeypatch.setattr(weights, "FACES_WEIGHTS", files)
    student, start = build_student("deit_tiny", "faces", 224)
    assert torch.equal(student.norm.weight, file_of(files, DEIT)["norm.weight"])
    assert start["init"] == "faces"
    assert "folder" not in start


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("resnet50", DEIT, r"does not fit resnet50: it lacks \d+ tensors, .* among them\.$"),
        ("swin", "resnet50", r"does not fit swin_tiny_patch4_window7_224: it lacks \d+ tensors"),
        ("swin_base", SWIN, r"does not fit swin_base.*: its tensors have other shapes or names"),
    ],
)
def test_weights_of_another_architecture_are_refused(files, name, file, sentence):
    with pytest.raises(StudyError, match=sentence):
        build_teacher(name, str(files / f"{file}.safetensors"), 224)


def test_a_teachers_weights_do_not_fit_a_student(files):
    with pytest.raises(StudyError, match="does not fit deit_tiny_patch16_224: it lacks"):
        build_student("deit_tiny", str(files / "resnet50.safetensors"), 224)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_that_is_no_weights_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(StudyError, match=rf"{name} cannot be read \(\w+\)\.$"):
        build_teacher("resnet50", str(tmp_path / name), 224)


def test_a_file_without_tensors_is_named(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(StudyError, match=r"w\.pth holds no tensors\.$"):
        build_teacher("resnet50", str(tmp_path / "w.pth"), 224)


def test_a_missing_weights_file_is_named():
    with pytest.raises(StudyError, match=r"no/such\.safetensors .*does not exist"):
        build_teacher("resnet50", "no/such.safetensors", 224)
