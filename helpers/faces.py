"""The faces of a study: decoded once, augmented as whole batches, dealt out epoch by epoch.

Own code where torchvision has some, for speed: decoding and augmenting picture by picture costs
more than a small student's training step. Crops are kept as bytes, in memory or mapped from disk,
and a batch is cut, mirrored, turned and coloured in one go, by parameters that are distributed as
torchvision's and applied in its order. By design four things differ:

- Crop, flip and rotation are one affine map and one bilinear sampling; torchvision resamples twice
  and rounds to 8 bits after each operation.
- What a rotation turns in from outside of the crop is the face's own surroundings, and beyond the
  picture its border; torchvision fills both with black.
- A crop's place and size are no whole pixels.
- Brightness, contrast and saturation follow in this order; torchvision draws the order as well. The
  three commute wherever no value is clipped to 0..1, which with factors within 10 % matters for a
  few pixels in the highlights.
"""

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from helpers import files
from helpers.files import StudyError, short_path

Rows = np.ndarray | None
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
# The protocol crops 224 out of 256 pixels; other image sizes keep that proportion, so that a
# random crop never has to shrink the picture by much (which would alias).
_MORE = 256 / 224
_IN_MEMORY = 2**30  # bytes
_CACHED_VALUES = 2**19
_COLUMNS = ("image_id", "path", "identity", "side", "label", "split", "width")


@dataclass
class FaceStore:
    """N faces as one tensor.

    `table`: one row a face, the crops' manifest. `images`: (N, 3, S, S) uint8, RGB, not to be
    written to. `labels`: (N,) float32, 1 for Pain and 0 for NoPain. `manifest_sha256`: hash of the
    manifest that they were read from.
    """

    table: pd.DataFrame
    images: Tensor
    labels: Tensor
    manifest_sha256: str

    def rows(self, split: str) -> np.ndarray:
        """Return the positions of the faces of `split`; raise `StudyError` where it has none."""
        rows = np.flatnonzero(self.table["split"] == split)
        if len(rows) == 0:
            raise StudyError(f"The crops hold no face of the split '{split}'.")
        return rows


def read_manifest(crops_dir: str | Path) -> pd.DataFrame:
    """Read the manifest of a crops folder; raise `StudyError` for a missing file or column."""
    path = files.existing_folder(crops_dir, "cropped faces") / "manifest.csv"
    table = files.read_csv(path)
    if missing := [name for name in _COLUMNS if name not in table]:
        raise StudyError(f"{short_path(path)} lacks the column {', '.join(missing)}.")
    return table


def load_faces(crops_dir: str | Path, image_size: int, split: str | None = None) -> FaceStore:
    """Decode the crops of a folder, or those of one `split`, for inputs of `image_size` pixels.

    The store's side is image_size × 256 / 224, never above the crops' own size; resizing is
    antialiased. A set of more than 1 GiB lies in a temporary file that is mapped into memory.
    Raises `StudyError` for a missing folder, file or column, a split without a face, a picture that
    cannot be read, or too little room for that file.
    """
    table, folder = read_manifest(crops_dir), files.project_path(crops_dir)
    side = max(image_size, min(round(image_size * _MORE), int(table["width"].max())))
    if split is not None:
        table = table[table["split"] == split].reset_index(drop=True)
    images = _room((len(table), 3, side, side))
    paths = [folder / path for path in table["path"]]

    def decode(row: int) -> None:
        try:
            with Image.open(paths[row]) as image:
                image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except OSError as error:
            where = short_path(paths[row])
            raise StudyError(f"The crop {where} cannot be read: {error}.") from error
        images[row] = np.array(image).transpose(2, 0, 1)

    list(files.side_by_side(decode, range(len(paths)), "Reading crops", "face"))
    labels = torch.tensor((table["label"] == "Pain").to_numpy(np.float32))
    manifest = files.sha256(folder / "manifest.csv")
    faces = FaceStore(table, torch.from_numpy(images), labels, manifest)
    faces.rows(split or "train")
    return faces


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """Return bytes to be filled, in memory or in a file that goes when the process ends."""
    size, folder = math.prod(shape), tempfile.gettempdir()
    if size <= _IN_MEMORY:
        return np.empty(shape, np.uint8)
    if shutil.disk_usage(folder).free < size:
        needed = f"The decoded crops take {size / 2**30:.1f} GiB, more than is free in {folder}"
        raise StudyError(f"{needed}: make room, or name another folder by TMPDIR.")
    return np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=shape)


