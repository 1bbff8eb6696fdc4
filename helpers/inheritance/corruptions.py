"""Faces made harder to read: parts hidden, blur, noise, darkness, compression, rotation.

Strengths are shares of the crop or of the face, never pixels, so that a corruption means the same
to a network of 64 and of 224 pixels: corrupting a picture and then shrinking it comes to the same
as shrinking it first. Gaussian blur, Gaussian noise and JPEG compression are those of Hendrycks &
Dietterich (2019, *Benchmarking Neural Network Robustness to Common Corruptions*); as theirs speak
of pictures of 224 pixels, the widths are divided by 224, the noise has a grain of a 64th of the
crop, and the compression is applied at 256 pixels. The others are ours.

What is hidden is found from the landmarks and measured in distances between the eyes, which no
expression changes; places below the eyes are not measured from the mouth, which pain opens.
"""

import io
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur

from helpers.errors import StudyError
from helpers.training.augment import IMAGENET_MEAN

CLEAN = "clean"
# For hidden parts: the share of the part's extent that is hidden. The eyes' band grows from the
# eyes' line up and down (to brows and lower lids), the mask from the chin up to the bridge of the
# nose, the quarter from the edge of the face to its middle.
STRENGTHS = {
    "eyes": (1 / 3, 2 / 3, 1.0),
    "mask": (1 / 3, 2 / 3, 1.0),
    "quarter": (1 / 3, 2 / 3, 1.0),
    "gaussian_blur": (1 / 224, 3 / 224, 6 / 224),  # standard deviation, share of the crop
    "gaussian_noise": (0.04, 0.08, 0.16),  # standard deviation, share of the range of values
    "darkness": (0.6, 0.3, 0.1),  # factor of each value
    "jpeg_compression": (25, 10, 5),  # quality
    "rotation": (10.0, 20.0, 35.0),  # degrees, to a side drawn for each face
}
NAMES = {
    CLEAN: "as they are",
    "eyes": "eyes hidden",
    "mask": "nose and mouth hidden",
    "quarter": "a quarter hidden",
    "gaussian_blur": "Gaussian blur",
    "gaussian_noise": "Gaussian noise",
    "darkness": "darkness",
    "jpeg_compression": "JPEG compression",
    "rotation": "rotation",
}
_GRAIN, _JPEG_SIDE = 64, 256
# Left and right eye, nose, left and right corner of the mouth, as shares of the crop: where they
# lie in the middle of many crops, for the faces that MTCNN did not find.
_TYPICAL = ((0.39, 0.43), (0.62, 0.43), (0.50, 0.58), (0.41, 0.70), (0.60, 0.70))


def conditions() -> list[tuple[str, int]]:
    """Return every (corruption, level), `(CLEAN, 0)` first; levels count from 1, the weakest."""
    return [(CLEAN, 0)] + [(name, level) for name in STRENGTHS for level in (1, 2, 3)]


def corrupt(
    images: torch.Tensor, faces: pd.DataFrame, name: str, level: int, seed: int
) -> torch.Tensor:
    """Return corrupted copies of crops, (N, 3, S, S) uint8 like `images`.

    `faces`: their N rows of the crops' manifest (`image_id`, `width`, `detected`, `landmarks`).
    `name`, `level`: one of `conditions`. What is drawn (noise, quarter, direction) depends on
    `seed`, corruption and image_id alone: not on the level, the order or the other faces. Raises
    `StudyError` for an unknown corruption or level, and a manifest without landmarks.
    """
    if (name, level) not in conditions():
        raise StudyError(f"There is no corruption '{name}' of level {level}.")
    if name == CLEAN:
        return images
    strength = STRENGTHS[name][level - 1]
    draws = [
        np.random.default_rng([seed, zlib.crc32(f"{name} {image_id}".encode())])
        for image_id in faces["image_id"]
    ]
    if name in _PARTS:
        points = torch.from_numpy(landmarks_of(faces) * images.shape[-1]).float()
        hidden = _PARTS[name](_Places(points, images.shape[-1]), strength, draws)
        fill = (torch.tensor(IMAGENET_MEAN) * 255).round().to(images.dtype)
        return torch.where(hidden[:, None], fill[:, None, None], images)
    return _PICTURES[name](images, strength, draws)


