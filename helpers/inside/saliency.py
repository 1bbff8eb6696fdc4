"""Where a network looks: Grad-CAM and attention rollout, as one map a face.

Grad-CAM (Selvaraju et al. 2017) asks which places speak for the pain logit. A teacher is asked at
the features that its head averages (of Swin the normalised ones), where the map before the ReLU
sums to the logit less the bias, so both teachers' maps mean the same. A DeiT is asked at the
tokens that enter its last attention, the last place where the patches still reach a head.

Attention rollout (Abnar and Zuidema 2020) follows the attention of a DeiT from the tokens of its
heads down to the patches. It knows no class: it tells where information could come from, not what
it speaks for, and it ignores values and MLPs. A student's rollout and a teacher's Grad-CAM are
different questions; across arms compare Grad-CAM with Grad-CAM.

Maps are coarse. A teacher's cell is 32 pixels wide and a DeiT's 16, whatever the image size, so
that at 112 pixels there are 4 x 4 and 7 x 7; see `cell_maps`. A cell is put where its receptive
field is centred, which for a ResNet's padded convolutions is half a cell further up and left than
stretching the map over the picture would put it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.errors import StudyError
from helpers.networks.layers import caught, family
from helpers.networks.models import CLASS, DISTILLATION, decision_logits, head_logits
from helpers.training.augment import plain_view

METHODS = {"grad_cam": "Grad-CAM", "rollout": "attention rollout"}
_BATCH = 32


def saliency(
    model: nn.Module,
    images: torch.Tensor,
    image_size: int,
    method: str | None = None,
    distilled: bool | None = None,
) -> np.ndarray:
    """Return one map a face, (N, image_size, image_size) float32, 0 or more, with sum 1.

    A map of Grad-CAM that is 0 everywhere (nothing speaks for pain) is all NaN: it has no place.

    Args:
        model: a teacher or a student, used in evaluation mode.
        images: (N, 3, S, S) uint8.
        image_size: side of the network's input in pixels.
        method: a key of `METHODS`; without it Grad-CAM for a teacher and rollout for a student.
        distilled: whether a student decides by both heads, which is the rule; else by the class
            head, and its maps are those of the class token.

    Raises:
        StudyError: for an unknown method or architecture, or the rollout of a teacher.
    """
    student = family(model) == "deit"
    method = method or ("rollout" if student else "grad_cam")
    distilled = student if distilled is None else distilled
    if method not in METHODS:
        raise StudyError(f"Unknown method '{method}': choose one of {', '.join(METHODS)}.")
    if method == "rollout" and not student:
        raise StudyError("Attention rollout needs a DeiT: only there each token attends to all.")
    compute = grad_cam if method == "grad_cam" else rollout
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(images), _BATCH):
        pixels = plain_view(images[start : start + _BATCH].to(device), image_size)
        parts.append(compute(model, pixels, distilled).float().cpu())
    model.train(training)
    maps = _enlarge(model, torch.cat(parts), image_size)
    sums = maps.sum((1, 2), keepdim=True)
    return torch.where(sums > 0, maps / sums, torch.nan).numpy()


def grad_cam(
    model: nn.Module, pixels: torch.Tensor, distilled: bool, *, relu: bool = True
) -> torch.Tensor:
    """Return the map of what speaks for pain in each cell, (N, cells, cells).

    Features at each cell, weighted by the mean gradient of the decision's logit over the cells,
    and without `relu=False` negative sums set to 0. `pixels`: (N, 3, S, S), normalised.
    """
    kind = family(model)
    layer = {
        "resnet": lambda: model.layer4,
        "swin": lambda: model.norm,
        "deit": lambda: model.blocks[-1].norm1,
    }[kind]()
    with caught(layer) as outputs, torch.enable_grad():
        # Frozen weights alone would leave no graph.
        logits = head_logits(model, pixels.detach().requires_grad_())
        (gradient,) = torch.autograd.grad(decision_logits(logits, distilled).sum(), outputs)
    features, gradient = (_cells(model, x.detach()) for x in (outputs[0], gradient))
    maps = (features * gradient.mean((1, 2), keepdim=True)).sum(3)
    return maps.relu() if relu else maps


def _cells(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Return features as (N, rows, columns, channels), without prefix tokens."""
    kind = family(model)
    if kind == "resnet":
        return features.permute(0, 2, 3, 1)
    if kind == "swin":
        return features
    return features[:, model.num_prefix_tokens :].unflatten(1, model.patch_embed.grid_size)


def rollout(model: nn.Module, pixels: torch.Tensor, distilled: bool) -> torch.Tensor:
    """Return how much of each patch reaches a DeiT's heads by attention, (N, cells, cells).

    The product over blocks of (A + 1) / 2, where A is the attention's mean over heads and 1 the
    residual path; the row of the class token, for a distilled student its mean with that of the
    distillation token, over the patches alone, with sum 1.
    """
    total = None
    for attention in attentions(model, pixels):
        identity = torch.eye(attention.shape[-1], device=attention.device)
        step = (attention.mean(1) + identity) / 2
        total = step if total is None else step @ total
    tokens = [CLASS, DISTILLATION] if distilled else [CLASS]
    patches = total[:, tokens, model.num_prefix_tokens :].mean(1)
    patches = patches / patches.sum(1, keepdim=True)
    return patches.unflatten(1, model.patch_embed.grid_size)


def attentions(model: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Return each block's attention, (N, heads, tokens, tokens), rows with sum 1.

    Computed from what enters the block's attention, as torch's fused attention keeps it to itself.
    """
    found = []

    def compute(attention: nn.Module, inputs: tuple) -> None:
        tokens = inputs[0]
        shape = (*tokens.shape[:2], 3, attention.num_heads, attention.head_dim)
        query, key, _ = attention.qkv(tokens).reshape(shape).permute(2, 0, 3, 1, 4)
        query, key = attention.q_norm(query), attention.k_norm(key)
        found.append((attention.scale * query @ key.transpose(-2, -1)).softmax(dim=-1))

    hooks = [block.attn.register_forward_pre_hook(compute) for block in model.blocks]
    try:
        with torch.inference_mode():
            head_logits(model, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def cell_maps(model: nn.Module, image_size: int) -> np.ndarray:
    """Return the maps of which all others are mixtures, (cells, image_size, image_size).

    One cell each has everything, so no share of a region can be above its largest share in these.
    """
    side = _side(model, image_size)
    single = torch.eye(side * side).reshape(-1, side, side)
    maps = _enlarge(model, single, image_size)
    return (maps / maps.sum((1, 2), keepdim=True)).numpy()


def _pitch(model: nn.Module) -> tuple[float, int]:
    """Return the centre of the first cell's receptive field and the cells' distance, in pixels."""
    kind = family(model)
    if kind == "resnet":
        return 0.5, 32  # every stride keeps the first pixel, as its kernel is centred there
    if kind == "swin":
        return 16.0, 32
    patch = model.patch_embed.patch_size[0]
    return patch / 2, patch


def _side(model: nn.Module, image_size: int) -> int:
    if family(model) == "deit":
        return model.patch_embed.grid_size[0]
    return -(-image_size // 32)


def _enlarge(model: nn.Module, maps: torch.Tensor, image_size: int) -> torch.Tensor:
    """Return (N, cells, cells) as (N, image_size, image_size): bilinear, the edge repeated."""
    first, pitch = _pitch(model)
    place = ((torch.arange(image_size) + 0.5 - first) / pitch).clamp(0, maps.shape[-1] - 1)
    weights = F.relu(1 - (place[:, None] - torch.arange(maps.shape[-1])).abs())
    return weights @ maps @ weights.T
