"""Which layers of a network are looked into, and how their outputs are caught."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from helpers.errors import StudyError


def family(model: nn.Module) -> str:
    """Return `resnet`, `swin` or `deit`; raise `StudyError` for another architecture."""
    marks = {"resnet": "layer4", "swin": "layers", "deit": "blocks"}
    for name, part in marks.items():
        if hasattr(model, part):
            return name
    raise StudyError(f"A {type(model).__name__} is neither a ResNet, a Swin nor a DeiT.")


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that stand for a network's depth, by name, the first one first.

    ResNet: the stem and the four stages. Swin: the four stages. DeiT: the blocks that end each
    quarter of its depth. Raises `StudyError` for another architecture.
    """
    kind = family(model)
    if kind == "resnet":
        named = {f"stage {k}": getattr(model, f"layer{k}") for k in range(1, 5)}
        return {"stem": model.maxpool} | named
    if kind == "swin":
        return {f"stage {k}": stage for k, stage in enumerate(model.layers, start=1)}
    depth = len(model.blocks)
    return {f"block {k}": model.blocks[k - 1] for k in range(depth // 4, depth + 1, depth // 4)}


@contextmanager
def caught(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what `module` returns, in the order of its calls."""
    outputs: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()
