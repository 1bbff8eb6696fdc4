"""A trained ResNet made faster for a CPU that computes in bfloat16.

Batch norms are folded into the convolutions before them, which changes nothing but rounding, and
the weights are laid out once as oneDNN wants them, not anew at every call.
"""

import warnings

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch's words on its own scripting
    from torch.utils.mkldnn import MkldnnConv2d


def can_pack(model: nn.Module) -> bool:
    """Return whether `PackedResNet` knows this model: timm's ResNet of plain blocks."""
    if not (torch.backends.mkldnn.is_available() and isinstance(model, ResNet)):
        return False
    blocks = [block for stage in _stages(model) for block in stage]
    return isinstance(model.conv1, nn.Conv2d) and all(
        isinstance(block, BasicBlock | Bottleneck) and block.se is None for block in blocks
    )


def _stages(model: ResNet) -> list[nn.Module]:
    return [model.layer1, model.layer2, model.layer3, model.layer4]


class PackedResNet(nn.Module):
    """The logits of a ResNet in bfloat16 on a CPU; it can neither be trained nor moved.

    `model` is taken apart and must not be used afterwards.
    """

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        model.eval()
        for block in (model, *(block for stage in _stages(model) for block in stage)):
            _fold(block)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's words on its own scripting
            _pack(model)
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs) float32 for (N, 3, S, S) float32."""
        with torch.autocast("cpu", enabled=False):
            features = self.model.conv1(images.bfloat16().to_mkldnn())
            features = self.model.maxpool(self.model.act1(features))
            for stage in _stages(self.model):
                features = stage(features)
            return self.model.fc(features.to_dense().float().mean((2, 3)))


def _fold(block: nn.Module) -> None:
    for number in (1, 2, 3):
        norm = getattr(block, f"bn{number}", None)
        if norm is not None:
            conv = getattr(block, f"conv{number}")
            setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, norm))
            setattr(block, f"bn{number}", nn.Identity())
    shortcut = getattr(block, "downsample", None)
    if shortcut is not None:
        # timm's ResNet-D has a pooling before these two
        *before, conv, norm = shortcut
        block.downsample = nn.Sequential(*before, fuse_conv_bn_eval(conv, norm))


def _pack(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, MkldnnConv2d(child, torch.bfloat16))
        else:
            _pack(child)
