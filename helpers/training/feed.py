"""The batches of an epoch: which faces in which order, their views, and the way to the device.

Order and views are drawn from (seed, epoch) alone, so a batch can be had again at any time: after
a kill, or for a teacher that answers beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from helpers.training.augment import augment, draw_views
from helpers.training.faces import FaceStore

# The share of a GPU's free memory that the faces may take.
_GPU_SHARE = 0.25


@dataclass
class Batch:
    """N faces of a step.

    Attributes:
        rows: (N,) their positions in the store.
        images: (N, 3, image_size, image_size) float32, augmented and normalised, on the device.
        labels: (N,) float32, on the device.
    """

    rows: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor


class Feed:
    """Gives the batches of any epoch, without making the host wait for the device.

    Faces live on a GPU whole where they take no more than a quarter of its free memory; else each
    batch goes there through pinned memory.

    Args:
        faces: the store.
        rows: which of its faces to train on.
        seed: of order and views.
        batch_size: faces a batch; what is left over at the end of an epoch is not seen in it.
        image_size: side of a view in pixels.
        device: where the batches go.
    """

    def __init__(
        self,
        faces: FaceStore,
        rows: np.ndarray,
        seed: int,
        batch_size: int,
        image_size: int,
        device: torch.device,
    ) -> None:
        self.faces, self.rows, self.seed = faces, rows, seed
        self.batch_size, self.image_size, self.device = batch_size, image_size, device
        self.images = faces.images
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if faces.images.numel() <= _GPU_SHARE * free:
                self.images = faces.images.to(device)

    @property
    def steps(self) -> int:
        """Batches an epoch; a set smaller than one batch is one."""
        return max(1, len(self.rows) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of `epoch` in the order in which they are seen."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(self.rows)
        return order[: self.steps * self.batch_size]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch`, from step `start` on."""
        order = self.order(epoch)
        # One copy an epoch: a step then takes its part without a word to the host.
        views = draw_views(len(self.faces.table), self.seed, epoch)[order].to(self.device)
        labels = self.faces.labels[order].to(self.device)
        places = torch.from_numpy(order).to(self.images.device)
        for step in range(start, self.steps):
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            images = self._on_device(places[part])
            yield Batch(order[part], augment(images, views[part], self.image_size), labels[part])

    def _on_device(self, places: torch.Tensor) -> torch.Tensor:
        if self.images.device == self.device or self.device.type == "cpu":
            return self.images[places]
        shape = (len(places), *self.images.shape[1:])
        pinned = torch.empty(shape, dtype=self.images.dtype, pin_memory=True)
        torch.index_select(self.images, 0, places, out=pinned)
        return pinned.to(self.device, non_blocking=True)
