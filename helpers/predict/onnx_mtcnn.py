"""MTCNN on onnxruntime and numpy, where there is no torch.

The networks are facenet-pytorch's, exported by `export`; thresholds and arithmetic are those of
`mtcnn`, which names the source, picture by picture. Boxes agree with torch's to a hundredth of a
pixel, to which both are rounded.
"""

from pathlib import Path

import numpy as np

from helpers.predict.face_spec import DETECTOR
from helpers.predict.onnx_session import open_session

_THRESHOLDS = (0.6, 0.7, 0.7)
_STRIDE, _WINDOW = 2, 12  # of the first network, in pixels of its level
_BATCH = 512  # candidates that a network sees at a time


class OnnxCascade:
    """The three networks of a folder; takes the place of `mtcnn.Cascade`."""

    def __init__(self, folder: Path) -> None:
        """Open the networks; raise `StudyError` where one is missing."""
        self.pnet, self.rnet, self.onet = (open_session(folder / f"{n}.onnx") for n in DETECTOR)

    def __call__(
        self, pictures: np.ndarray, scales: list[float], to_the_bit: bool = False
    ) -> list[tuple[np.ndarray, ...]]:
        """Return boxes (k, 4), probabilities (k,) and landmarks (k, 5, 2) of each picture's faces.

        `pictures`: (n, height, width, 3), uint8; `scales`: of the pyramid. In pixels of the
        pictures. `to_the_bit` changes nothing here.
        """
        return [self._one(picture, scales) for picture in pictures]

    def _one(self, picture: np.ndarray, scales: list[float]) -> tuple[np.ndarray, ...]:
        height, width = picture.shape[:2]
        sums = np.zeros((height + 1, width + 1, 3), np.int32)
        inner = sums[1:, 1:]
        inner[...] = picture
        np.cumsum(inner, axis=1, out=inner)
        np.cumsum(inner, axis=0, out=inner)
        boxes = self._propose(sums, scales)
        boxes = self._refine(sums, *_inside(boxes, height, width))
        return self._finish(sums, *_inside(boxes, height, width))

    def _propose(self, sums: np.ndarray, scales: list[float]) -> np.ndarray:
        """Stage 1: candidates (k, 5) of all levels: x1, y1, x2, y2, probability."""
        height, width = sums.shape[0] - 1, sums.shape[1] - 1
        zero, found = np.zeros((1, 1), np.int64), [np.zeros((0, 9), np.float32)]
        for scale in scales:
            rows = _bins(zero, height, int(height * scale + 1))
            columns = _bins(zero, width, int(width * scale + 1))
            shifts, probabilities = self.pnet.run(None, {"x": _look(sums, rows, columns)})
            candidates = _candidates(shifts[0], probabilities[0, 1], scale)
            found.append(candidates[_nms(candidates, 0.5)])
        boxes = np.concatenate(found)
        boxes = boxes[_nms(boxes, 0.7)]
        size = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
        return _squared(np.column_stack((boxes[:, :4] + boxes[:, 5:] * size, boxes[:, 4])))

    def _refine(self, sums: np.ndarray, boxes: np.ndarray, places: list) -> np.ndarray:
        """Stage 2: the candidates that the second network keeps, moved and made square."""
        if not len(boxes):
            return boxes
        shifts, scores = _run(self.rnet, _candidate_views(sums, places, 24))
        keep = scores[:, 1] > _THRESHOLDS[1]
        boxes, shifts = np.column_stack((boxes[keep, :4], scores[keep, 1])), shifts[keep]
        pick = _nms(boxes, 0.7)
        return _squared(_moved(boxes[pick], shifts[pick]))

    def _finish(self, sums: np.ndarray, boxes: np.ndarray, places: list) -> tuple[np.ndarray, ...]:
        """Stage 3: the faces and their landmarks."""
        if not len(boxes):
            return boxes[:, :4], boxes[:, 4], np.zeros((0, 5, 2), np.float32)
        shifts, points, scores = _run(self.onet, _candidate_views(sums, places, 48))
        keep = scores[:, 1] > _THRESHOLDS[2]
        boxes = np.column_stack((boxes[keep, :4], scores[keep, 1]))
        size = boxes[:, 2:4] - boxes[:, :2] + 1
        points = points[keep].reshape(-1, 2, 5).transpose(0, 2, 1)
        points = size[:, None] * points + boxes[:, None, :2] - 1
        boxes = _moved(boxes, shifts[keep])
        pick = _nms_min(boxes, 0.7)
        return boxes[pick, :4], boxes[pick, 4], points[pick]


