"""The protocol's augmentations, drawn per face and applied to whole batches.

RandomResizedCrop, horizontal flip, rotation by up to 10 degrees and colour jitter, with parameters
distributed as torchvision's and applied in torchvision's order. By design four things differ:

- Crop, flip and rotation are one affine map and one bilinear sampling; torchvision resamples twice
  and rounds to 8 bits after each operation.
- What a rotation turns in from outside of the crop is the face's own surroundings, and beyond the
  picture its border; torchvision fills both with black.
- A crop's place and size are no whole pixels.
- Brightness, contrast and saturation follow in this order; torchvision draws the order as well. The
  three commute wherever no value is clipped to 0..1: brightness scales a pixel and its grey value
  alike, contrast and saturation move a pixel towards the mean grey and its own, which neither
  changes. With factors within 10 % it matters for a few pixels in the highlights.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The protocol names the augmentations, not their strength. Pain is read from the distances between
# brow, lids and mouth, so a face stays whole (torchvision's default area from 0.08 would cut brow
# from mouth) and nearly in proportion.
CROP_SCALE = (0.85, 1.0)
CROP_RATIO = (9 / 10, 10 / 9)
ROTATION_DEGREES = 10.0
JITTER = 0.1
_LUMA = (0.299, 0.587, 0.114)
# On a CPU a batch goes through in parts whose pixels stay in its cache: the same bits, sooner.
_CACHED_VALUES = 2**19


@dataclass
class Views:
    """The random choices behind N augmented views.

    Attributes:
        crop: (N, 4) float32, centre x, centre y, half width, half height, in units in which the
            image spans -1 to 1.
        flip: (N,) float32, -1 where the view is mirrored, else 1.
        angle: (N,) float32, rotation in radians.
        colour: (N, 3) float32, factors of brightness, contrast and saturation.
    """

    crop: torch.Tensor
    flip: torch.Tensor
    angle: torch.Tensor
    colour: torch.Tensor

    def __getitem__(self, rows: np.ndarray) -> "Views":
        return Views(self.crop[rows], self.flip[rows], self.angle[rows], self.colour[rows])

    def weakened(self, strength: float) -> "Views":
        """Return views between the plain picture (`strength` 0) and these (1), flipped as these."""
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
        crop = whole + strength * (self.crop - whole)
        return Views(crop, self.flip, strength * self.angle, 1 + strength * (self.colour - 1))

    def to(self, device: torch.device) -> "Views":
        """Return the same views on `device`."""
        return Views(*(part.to(device) for part in vars(self).values()))


def draw_views(count: int, seed: int, epoch: int) -> Views:
    """Draw `count` views; the same (count, seed, epoch) gives the same views on every machine."""
    rng = np.random.default_rng([seed, epoch, 1])
    parts = (
        draw_crops(count, rng),
        rng.choice([-1.0, 1.0], count),
        np.radians(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count)),
        rng.uniform(1 - JITTER, 1 + JITTER, (count, 3)),
    )
    return Views(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def draw_crops(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw crops as torchvision's RandomResizedCrop does for a square image.

    Area uniform in `CROP_SCALE`, aspect ratio log-uniform in `CROP_RATIO`, ten tries, then the
    whole image. Returns (count, 4): centre x, centre y, half width, half height.
    """
    area = rng.uniform(*CROP_SCALE, (count, 10))
    ratio = np.exp(rng.uniform(*np.log(CROP_RATIO), (count, 10)))
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (width <= 1) & (height <= 1)
    first = np.where(fits.any(1), fits.argmax(1), 0)[:, None]
    width = np.where(fits.any(1), np.take_along_axis(width, first, 1)[:, 0], 1.0)
    height = np.where(fits.any(1), np.take_along_axis(height, first, 1)[:, 0], 1.0)
    x = rng.uniform(-1, 1, count) * (1 - width)
    y = rng.uniform(-1, 1, count) * (1 - height)
    return np.stack([x, y, width, height], 1)


def augment(images: torch.Tensor, views: Views, image_size: int) -> torch.Tensor:
    """Return augmented, normalised views.

    Args:
        images: (N, 3, S, S) uint8.
        views: N views, on the same device.
        image_size: side of the output in pixels.

    Returns:
        (N, 3, image_size, image_size) float32, by ImageNet's mean and standard deviation.
    """
    if images.device.type != "cpu":
        return _augment(images, views, image_size)
    out = torch.empty(len(images), 3, image_size, image_size)
    # Never one image alone, unless the batch is: torch sums a single picture in another order.
    count = max(2, _CACHED_VALUES // (3 * image_size**2))
    for part in np.array_split(np.arange(len(images)), max(1, len(images) // count)):
        part = slice(part[0], part[-1] + 1)
        out[part] = _augment(images[part], views[part], image_size)
    return out


def _augment(images: torch.Tensor, views: Views, image_size: int) -> torch.Tensor:
    x, y, width, height = views.crop.unbind(1)
    cos, sin = views.angle.cos(), views.angle.sin()
    flip = views.flip
    affine = torch.stack(
        [
            torch.stack([flip * cos * width, -flip * sin * width, x], 1),
            torch.stack([sin * height, cos * height, y], 1),
        ],
        1,
    )
    size = (len(images), 3, image_size, image_size)
    grid = F.affine_grid(affine, size, align_corners=False)
    pixels = images.float().div_(255)
    pixels = F.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)
    return normalise(jitter(pixels, views.colour))


def jitter(pixels: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Scale brightness, contrast and saturation, in this order, as torchvision defines them.

    Args:
        pixels: (N, 3, H, W) in 0..1.
        colour: (N, 3), the factors.
    """
    brightness, contrast, saturation = colour[:, :, None, None, None].unbind(1)
    luma = _channels(_LUMA, pixels.dtype, pixels.device)
    pixels = (pixels * brightness).clamp_(0, 1)
    mean = (pixels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, contrast).clamp_(0, 1)
    grey = (pixels * luma).sum(1, keepdim=True)
    return torch.lerp(grey, pixels, saturation).clamp_(0, 1)


def plain_view(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Return the whole (N, 3, S, S) uint8 images resized and normalised, for evaluation."""
    pixels = images.float().div_(255)
    size = (image_size, image_size)
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return normalise(pixels)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Normalise (N, 3, H, W) pixels in 0..1 by ImageNet's mean and standard deviation."""
    mean = _channels(IMAGENET_MEAN, pixels.dtype, pixels.device)
    std = _channels(IMAGENET_STD, pixels.dtype, pixels.device)
    return (pixels - mean) / std


@cache
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return (1, 3, 1, 1) `values`; kept, as bringing them to a GPU makes the host wait for it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[None, :, None, None]
