"""The faces of a study: crops decoded once, in memory or mapped from disk, with their labels."""

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.files import existing_folder, read_csv, sha256, short_path
from helpers.training.checkpoints import durable

# The protocol crops 224 out of 256 pixels; other image sizes keep that proportion, so that a
# random crop never has to shrink the picture by much (which would alias).
_SOURCE_SIZE, _IMAGE_SIZE = 256, 224
# Above this share of the free memory the decoded crops are mapped from disk.
_MEMORY_SHARE = 0.25
_BLOCK = 256  # crops that are decoded side by side and lie in memory until they are taken
_COLUMNS = ("image_id", "path", "identity", "side", "label", "split")


@dataclass
class FaceStore:
    """N faces as one tensor.

    Attributes:
        table: one row a face, the crops' manifest.
        images: (N, 3, S, S) uint8, RGB; not to be written to.
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
            raise no_face_of(split)
        return rows


def no_face_of(split: str) -> StudyError:
    """Return the error of crops that hold no face of `split`."""
    return StudyError(f"The crops hold no face of the split '{split}'.")


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


def load_faces(crops_dir: str | Path, image_size: int, split: str | None = None) -> FaceStore:
    """Decode the crops of a folder, resized for a network input of `image_size` pixels.

    All of them, or those of one `split`.

    The store's side is image_size × 256 / 224, never above the crops' own size. Resizing is
    antialiased. Pictures that would take more than a quarter of the free memory are decoded into
    a file in the folder's `.decoded/` and mapped from there; the next call finds them decoded.
    Raises `StudyError` for a missing folder, file, column, a split without a face, a picture that
    cannot be read, or a full disk.
    """
    folder = existing_folder(crops_dir, "cropped faces")
    table = read_manifest(folder)
    manifest = sha256(folder / "manifest.csv")
    side = round(image_size * _SOURCE_SIZE / _IMAGE_SIZE)
    if "width" in table:
        side = max(image_size, min(side, int(table["width"].max())))
    if split is not None:
        table = table[table["split"] == split].reset_index(drop=True)
        if table.empty:
            raise no_face_of(split)
    shape = (len(table), 3, side, side)
    if math.prod(shape) > _MEMORY_SHARE * free_memory():
        images = _mapped(folder, table, shape, manifest, split)
    else:
        images = torch.empty(shape, dtype=torch.uint8)
        for row, pixels in enumerate(_decode(folder, table, side)):
            images[row] = torch.from_numpy(pixels)
    labels = torch.tensor((table["label"] == "Pain").to_numpy(np.float32))
    return FaceStore(table, images, labels, manifest)


def free_memory() -> int:
    """Return the bytes of memory that can be had: the machine's, or the container's if less.

    Where the system does not tell, half of the machine's memory.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = dict(line.split() for line in (group / "memory.stat").open())
        # Cached files count as used and are given up on demand.
        free = min(free, limit - used + int(statistics["inactive_file"]))
    except (OSError, ValueError, KeyError):
        pass  # no container, or one without a limit
    return free


def _decode(folder: Path, table: pd.DataFrame, side: int) -> Iterator[np.ndarray]:
    """Yield each crop as (3, side, side) uint8; several are decoded at a time."""

    def pixels(path: str) -> np.ndarray:
        try:
            with Image.open(folder / path) as image:
                image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except OSError as error:
            raise StudyError(
                f"The crop {short_path(folder / path)} cannot be read: {error}."
            ) from error
        return np.ascontiguousarray(np.array(image).transpose(2, 0, 1))

    paths = table["path"].tolist()
    bar = tqdm(total=len(paths), desc="Reading crops", delay=3)
    with bar, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _BLOCK):
            for crop in pool.map(pixels, paths[start : start + _BLOCK]):
                yield crop
                bar.update()


def _mapped(
    folder: Path, table: pd.DataFrame, shape: tuple[int, ...], manifest: str, split: str | None
) -> torch.Tensor:
    """Return the decoded crops, (N, 3, S, S), as a private map of a file, made where it is not."""
    # The manifest holds each crop's hash; one that does not is told apart by the files' dates.
    key = manifest
    if "sha256" not in table:
        states = [(folder / path).stat() for path in table["path"] if (folder / path).is_file()]
        dates = repr([(state.st_size, state.st_mtime_ns) for state in states])
        key = hashlib.sha256((manifest + dates).encode()).hexdigest()
    part = "" if split is None else f"-{split}"
    path = folder / ".decoded" / f"{key[:16]}{part}-{shape[-1]}.uint8"
    size = math.prod(shape)
    if not path.is_file() or path.stat().st_size != size:
        with durable(path) as temporary, open(temporary, "wb") as file:
            for pixels in _decode(folder, table, shape[-1]):
                file.write(pixels.tobytes())
        for other in path.parent.glob("*.uint8"):
            if not other.name.startswith(key[:16]):
                other.unlink(missing_ok=True)  # of crops that are no longer there
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