class Views(NamedTuple):
    """The random choices behind N augmented views.

    `crop`: (N, 4) float32, centre x, centre y, half width, half height, in units in which the
    image spans -1 to 1. `flip`: (N,), -1 where the view is mirrored, else 1. `angle`: (N,),
    rotation in radians. `colour`: (N, 3), factors of brightness, contrast and saturation.
    """

    crop: Tensor
    flip: Tensor
    angle: Tensor
    colour: Tensor


def draw_views(count: int, seed: int, epoch: int) -> Views:
    """Draw `count` views; the same (count, seed, epoch) gives the same views on every machine.

    Crops as torchvision's RandomResizedCrop draws them of a square image: area uniform in
    `CROP_SCALE`, aspect ratio log-uniform in `CROP_RATIO`, ten tries, then the whole image.
    """
    rng = np.random.default_rng([seed, epoch, 1])
    area = rng.uniform(*CROP_SCALE, (count, 10))
    ratio = np.exp(rng.uniform(*np.log(CROP_RATIO), (count, 10)))
    sides = np.sqrt([area * ratio, area / ratio])  # width and height, (2, count, 10)
    fits = (sides <= 1).all(axis=0)
    first = sides[:, np.arange(count), fits.argmax(axis=1)]
    half = np.where(fits.any(axis=1), first, 1.0).T
    centre = rng.uniform(-1, 1, (count, 2)) * (1 - half)
    flip = rng.choice([-1.0, 1.0], count)
    angle = np.radians(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count))
    colour = rng.uniform(1 - JITTER, 1 + JITTER, (count, 3))
    parts = (np.hstack([centre, half]), flip, angle, colour)
    return Views(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def augment(images: Tensor, views: Views, image_size: int) -> Tensor:
    """Return augmented, normalised views, (N, 3, image_size, image_size) float32.

    `images`: (N, 3, S, S) uint8. `views`: N of them, on the same device.
    """
    # On a CPU a batch goes through in parts whose pixels stay in its cache: the same bits, sooner;
    # never one image alone, unless the batch is: torch sums a single picture in another order.
    size = max(2, _CACHED_VALUES // (3 * image_size**2))
    count = max(1, len(images) // size) if images.device.type == "cpu" else 1
    parts = zip(*(part.tensor_split(count) for part in (images, *views)), strict=True)
    return torch.cat([_augment(image, Views(*drawn), image_size) for image, *drawn in parts])


def _augment(images: Tensor, views: Views, image_size: int) -> Tensor:
    x, y, width, height = views.crop.unbind(1)
    cos, sin, flip = views.angle.cos(), views.angle.sin(), views.flip
    rows = [flip * cos * width, -flip * sin * width, x, sin * height, cos * height, y]
    affine = torch.stack(rows, 1).view(-1, 2, 3)
    size = (len(images), 3, image_size, image_size)
    grid = F.affine_grid(affine, size, align_corners=False)
    pixels = images.float().div_(255)
    pixels = F.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)
    return normalise(jitter(pixels, views.colour))


def jitter(pixels: Tensor, colour: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation, in this order, as torchvision defines them.

    `pixels`: (N, 3, H, W) in 0..1. `colour`: (N, 3), the factors.
    """
    brightness, contrast, saturation = colour[:, :, None, None, None].unbind(1)
    luma = _channels(_LUMA, pixels.device)
    pixels = (pixels * brightness).clamp_(0, 1)
    mean = (pixels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, contrast).clamp_(0, 1)
    grey = (pixels * luma).sum(1, keepdim=True)
    return torch.lerp(grey, pixels, saturation).clamp_(0, 1)


def plain_view(images: Tensor, image_size: int) -> Tensor:
    """Return the whole (N, 3, S, S) uint8 images resized and normalised, for evaluation."""
    pixels = images.float().div_(255)
    size = (image_size, image_size)
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return normalise(pixels)


def normalise(pixels: Tensor) -> Tensor:
    """Normalise (N, 3, H, W) pixels in 0..1 by ImageNet's mean and standard deviation."""
    device = pixels.device
    return (pixels - _channels(IMAGENET_MEAN, device)) / _channels(IMAGENET_STD, device)


@cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (1, 3, 1, 1) `values`; kept, as bringing them to a GPU makes the host wait for it."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)[None, :, None, None]


class Batch(NamedTuple):
    """N faces of a step.

    `rows`: (N,) their positions in the store. `images`: (N, 3, S, S) float32, augmented and
    normalised, and `labels`: (N,) float32, both on the device. `labelled`: the part that the class
    token learns from. `taught`: the part that the teacher answers for.
    """

    rows: np.ndarray
    images: Tensor
    labels: Tensor
    labelled: slice
    taught: slice


class Feed:
    """The batches of any epoch; order and views are drawn from (seed, epoch) alone.

    A view is drawn for each place in a batch, so a face that comes twice comes in two views. Faces
    live on a GPU whole where they take less than half of its free memory.

    `rows`: the faces to train on. `recipe`: has `seed`, `batch_size` and `image_size`. `device`:
    torch's. `taught`: whether there is a teacher. `labelled`: which of the rows carry labels, bool;
    all without it. `decides_by`: the heads that are trained, see `models.decision_logits`.

    The class token learns from the labelled faces, and the teacher answers for the others; where
    all are labelled, for all (the protocol), and where there are both, each fills half a batch.
    """

    def __init__(
        self, faces: FaceStore, rows: Rows, recipe: Any, device: Any, taught=False, labelled=None
    ) -> None:
        self.faces, self.recipe, self.device, self.images = faces, recipe, device, faces.images
        known = np.ones(len(rows), bool) if labelled is None else labelled
        every, none, half = slice(None), slice(0, 0), recipe.batch_size // 2
        parts = {"class": (every, none), "distillation": (none, every), "both": (every, every)}
        self.decides_by = "class" if not taught else "both" if known.any() else "distillation"
        self.groups, self.parts = [rows if taught else rows[known]], parts[self.decides_by]
        if self.decides_by == "both" and not known.all():
            self.groups, self.parts = [rows[known], rows[~known]], (slice(half), slice(half, None))
        if device.type == "cuda" and faces.images.numel() < torch.cuda.mem_get_info(device)[0] / 2:
            self.images = faces.images.to(device)

    def order(self, epoch: int, steps: int) -> np.ndarray:
        """Return the rows of `epoch` in the order in which they are seen, (steps, batch_size).

        Where there are fewer faces than places, they come in one whole permutation after another.
        """
        rng = np.random.default_rng([self.recipe.seed, epoch, 0])
        share, parts = self.recipe.batch_size // len(self.groups), []
        for rows in self.groups:
            passes = math.ceil(steps * share / len(rows))
            order = np.concatenate([rng.permutation(rows) for _ in range(passes)])
            parts.append(order[: steps * share].reshape(steps, share))
        return np.concatenate(parts, axis=1)

    def batches(self, epoch: int, steps: int) -> Iterator[Batch]:
        """Yield the batches of `epoch`, without making the host wait for the device."""
        order = self.order(epoch, steps)
        there = self.device if self.device.type == "cuda" else torch.device("cpu")
        # One copy an epoch: a step then takes its part without a word to the host.
        drawn = (part.to(there) for part in draw_views(order.size, self.recipe.seed, epoch))
        views = zip(*(part.tensor_split(steps) for part in drawn), strict=True)
        labels = self.faces.labels[order].to(self.device)
        at = torch.from_numpy(order).to(self.images.device)
        for step, seen in enumerate(views):
            images = augment(self.images[at[step]].to(there), Views(*seen), self.recipe.image_size)
            images = images.to(self.device, memory_format=torch.channels_last)
            yield Batch(order[step], images, labels[step], *self.parts)
