"""Teachers and students: timm architectures with one logit a head, and a named start.

Every model gives P(pain) as the sigmoid of a logit, so the binary cross-entropy of the protocol
is literal. A teacher has one head; a student has two, on the class and the distillation token.
"""

from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.errors import StudyError
from helpers.files import project_path, sha256, short_path

# Weights of about 300 epochs on ImageNet-1k alone, so that the teachers differ in architecture
# and not in what they have seen.
TEACHERS = {
    "resnet50": "resnet50.a2_in1k",
    "swin": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_base": "swin_base_patch4_window7_224.ms_in1k",
}
# The undistilled weights: the distilled ones have already been taught by a CNN (RegNetY).
STUDENTS = {
    "deit_tiny": "deit_tiny_patch16_224.fb_in1k",
    "deit_small": "deit_small_patch16_224.fb_in1k",
    "deit_base": "deit_base_patch16_224.fb_in1k",
}
FACES_WEIGHTS = Path("data/weights/faces")
CLASS, DISTILLATION = 0, 1


def build_teacher(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the teacher `name` with one logit; see `_start` for `init` and the errors.

    Returns the model and a description of its start for `params.json`.
    """
    if name not in TEACHERS:
        raise StudyError(f"Unknown teacher '{name}': choose one of {', '.join(TEACHERS)}.")
    return _start(TEACHERS[name], init, image_size)


def build_student(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the distilled DeiT `name`, with two heads of one logit each.

    It starts from undistilled weights: the distillation token and its position from the class
    token's, the two binary heads new. Returns the model and a description of its start.
    """
    if name not in STUDENTS:
        raise StudyError(f"Unknown student '{name}': choose one of {', '.join(STUDENTS)}.")
    undistilled = STUDENTS[name].split(".")[0]
    student = timm.create_model(
        undistilled.replace("_patch", "_distilled_patch"), num_classes=1, img_size=image_size
    )
    if init == "scratch":
        return student, {"init": init, "architecture": STUDENTS[name].split(".")[0]}
    source, start = _start(STUDENTS[name], init, image_size)
    weights = source.state_dict()
    position = weights["pos_embed"]
    weights["dist_token"] = weights["cls_token"].clone()
    weights["pos_embed"] = torch.cat([position[:, :1], position[:, :1], position[:, 1:]], dim=1)
    weights = {key: value for key, value in weights.items() if not key.startswith("head.")}
    left_new, unused = student.load_state_dict(weights, strict=False)
    assert not unused, unused
    start["new"] = left_new
    start["distillation_token"] = "copied from the class token"
    return student, start


def _start(architecture: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Create a timm model with one logit from `imagenet`, `faces`, `scratch` or a file of weights.

    Raises `StudyError` where the weights cannot be had or do not fit the architecture.
    """
    name = architecture.split(".")[0]
    options = {"num_classes": 1}
    if "resnet" not in name:
        options["img_size"] = image_size
    if init == "scratch":
        return timm.create_model(name, **options), {"init": init, "architecture": name}
    if init == "imagenet":
        try:
            model = timm.create_model(architecture, pretrained=True, **options)
        except Exception as error:
            raise StudyError(
                f"The ImageNet weights of {architecture} could not be fetched "
                f"({type(error).__name__}): connect to the hub once, or set init to a local file "
                "of these weights."
            ) from error
        return model, {"init": init, "architecture": architecture, "new": _head_names(model)}
    path = project_path(FACES_WEIGHTS / f"{name}.safetensors" if init == "faces" else init)
    if not path.is_file():
        raise StudyError(f"The weights file {short_path(path)} (init '{init}') does not exist.")
    model = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options
    )
    head = _head_names(model)
    missing = set(model.state_dict()) - set(_read_weights(path)) - set(head)
    missing = [key for key in missing if "relative_position_index" not in key]
    if missing:
        raise StudyError(
            f"The weights file {short_path(path)} does not fit {name}: it lacks "
            f"{len(missing)} tensors, {sorted(missing)[0]} among them."
        )
    start = {"init": init, "architecture": name, "file": short_path(path), "new": head}
    return model, start | {"sha256": sha256(path)}


def _head_names(model: nn.Module) -> list[str]:
    head = model.pretrained_cfg["classifier"]
    return [key for key in model.state_dict() if key.startswith(f"{head}.")]


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return weights.get("model", weights.get("state_dict", weights))


def head_logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logit of every head, (N, 1) for a teacher and (N, 2) for a student.

    timm's own forward of a distilled DeiT averages the heads unless told otherwise, in which
    case both losses would act on one output and nothing would pass through the token.
    """
    if not hasattr(model, "head_dist"):
        return model(images)
    tokens = model.forward_features(images)
    heads = (model.head(tokens[:, CLASS]), model.head_dist(tokens[:, DISTILLATION]))
    return torch.cat(heads, dim=1)


def decision_logits(logits: torch.Tensor, distilled: bool) -> torch.Tensor:
    """Return the (N,) logits by which a model decides.

    A distilled student decides by the mean of its two heads (Touvron et al. 2021, section 4);
    a teacher, and a student that had none, by the class head.
    """
    return logits.mean(dim=1) if distilled else logits[:, CLASS]


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, image_size: int) -> int:
    """Return the multiply-accumulate operations of one image's forward pass."""
    model.eval()
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    # The mathematical form of attention is counted on every device; the fused one is not.
    with torch.inference_mode(), counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        head_logits(model, torch.zeros(1, 3, image_size, image_size, device=device))
    return counter.get_total_flops() // 2
