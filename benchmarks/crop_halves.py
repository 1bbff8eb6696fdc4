"""Halves of full size for the benchmarks of notebook 02, prepared as notebook 01 prepares them."""

import math
import shutil
from pathlib import Path

import pandas as pd
from PIL import Image

from helpers.cropping.align import Face, choose_face
from helpers.dataset.prepare import prepare_dataset
from helpers.files import ROOT, read_csv, write_csv

PAIR_SIZE = (1312, 736)  # of SynPAIN, in pixels
SAME = 0.8  # intersection over union from which on two boxes are of the same face


def prepare_standin(work: Path, pairs: int) -> pd.DataFrame:
    """Enlarge evenly chosen bundled pairs to SynPAIN's size, cut them, and return the manifest.

    The faces and `manifest.csv` lie in `work/standin`.
    """
    raw = work / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    bundled = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    for path in bundled[:: max(1, len(bundled) // pairs)][:pairs]:
        with Image.open(path) as pair:
            pair.resize(PAIR_SIZE, Image.Resampling.LANCZOS).save(raw / path.name, quality=95)
    return prepare_dataset(raw, work / "standin", None, [0.7, 0.15, 0.15], 0).manifest


def prepare_real(work: Path, folder: Path) -> pd.DataFrame:
    """Cut the pairs in `folder` into `work/real`, and return the manifest."""
    return prepare_dataset(folder, work / "real", None, [0.7, 0.15, 0.15], 0).manifest


def repeat(folder: Path, faces: int) -> None:
    """Copy the faces of a prepared folder until there are so many, and list the copies too.

    What a call costs once, however much it has to do, would rule the time of a few.
    """
    table = read_csv(folder / "manifest.csv")
    parts = [table]
    for n in range(1, math.ceil(faces / len(table))):
        more = table.assign(
            image_id=table["image_id"] + f"_{n}",
            path=[path.replace(".jpg", f"_{n}.jpg") for path in table["path"]],
        )
        for path, other in zip(table["path"], more["path"], strict=True):
            shutil.copy(folder / path, folder / other)
        parts.append(more)
    write_csv(folder / "manifest.csv", pd.concat(parts))


def library_face(mtcnn, picture: Image.Image) -> Face | None:
    """Return the face that `MTCNN.detect` finds; of several the one that the study chooses."""
    boxes, probabilities, landmarks = mtcnn.detect(picture, landmarks=True)
    if boxes is None:
        return None
    faces = [
        Face(box.astype(float), points.astype(float), float(probability))
        for box, points, probability in zip(boxes, landmarks, probabilities, strict=True)
    ]
    return choose_face(faces, *picture.size)


def overlap(first: Face | None, second: Face | None) -> float:
    """Return the intersection over union of two faces' boxes; 1 where neither is there."""
    if first is None or second is None:
        return float(first is second)
    a, b = first.box, second.box
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))
