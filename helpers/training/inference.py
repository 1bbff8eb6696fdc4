"""What a model says of faces as they are: no augmentation, no gradients."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers.devices import autocast
from helpers.networks.models import head_logits
from helpers.training.augment import plain_view

_BATCH = 64


def predict(
    model: nn.Module,
    images: torch.Tensor,
    image_size: int,
    dtype: torch.dtype,
    rows: np.ndarray | None = None,
) -> torch.Tensor:
    """Return the logits of every head, (N, heads) float32 on the CPU, for (N, 3, S, S) uint8.

    `rows`: which of the images, all without it; they are taken out batch by batch, so the images
    may be more than fit into memory.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    count = len(images) if rows is None else len(rows)
    parts = []
    with torch.inference_mode():
        for start in range(0, count, _BATCH):
            part = slice(start, start + _BATCH)
            batch = images[part] if rows is None else images[rows[part]]
            with autocast(device, dtype):
                parts.append(head_logits(model, plain_view(batch.to(device), image_size)).float())
    model.train(training)
    return torch.cat(parts).cpu()


def predict_alike(
    model: nn.Module, images: torch.Tensor, image_size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return `predict`'s logits of images that come in any number, alike for each of them.

    In bfloat16 a batch of a few faces is rounded otherwise, which moves P(pain) by up to a
    hundredth, so the last batch is filled up to the size of the others.
    """
    more = 0 if dtype == torch.float32 else -len(images) % _BATCH
    filled = torch.cat((images, images[-1:].expand(more, -1, -1, -1)))
    return predict(model, filled, image_size, dtype)[: len(images)]


def auroc(labels: torch.Tensor, scores: torch.Tensor) -> float:
    """Return the area under the ROC curve, NaN where only one class is there."""
    if len(labels.unique()) < 2:
        return float("nan")
    return float(roc_auc_score(labels.numpy(), scores.numpy()))
