"""The recipe's optimiser and the schedule of its learning rate."""

from types import SimpleNamespace

import torch
from torch import nn

# One-cycle's share of warm-up: enough for Adam's second moments to settle.
_WARM_UP = 0.1


def make_optimizer(model: nn.Module, recipe: SimpleNamespace) -> torch.optim.Optimizer:
    """Return Adam or AdamW over all parameters, by the recipe."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: SimpleNamespace, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate, stepped after every batch.

    `step` multiplies by `lr_gamma` every `lr_step` epochs; `one_cycle` warms up for a tenth of
    the steps and falls by a cosine.
    """
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps, pct_start=_WARM_UP, cycle_momentum=False
        )
    steps_an_epoch = total_steps // recipe.epochs
    return torch.optim.lr_scheduler.StepLR(
        optimizer, recipe.lr_step * steps_an_epoch, recipe.lr_gamma
    )
