"""Geometry of a face crop: turned until the eyes are level, square, with a margin."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_FINE = 4 / 3  # how much finer than the crop the slanted samples may be


@dataclass(frozen=True)
class Face:
    """A detected face in pixels of its picture (x to the right, y down).

    `box`: x1, y1, x2, y2. `landmarks`: (5, 2), x and y of the left eye, right eye, nose, left and
    right corner of the mouth; left and right as the viewer sees them. `probability`: 0 to 1.
    """

    box: np.ndarray
    landmarks: np.ndarray
    probability: float

    @property
    def tilt(self) -> float:
        """Angle of the line through the eyes, in degrees; positive: the right one is lower."""
        x, y = self.landmarks[1] - self.landmarks[0]
        return math.degrees(math.atan2(y, x))


def choose_face(faces: list[Face], width: int, height: int) -> Face | None:
    """Return the face of a picture with several (None of none).

    It has the highest probability × box area × centrality; centrality falls from 1 in the middle
    of the picture to 0 in its corners. A SynPAIN half shows one person, large and central; this
    leaves out a face on a T-shirt or a poster.
    """

    def score(face: Face) -> float:
        x1, y1, x2, y2 = face.box
        offset = math.hypot((x1 + x2 - width) / 2, (y1 + y2 - height) / 2)
        centrality = max(0.0, 1 - offset / (math.hypot(width, height) / 2))
        return face.probability * (x2 - x1) * (y2 - y1) * centrality

    return max(faces, key=score, default=None)


def crop_face(
    pixels: np.ndarray, face: Face, crop_size: int, margin: float, *, level: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the crop (crop_size, crop_size, 3), uint8, and its landmarks (5, 2) in its pixels.

    The crop is a square around the middle of the box; its side is the longer side of the box plus
    `margin` times that on each side. It is turned by the face's tilt, so that both eyes have one
    height (not with `level=False`). Beyond the picture's border its edge is repeated.
    """
    x1, y1, x2, y2 = face.box
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    side = max(x2 - x1, y2 - y1) * (1 + 2 * margin)
    angle = math.radians(face.tilt) if level else 0.0
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    crop = _sample(pixels, centre, axes, side, crop_size)
    # (p - centre) @ axes are the coordinates of p along the crop's own axes.
    landmarks = (face.landmarks - centre) @ axes * (crop_size / side) + crop_size / 2
    return crop, landmarks


def crop_centre(pixels: np.ndarray, crop_size: int) -> np.ndarray:
    """Return the largest central square of a picture at `crop_size`, for want of a face."""
    height, width = pixels.shape[:2]
    centre = np.array([width / 2, height / 2])
    return _sample(pixels, centre, np.eye(2), min(width, height), crop_size)


def _sample(
    pixels: np.ndarray, centre: np.ndarray, axes: np.ndarray, side: float, size: int
) -> np.ndarray:
    """Return the square of `side` around `centre` along `axes` (columns: right, down) at `size`.

    Bicubic; a square larger than `size` is taken at its own scale first and then reduced with
    antialiasing. Where it is more than a third larger, the picture is reduced first: a fine grid of
    slanted samples is what takes the time.
    """
    corners = centre + side / 2 * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) @ axes.T
    left, top = np.floor(corners.min(axis=0)).astype(int) - 2
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 3
    patch = Image.fromarray(_window(pixels, top, bottom, left, right))
    start = corners[0] - (left, top)
    work = max(size, round(side))
    if work > _FINE * size:
        work = size
        width, height = (max(1, round(length * size / side)) for length in patch.size)
        scale = np.array([width, height]) / patch.size
        patch = patch.resize((width, height), Image.Resampling.HAMMING)
        start, axes = start * scale, axes * scale[:, None]
    step = axes * (side / work)
    affine = (step[0, 0], step[0, 1], start[0], step[1, 0], step[1, 1], start[1])
    square = patch.transform((work, work), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    if work != size:
        square = square.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square)


def _window(pixels: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Return a window of a picture; beyond the picture's border its edge is repeated."""
    height, width = pixels.shape[:2]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return np.ascontiguousarray(pixels[top:bottom, left:right])
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    columns = np.clip(np.arange(left, right), 0, width - 1)
    return pixels[rows][:, columns]
