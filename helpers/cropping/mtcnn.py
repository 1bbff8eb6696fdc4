"""MTCNN on many pictures at once: facenet-pytorch's numbers in a fraction of the time.

The only file that imports facenet-pytorch. MTCNN: Zhang, Zhang, Li and Qiao, "Joint face detection
and alignment using multitask cascaded convolutional networks", IEEE Signal Processing Letters 23,
2016. Networks, weights, thresholds and the arithmetic of the boxes are the package's. What is done
another way gives the same numbers:

- Each stage looks at means of the picture over rectangles (the levels of the pyramid, the
  candidates). They are read off a summed-area table (Crow, SIGGRAPH 1984) instead of adding up the
  same pixels for every level and candidate again; the sums are of whole numbers, and so exact.
- The maximum is pooled with the channels last in memory, where torch has a vectorised kernel.
- The levels too fine for the smallest face are left out.
"""

import threading

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import (
    batched_nms_numpy,
    bbreg,
    fixed_batch_process,
    generateBoundingBox,
    pad,
    rerec,
)
from torch import nn
from torchvision.ops.boxes import batched_nms

SMALLEST_FACE, STEP = 20, 0.709  # the package's default pyramid begins for faces of 20 pixels
_WINDOW = 12  # pixels that the first network sees of a face
_THRESHOLDS = (0.6, 0.7, 0.7)


def levels(height: int, width: int, smallest: float, begin: float) -> list[float]:
    """Return the scales of the pyramid that begins for faces of `begin` pixels.

    Scales whose next coarser one still shows faces of `smallest` pixels are left out.
    """
    scale, scales = _WINDOW / begin, []
    side = min(height, width) * scale
    while side >= _WINDOW - 1e-6:  # a picture as large as the smallest face has a level
        scales.append(scale)
        scale, side = scale * STEP, side * STEP
    return [s for s in scales if _WINDOW / (s * STEP) > smallest]


