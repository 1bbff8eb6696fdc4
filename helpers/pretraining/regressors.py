"""The networks of pretraining: timm architectures with a linear output for each facial action."""

from pathlib import Path

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch import nn

from helpers.networks.layers import family, stages
from helpers.networks.models import STUDENTS, TEACHERS


def earlier_stages(model: nn.Module) -> list[nn.Module]:
    """Return the two stages before the last of a network that has several resolutions."""
    return [] if family(model) == "deit" else list(stages(model).values())[-3:-1]


def create_regressor(
    backbone: str, image_size: int, outputs: int, start: Path | None = None
) -> nn.Module:
    """Create the timm architecture of `backbone` with `outputs` linear outputs.

    From the weights `start`, made at any image size, where given: position embeddings and windows
    are resampled by timm. Without `start`, the position embeddings of a plain Transformer begin as
    sines and cosines of the place (Vaswani et al. 2017, in two dimensions).
    """
    name = ({**TEACHERS, **STUDENTS})[backbone].split(".")[0]
    options = {"num_classes": outputs} | ({} if "resnet" in name else {"img_size": image_size})
    if start is not None:
        overlay = {"file": str(start), "num_classes": outputs}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    model = timm.create_model(name, **options)
    if start is None and "deit" in name:
        grid = build_sincos2d_pos_embed(
            model.patch_embed.grid_size, model.embed_dim, interleave_sin_cos=False
        )
        with torch.no_grad():
            model.pos_embed[0, model.num_prefix_tokens :] = grid.reshape(-1, model.embed_dim)
    return model