def landmarks_of(faces: pd.DataFrame) -> np.ndarray:
    """Return the five landmarks of each face as shares of its crop, (N, 5, 2), x before y.

    A face that was not found has typical ones. Raises `StudyError` where a column is missing.
    """
    missing = [name for name in ("landmarks", "detected", "width") if name not in faces]
    if missing:
        raise StudyError(f"The crops' manifest lacks the column {missing[0]}.")
    points = np.tile(np.array(_TYPICAL), (len(faces), 1, 1))
    for row, (text, width) in enumerate(zip(faces["landmarks"], faces["width"], strict=True)):
        if isinstance(text, str):
            points[row] = np.array(text.split(), float).reshape(5, 2) / width
    return points


class _Places:
    """Every pixel of N crops as seen from the middle of the eyes, in distances between the eyes.

    `x`: (N, 1, S), to the right. `y`: (N, S, 1), down. `nose`: (N, 1, 1), the nose's x: where the
    middle of a turned face is.
    """

    def __init__(self, points: torch.Tensor, side: int):
        middle = points[:, :2].mean(dim=1)
        unit = (points[:, 1] - points[:, 0]).norm(dim=1).clamp(min=1e-3)[:, None]
        centres = torch.arange(side) + 0.5
        self.x = ((centres - middle[:, :1]) / unit)[:, None, :]
        self.y = ((centres - middle[:, 1:]) / unit)[:, :, None]
        self.nose = ((points[:, 2, :1] - middle[:, :1]) / unit)[:, :, None]


_Draws = list[np.random.Generator]


def _eyes(at: _Places, share: float, draws: _Draws) -> torch.Tensor:
    return (at.x.abs() <= 1.0) & (at.y >= -0.65 * share) & (at.y <= 0.4 * share)


def _mask(at: _Places, share: float, draws: _Draws) -> torch.Tensor:
    top, bottom, half = 0.45, 2.35, 0.95
    centre, height = (top + bottom) / 2, (bottom - top) / 2
    shape = ((at.x - at.nose / 2) / half) ** 4 + ((at.y - centre) / height) ** 4 <= 1
    return shape & (at.y >= bottom - share * (bottom - top))


def _quarter(at: _Places, share: float, draws: _Draws) -> torch.Tensor:
    which = torch.tensor([draw.integers(4) for draw in draws])
    right, lower = (part[:, None, None] * 2 - 1 for part in (which % 2, which // 2))
    across, down = (at.x - at.nose / 2) * right, (at.y - 0.6) * lower
    inside = (across >= 1.05 * (1 - share)) & (across <= 1.05)
    return inside & (down >= 1.6 * (1 - share)) & (down <= 1.6)


def _blur(images: torch.Tensor, width: float, draws: _Draws) -> torch.Tensor:
    sigma = width * images.shape[-1]
    return gaussian_blur(images, 2 * max(1, round(4 * sigma)) + 1, sigma)


def _noise(images: torch.Tensor, sigma: float, draws: _Draws) -> torch.Tensor:
    shape = (3, _GRAIN, _GRAIN)
    grains = torch.from_numpy(np.stack([d.standard_normal(shape, np.float32) for d in draws]))
    noise = F.interpolate(grains, tuple(images.shape[-2:]), mode="nearest-exact")
    return _bytes(images.float() + 255 * sigma * noise)


def _darkness(images: torch.Tensor, factor: float, draws: _Draws) -> torch.Tensor:
    return _bytes(images.float() * factor)


def _jpeg(images: torch.Tensor, quality: int, draws: _Draws) -> torch.Tensor:
    out = torch.empty_like(images)
    for row, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        picture, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
        large = picture.resize((_JPEG_SIDE, _JPEG_SIDE), Image.Resampling.BICUBIC)
        large.save(file, "JPEG", quality=quality)
        with Image.open(file) as read:
            small = read.resize(picture.size, Image.Resampling.BICUBIC)
        out[row] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return out


def _rotation(images: torch.Tensor, degrees: float, draws: _Draws) -> torch.Tensor:
    sign = np.array([draw.choice([-1.0, 1.0]) for draw in draws])
    angle = torch.from_numpy(np.radians(degrees) * sign).float()
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(angle))
    affine = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return _bytes(F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False))


def _bytes(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


_PARTS: dict[str, Callable] = {"eyes": _eyes, "mask": _mask, "quarter": _quarter}
_PICTURES: dict[str, Callable] = {
    "gaussian_blur": _blur,
    "gaussian_noise": _noise,
    "darkness": _darkness,
    "jpeg_compression": _jpeg,
    "rotation": _rotation,
}