class Cascade(nn.Module):
    """The three networks; call it on a batch of pictures."""

    def __init__(self, device: torch.device) -> None:
        """Load the networks with the package's weights."""
        super().__init__()
        mtcnn = MTCNN(device=device)
        self.device = device
        self._mine = threading.local()
        self.pnet, self.rnet, self.onet = mtcnn.pnet, mtcnn.rnet, mtcnn.onet
        if device.type == "cpu":
            for network in (self.rnet, self.onet):
                for name, layer in list(network.named_children()):
                    if isinstance(layer, nn.MaxPool2d):
                        setattr(network, name, _PoolChannelsLast(layer))

    @torch.inference_mode()
    def forward(
        self, pictures: np.ndarray, scales: list[float], to_the_bit: bool = False
    ) -> list[tuple[np.ndarray, ...]]:
        """Return boxes (k, 4), probabilities (k,) and landmarks (k, 5, 2) of each picture's faces.

        `pictures`: (n, height, width, 3), uint8; `scales`: see `levels`. In pixels of the pictures.
        On a CPU the results are those of the package but for rounding (1e-4 pixels), and in less
        time; `to_the_bit` they are the same, where the package is given the same batch.
        """
        sums = self._summed(pictures)
        height, width = pictures.shape[1:3]
        order = torch.contiguous_format if to_the_bit else torch.channels_last
        boxes, of = self._propose(sums, scales)
        boxes, of = self._refine(sums, *_inside(boxes, of, height, width), order)
        boxes, points, of = self._finish(sums, *_inside(boxes, of, height, width), order)
        boxes, points, of = boxes.cpu().numpy(), points.cpu().numpy(), of.cpu().numpy()
        mine = [of == i for i in range(len(pictures))]
        return [(boxes[m, :4], boxes[m, 4], points[m]) for m in mine]

    def _summed(self, pictures: np.ndarray) -> torch.Tensor:
        """Return the sums above and to the left of places: (n, height + 1, width + 1, 3), int32.

        In a picture of more than 8 million pixels they may wrap around; their differences do not.
        """
        n, height, width, channels = pictures.shape
        if self.device.type != "cpu":
            batch = torch.as_tensor(pictures, device=self.device)
            inner = batch.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
            return nn.functional.pad(inner, (0, 0, 1, 0, 1, 0))
        shape = (n, height + 1, width + 1, channels)
        sums = getattr(self._mine, "sums", None)
        if sums is None or sums.shape != shape:  # new memory costs as much time as the sums
            sums = self._mine.sums = np.zeros(shape, np.int32)
        for table, picture in zip(sums, pictures, strict=True):
            inner = table[1:, 1:]
            inner[...] = picture
            np.cumsum(inner, axis=1, out=inner)
            for y in range(1, height):  # numpy's own sum along this axis takes twice as long
                table[y + 1] += table[y]
        return torch.from_numpy(sums)

    def _propose(self, sums: torch.Tensor, scales: list[float]) -> tuple:
        """Stage 1: candidates (k, 5) of all levels and the pictures (k,) that they are in."""
        height, width = sums.shape[1] - 1, sums.shape[2] - 1
        every = torch.arange(len(sums), device=self.device)
        zero = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        found, of = [], []
        for scale in scales:
            rows = _bins(zero, height, int(height * scale + 1), self.device)
            columns = _bins(zero, width, int(width * scale + 1), self.device)
            means = _means(sums, every, rows, columns)
            shifts, probabilities = self.pnet(_normalised(means).permute(0, 3, 1, 2))
            boxes, images = generateBoundingBox(shifts, probabilities[:, 1], scale, _THRESHOLDS[0])
            pick = batched_nms(boxes[:, :4], boxes[:, 4], images, 0.5)
            found.append(boxes[pick])
            of.append(images[pick])
        boxes, of = torch.cat(found), torch.cat(of)
        pick = batched_nms(boxes[:, :4], boxes[:, 4], of, 0.7)
        boxes, of = boxes[pick], of[pick]
        size = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        boxes = torch.cat((boxes[:, :4] + boxes[:, 5:] * size, boxes[:, 4:5]), dim=1)
        return rerec(boxes), of

    def _refine(self, sums: torch.Tensor, boxes, of, places, order: torch.memory_format) -> tuple:
        """Stage 2: the candidates that the second network keeps, moved and made square."""
        if not len(boxes):
            return boxes, of
        shifts, scores = fixed_batch_process(self._look(sums, of, places, 24, order), self.rnet)
        keep = scores[:, 1] > _THRESHOLDS[1]
        boxes = torch.cat((boxes[keep, :4], scores[keep, 1:]), dim=1)
        of, shifts = of[keep], shifts[keep]
        pick = batched_nms(boxes[:, :4], boxes[:, 4], of, 0.7)
        return rerec(bbreg(boxes[pick], shifts[pick])), of[pick]

    def _finish(self, sums: torch.Tensor, boxes, of, places, order: torch.memory_format) -> tuple:
        """Stage 3: the faces, their landmarks and the pictures that they are in."""
        if not len(boxes):
            return boxes, boxes.new_zeros(0, 5, 2), of
        seen = self._look(sums, of, places, 48, order)
        shifts, points, scores = fixed_batch_process(seen, self.onet)
        keep = scores[:, 1] > _THRESHOLDS[2]
        boxes = torch.cat((boxes[keep, :4], scores[keep, 1:]), dim=1)
        of, shifts, points = of[keep], shifts[keep], points[keep]
        size = boxes[:, 2:4] - boxes[:, :2] + 1
        points = points.reshape(-1, 2, 5).transpose(1, 2)
        points = size[:, None] * points + boxes[:, None, :2] - 1
        boxes = bbreg(boxes, shifts)
        pick = batched_nms_numpy(boxes[:, :4], boxes[:, 4], of, 0.7, "Min")
        return boxes[pick], points[pick], of[pick]

    def _look(self, sums: torch.Tensor, of, places, size: int, order) -> torch.Tensor:
        """Return what a network sees of each candidate: (k, 3, size, size)."""
        y, end_y, x, end_x = (torch.as_tensor(p, device=self.device)[:, None] for p in places)
        rows = _bins(y - 1, end_y - y + 1, size, self.device)
        columns = _bins(x - 1, end_x - x + 1, size, self.device)
        means = _means(sums, of, rows, columns)
        return _normalised(means).permute(0, 3, 1, 2).contiguous(memory_format=order)


class _PoolChannelsLast(nn.MaxPool2d):
    """Maximum pooling with the channels last in memory; the output is arranged as the input is."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        super().__init__(layer.kernel_size, layer.stride, ceil_mode=layer.ceil_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool `x` (n, channels, height, width)."""
        if x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        return super().forward(x.contiguous(memory_format=torch.channels_last)).contiguous()


def _bins(start, length, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each of `count` bins begins and ends, as torch's adaptive pooling has them."""
    i = torch.arange(count, device=device)
    return start + i * length // count, start - -(i + 1) * length // count


def _means(sums: torch.Tensor, of: torch.Tensor, rows: tuple, columns: tuple) -> torch.Tensor:
    """Return the means over a grid in each picture `of`: (k, rows, columns, 3).

    `of`: (k,); `rows` and `columns`: where the bins begin and end, each (k, count), or (1, count)
    for one grid in all.
    """
    _, height, width, _ = sums.shape
    flat = sums.view(-1, 3)

    def corner(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        place = (of[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
        return flat.index_select(0, place.flatten()).view(*place.shape, 3)

    (top, bottom), (left, right) = rows, columns
    total = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    return total / (bottom - top)[:, :, None, None] / (right - left)[:, None, :, None]


def _normalised(means: torch.Tensor) -> torch.Tensor:
    return (means - 127.5) * 0.0078125


def _inside(boxes: torch.Tensor, of: torch.Tensor, height: int, width: int) -> tuple:
    """Return the candidates that have pixels in the picture, and these pixels' ranges.

    The package stumbles over a candidate without any.
    """
    y, end_y, x, end_x = pad(boxes, width, height)
    some = (end_y >= y) & (end_x >= x)
    keep = torch.from_numpy(some).to(boxes.device)
    return boxes[keep], of[keep], [p[some] for p in (y, end_y, x, end_x)]