def _run(network: object, views: np.ndarray) -> tuple[np.ndarray, ...]:
    starts = range(0, len(views), _BATCH)
    parts = [network.run(None, {"x": views[start : start + _BATCH]}) for start in starts]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _candidates(shifts: np.ndarray, probabilities: np.ndarray, scale: float) -> np.ndarray:
    """Return what the first network takes for a face: (k, 9), box, probability and four shifts."""
    y, x = np.nonzero(probabilities >= _THRESHOLDS[0])
    corner = _STRIDE * np.column_stack((x, y)).astype(np.float32)
    scale = np.float32(scale)
    begin, end = np.floor((corner + 1) / scale), np.floor((corner + _WINDOW) / scale)
    return np.column_stack((begin, end, probabilities[y, x], shifts[:, y, x].T))


def _bins(start: np.ndarray, length, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each of `count` bins begins and ends, as torch's adaptive pooling has them."""
    i = np.arange(count)
    return start + i * length // count, start - -(i + 1) * length // count


def _candidate_views(sums: np.ndarray, places: list, size: int) -> np.ndarray:
    """Return what a network sees of each candidate: (k, 3, size, size)."""
    y, end_y, x, end_x = (place[:, None].astype(np.int64) for place in places)
    rows = _bins(y - 1, end_y - y + 1, size)
    return _look(sums, rows, _bins(x - 1, end_x - x + 1, size))


def _look(sums: np.ndarray, rows: tuple, columns: tuple) -> np.ndarray:
    """Return the means over grids, (k, 3, rows, columns), float32 in -1..1.

    `rows` and `columns`: where the bins begin and end, each (k, count).
    """
    (top, bottom), (left, right) = rows, columns

    def corner(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return sums[y[:, :, None], x[:, None, :]]

    total = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    means = total.astype(np.float32) / (bottom - top)[:, :, None, None].astype(np.float32)
    means /= (right - left)[:, None, :, None].astype(np.float32)
    return np.ascontiguousarray(((means - 127.5) * 0.0078125).transpose(0, 3, 1, 2))


def _inside(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the candidates that have pixels in the picture, and these pixels' ranges."""
    x, y, end_x, end_y = np.trunc(boxes[:, :4]).astype(np.int32).T
    x, y = np.maximum(x, 1), np.maximum(y, 1)
    end_x, end_y = np.minimum(end_x, width), np.minimum(end_y, height)
    some = (end_y >= y) & (end_x >= x)
    return boxes[some], [place[some] for place in (y, end_y, x, end_x)]


def _moved(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    size = boxes[:, 2:4] - boxes[:, :2] + 1
    return np.column_stack((boxes[:, :4] + shifts * np.tile(size, 2), boxes[:, 4]))


def _squared(boxes: np.ndarray) -> np.ndarray:
    size = boxes[:, 2:4] - boxes[:, :2]
    longer = size.max(axis=1, keepdims=True)
    begin = boxes[:, :2] + size * np.float32(0.5) - longer * np.float32(0.5)
    return np.column_stack((begin, begin + longer, boxes[:, 4:]))


def _nms(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Return which boxes stay, the surest first, where overlap is intersection over union."""
    area = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    left, kept = np.argsort(-boxes[:, 4], kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        shared = _shared(boxes[best], boxes[left], 0)
        left = left[shared / (area[best] + area[left] - shared) <= threshold]
    return np.array(kept, np.int64)


def _nms_min(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """The same where overlap is intersection over the smaller box, pixels counted whole."""
    area = np.prod(boxes[:, 2:4] - boxes[:, :2] + 1, axis=1)
    left, kept = np.argsort(-boxes[:, 4], kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        shared = _shared(boxes[best], boxes[left], 1)
        left = left[shared / np.minimum(area[best], area[left]) <= threshold]
    return np.array(kept, np.int64)


def _shared(box: np.ndarray, others: np.ndarray, more: int) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    return np.prod(np.maximum(0, high - low + more), axis=1)
