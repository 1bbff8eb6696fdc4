"""A small convolutional network, trained in minutes on a CPU: a yardstick, not an arm of the study.

It tells whether pictures can be told apart at all: shortcuts in the neutral half, and how hard the
expressive half is.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.devices import autocast, precision

_CHANNELS = (24, 48, 96, 128)
_BATCH = 32
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.02
_CPU = torch.device("cpu")


def small_net() -> nn.Sequential:
    """Build the network: four convolutions with pooling, one 3 × 3 map of features, one logit."""
    layers, last = [], 3
    for width in _CHANNELS:
        layers += [nn.Conv2d(last, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        last = width
    layers += [nn.Conv2d(last, last, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(9 * last, 1))


def small_net_learner(
    epochs: int, seed: int = 0
) -> Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Return a learner for `helpers.cropping.probes.probe` that trains the network for `epochs`."""
    return partial(train_small_net, epochs=epochs, seed=seed)


def train_small_net(
    images: np.ndarray,
    positive: np.ndarray,
    epochs: int,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Train on pictures and return what gives P(positive), (M,), for others.

    Args:
        images: (N, H, W, 3) uint8, at least 32 pixels a side.
        positive: (N,) bool.
        epochs: passes over the pictures: AdamW, one-cycle, flips, shifts, scale and brightness.
        seed: of the weights and of all that is drawn.
        weights: (N,), how much each picture counts; equally where not given.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs, labels = _tensor(images), torch.from_numpy(positive.astype(np.float32))
        counts = torch.ones(len(labels)) if weights is None else torch.from_numpy(weights).float()
        mean, std = inputs.mean((0, 2, 3), keepdim=True), inputs.std((0, 2, 3), keepdim=True)
        net = small_net().train().to(memory_format=torch.channels_last)
        dtype = precision(_CPU, amp=True)
        optimizer = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = epochs * (len(labels) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels)).split(_BATCH):
                if len(rows) < _BATCH:
                    continue
                with autocast(_CPU, dtype):
                    logits = net((_augment(inputs[rows]) - mean) / std)[:, 0].float()
                loss = F.binary_cross_entropy_with_logits(logits, labels[rows], counts[rows])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    net.eval()

    @torch.inference_mode()
    def score(others: np.ndarray) -> np.ndarray:
        views = (_tensor(others) - mean) / std
        with autocast(_CPU, dtype):
            logits = net(views).float() + net(views.flip(3)).float()
        return torch.sigmoid(logits[:, 0] / 2).numpy()

    return score


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _augment(batch: torch.Tensor) -> torch.Tensor:
    """Flip, scale by up to 10 %, shift by up to 6 % and change the brightness by up to 15 %."""
    count = len(batch)
    affine = torch.eye(2, 3).repeat(count, 1, 1)
    affine[:, :, :2] *= 1 + 0.2 * (torch.rand(count, 1, 1) - 0.5)
    affine[torch.rand(count) < 0.5, 0, 0] *= -1
    affine[:, :, 2] = 0.12 * (torch.rand(count, 2) - 0.5)
    grid = F.affine_grid(affine, batch.shape, align_corners=False)
    moved = F.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    return moved * (1 + 0.3 * (torch.rand(count, 1, 1, 1) - 0.5))
