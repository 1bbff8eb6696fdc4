"""Teachers and students: timm architectures with one logit a head, and a named start.

Every model gives P(pain) as the sigmoid of a logit, so the binary cross-entropy of the protocol
is literal. A teacher has one head; a student has two, on the class and the distillation token.
"""

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.errors import StudyError
from helpers.networks.weights import add_distillation_token, load_weights, read_weights

# Weights of about 300 epochs on ImageNet-1k alone, so that the teachers differ in architecture
# and not in what they have seen.
TEACHERS = {
    "resnet50": "resnet50.a2_in1k",
    "swin": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_base": "swin_base_patch4_window7_224.ms_in1k",
}
# The undistilled weights: the distilled ones have already been taught by a CNN (RegNetY), and are
# had by the start `imagenet_distilled`.
STUDENTS = {
    "deit_tiny": "deit_tiny_patch16_224.fb_in1k",
    "deit_small": "deit_small_patch16_224.fb_in1k",
    "deit_base": "deit_base_patch16_224.fb_in1k",
}
CLASS, DISTILLATION = 0, 1


def build_teacher(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the teacher `name` with one logit.

    `init`: `scratch`, or where the weights of all but the head come from, see
    `weights.read_weights`. `imagenet_distilled` speaks of students: a teacher then takes its plain
    ImageNet weights. Returns the model and a description of its start for `params.json`. Raises
    `StudyError` for an unknown name, or weights that cannot be had or do not fit.
    """
    if name not in TEACHERS:
        raise StudyError(f"Unknown teacher '{name}': choose one of {', '.join(TEACHERS)}.")
    architecture = TEACHERS[name].split(".")[0]
    options = {} if "resnet" in architecture else {"img_size": image_size}
    teacher = timm.create_model(architecture, num_classes=1, **options)
    if init == "scratch":
        return teacher, {"init": init, "architecture": architecture}
    source = "imagenet" if init == "imagenet_distilled" else init
    return teacher, load_weights(teacher, *read_weights(TEACHERS[name], source))


def build_student(name: str, init: str, image_size: int) -> tuple[nn.Module, dict]:
    """Build the distilled DeiT `name`, with two heads of one logit each.

    Both heads are new. From undistilled weights, which is the rule, the distillation token and
    its position start as the class token's; weights that have such a token (`init` =
    `imagenet_distilled`, or a file of them) bring it. Otherwise as `build_teacher`.
    """
    if name not in STUDENTS:
        raise StudyError(f"Unknown student '{name}': choose one of {', '.join(STUDENTS)}.")
    undistilled = STUDENTS[name].split(".")[0]
    student = timm.create_model(_distilled(undistilled), num_classes=1, img_size=image_size)
    if init == "scratch":
        return student, {"init": init, "architecture": undistilled}
    distilled = init == "imagenet_distilled"
    source = _distilled(STUDENTS[name]) if distilled else STUDENTS[name]
    weights, start = read_weights(source, init)
    start["distillation_token"] = "from the weights"
    if "dist_token" not in weights and {"cls_token", "pos_embed"} <= set(weights):
        weights = add_distillation_token(weights)
        start["distillation_token"] = "copied from the class token"
    return student, load_weights(student, weights, start)


def _distilled(architecture: str) -> str:
    return architecture.replace("_patch", "_distilled_patch")


def choose_attention(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Choose how a Transformer that is trained in `dtype` computes its attention on `device`.

    torch's fused attention, except in low precision on a CPU: there its backward pass alone takes
    longer than the same attention written as two matrix products with a softmax between.
    """
    fused = device.type != "cpu" or dtype == torch.float32
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused


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
