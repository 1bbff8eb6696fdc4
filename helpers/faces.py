"""The faces of a study in memory: crops decoded once, with their labels and splits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.files import existing_folder, read_csv, sha256, short_path

# The protocol crops 224 out of 256 pixels; other image sizes keep that proportion, so that a
# random crop never has to shrink the picture by much (which would alias).
_SOURCE_SIZE, _IMAGE_SIZE = 256, 224
_COLUMNS = ("image_id", "path", "identity", "side", "label", "split")


@dataclass
class FaceStore:
    """N faces as one tensor.

    Attributes:
        table: one row a face, the crops' manifest.
        images: (N, 3, S, S) uint8, RGB.
        labels: (N,) float32, 1 for Pain and 0 for NoPain.
        manifest_sha256: hash of the manifest that the faces were read from.
    """

    table: pd.DataFrame
    images: torch.Tensor
    labels: torch.Tensor
    manifest_sha256: str

    def rows(self, split: str) -> np.ndarray:
        """Return the positions of the faces of `split`; raise `StudyError` where it has none."""
        rows = np.flatnonzero(self.table["split"] == split)
        if len(rows) == 0:
            raise StudyError(f"The crops hold no face of the split '{split}'.")
        return rows


def read_manifest(crops_dir: str | Path) -> pd.DataFrame:
    """Read the manifest of a crops folder; raise `StudyError` for a missing file or column."""
    folder = existing_folder(crops_dir, "cropped faces")
    table = read_csv(folder / "manifest.csv")
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise StudyError(
            f"{short_path(folder / 'manifest.csv')} lacks the column {', '.join(missing)}."
        )
    return table


def load_faces(crops_dir: str | Path, image_size: int) -> FaceStore:
    """Decode all crops of a folder, resized for a network input of `image_size` pixels.

    The store's side is image_size × 256 / 224, never above the crops' own size. Resizing is
    antialiased. Raises `StudyError` for a missing folder, file, column, or a picture that cannot
    be read.
    """
    folder = existing_folder(crops_dir, "cropped faces")
    table = read_manifest(folder)
    side = round(image_size * _SOURCE_SIZE / _IMAGE_SIZE)
    if "width" in table:
        side = max(image_size, min(side, int(table["width"].max())))
    images = torch.empty((len(table), 3, side, side), dtype=torch.uint8)
    for row, path in enumerate(tqdm(table["path"], desc="Reading crops", delay=3)):
        try:
            with Image.open(folder / path) as image:
                image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except OSError as error:
            raise StudyError(
                f"The crop {short_path(folder / path)} cannot be read: {error}."
            ) from error
        images[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    labels = torch.tensor((table["label"] == "Pain").to_numpy(np.float32))
    return FaceStore(table, images, labels, sha256(folder / "manifest.csv"))
