"""From prepared faces to aligned face crops: MTCNN finds the face, the rest is geometry.

The only file that imports facenet-pytorch. MTCNN: Zhang, Zhang, Li and Qiao, "Joint face detection
and alignment using multitask cascaded convolutional networks", IEEE Signal Processing Letters 23,
2016; its weights are inside the package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from facenet_pytorch import MTCNN

from helpers.align import Face, choose_face, crop_centre, crop_face
from helpers.devices import pick_device
from helpers.errors import StudyError
from helpers.files import existing_folder, project_path, read_csv, sha256, short_path, write_csv
from helpers.pictures import PictureError, read_rgb, write_jpeg
from helpers.prepare import MANIFEST_COLUMNS, remove_unlisted
from helpers.work import Journal, side_by_side

CROP_COLUMNS = [*MANIFEST_COLUMNS, "detected", "probability", "box", "landmarks"]

_BATCH = 32  # pictures of one size that go through MTCNN together
_VERSION = 1  # of what is done to a face; a change of it makes old work count for nothing


class FaceDetector:
    """MTCNN with its shipped weights; finds faces of at least `min_face_size` pixels."""

    def __init__(self, min_face_size: int, device: str = "auto") -> None:
        """Load the three networks. Raises `StudyError` for `cuda` without a GPU."""
        self.min_face_size = min_face_size
        self._mtcnn = MTCNN(min_face_size=min_face_size, device=pick_device(device)).eval()

    def __call__(self, pictures: list[np.ndarray]) -> list[Face | None]:
        """Return the chosen face of each picture, None where there is none.

        `pictures`: arrays (height, width, 3) of uint8, all of one size. Coordinates are rounded to
        0.01 pixel, so that the last bits of the arithmetic (threads, batches) leave no trace.
        """
        height, width = pictures[0].shape[:2]
        if min(height, width) < self.min_face_size:  # MTCNN fails where no face can fit
            return [None] * len(pictures)
        found = self._mtcnn.detect(np.stack(pictures), landmarks=True)
        chosen = []
        for boxes, probabilities, landmarks in zip(*found, strict=True):
            faces = [] if boxes is None else zip(boxes, landmarks, probabilities, strict=True)
            faces = [
                Face(_rounded(box, 2), _rounded(points, 2), round(float(probability), 4))
                for box, points, probability in faces
            ]
            chosen.append(choose_face(faces, width, height))
        return chosen


def crop_faces(
    prepared_dir: str | Path,
    out_dir: str | Path,
    crop_size: int,
    margin: float,
    min_face_size: int,
    device: str,
) -> pd.DataFrame:
    """Crop every prepared face to `crop_size` × `crop_size` pixels, and return the manifest.

    Writes `Pain/`, `NoPain/`, `manifest.csv` (`CROP_COLUMNS`) and `journal.jsonl` into `out_dir`.
    `margin` is the share of the face box added on each side; `min_face_size` is in pixels. A face
    that MTCNN does not find becomes the central square, with `detected` False. Crops that were
    made from the same picture with the same parameters are kept, others are removed;
    `manifest.csv` is there only while the folder is whole. Raises `StudyError` for a missing
    folder or manifest, a prepared face that is missing or damaged, and `cuda` without a GPU.
    """
    source = existing_folder(prepared_dir, "prepared faces of notebook 01")
    out = project_path(out_dir)
    if out.resolve() == source.resolve():
        raise StudyError(f"The folder {short_path(out)} is both prepared_dir and out_dir.")
    table = read_csv(source / "manifest.csv")
    _check(table, source)
    detect = FaceDetector(min_face_size, device)
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.csv").unlink(missing_ok=True)
    settings = {"crop_size": crop_size, "margin": margin, "min_face_size": min_face_size}
    journal = Journal(out / "journal.jsonl", {"version": _VERSION, **settings})
    due = list(_batches(table[[not _finished(out, row, journal) for row in table.itertuples()]]))

    def crop_batch(rows: list) -> list[dict]:
        pictures = [_read(source, row.path) for row in rows]
        faces = zip(rows, pictures, detect(pictures), strict=True)
        return [_write_crop(out / row.path, *face, crop_size, margin) for row, *face in faces]

    with _one_torch_thread():
        crops = side_by_side(crop_batch, due, "Cropping", "batch")
        for rows, entries in zip(due, crops, strict=True):
            for row, entry in zip(rows, entries, strict=True):
                journal.add(row.image_id, {"source_sha256": row.sha256, **entry})
    journal.keep(list(table["image_id"]))
    remove_unlisted(out, set(table["path"]))
    manifest = _manifest(table, journal, crop_size)
    write_csv(out / "manifest.csv", manifest)
    return manifest


def read_detections(out_dir: str | Path) -> pd.DataFrame:
    """Return what MTCNN found, one row a crop: image_id, face and tilt.

    `face` is a `Face` in pixels of the prepared picture or None, `tilt` its angle in degrees
    before alignment (NaN without a face). Raises `StudyError` where there is no journal.
    """
    path = project_path(out_dir) / "journal.jsonl"
    table = pd.read_json(path, lines=True) if path.is_file() else None
    if table is None or "entry" not in table:
        raise StudyError(f"The file {short_path(path)} does not exist or holds no crops.")
    table = table.dropna(subset=["entry"])
    faces = [_face(entry) for entry in table["entry"]]
    tilts = [np.nan if face is None else face.tilt for face in faces]
    return pd.DataFrame({"image_id": list(table["key"]), "face": faces, "tilt": tilts})


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Give each of torch's operations one thread: they are small, and batches run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(table: pd.DataFrame, source: Path) -> None:
    name = short_path(source / "manifest.csv")
    missing = [column for column in MANIFEST_COLUMNS if column not in table]
    if missing:
        raise StudyError(f"The file {name} lacks the column {missing[0]}.")
    if table.empty:
        raise StudyError(f"The file {name} lists no faces.")


def _batches(due: pd.DataFrame) -> Iterator[list]:
    """Yield rows in lists of up to `_BATCH`; the pictures of one list have one size."""
    for _, group in due.groupby(["width", "height"], sort=False):
        rows = list(group.itertuples())
        for start in range(0, len(rows), _BATCH):
            yield rows[start : start + _BATCH]


def _read(source: Path, path: str) -> np.ndarray:
    try:
        return read_rgb(source / path)
    except PictureError as error:
        raise StudyError(
            f"The prepared face {short_path(source / path)} cannot be read ({error.reason}): run "
            "notebook 01 again."
        ) from error


def _finished(out: Path, row: tuple, journal: Journal) -> bool:
    """Tell whether the crop of a prepared face is there, and still that of this very picture."""
    entry = journal.get(row.image_id)
    path = out / row.path
    return (
        entry is not None
        and entry["source_sha256"] == row.sha256
        and path.is_file()
        and sha256(path) == entry["sha256"]
    )


def _write_crop(
    path: Path, pixels: np.ndarray, face: Face | None, crop_size: int, margin: float
) -> dict:
    """Write one crop and return its journal entry."""
    if face is None:
        write_jpeg(path, crop_centre(pixels, crop_size))
        return {"sha256": sha256(path), "detected": False}
    crop, landmarks = crop_face(pixels, face, crop_size, margin)
    write_jpeg(path, crop)
    return {
        "sha256": sha256(path),
        "detected": True,
        "probability": face.probability,
        "box": face.box.tolist(),
        "points": face.landmarks.tolist(),
        "landmarks": _rounded(landmarks, 2).ravel().tolist(),
    }


def _rounded(values: np.ndarray, digits: int) -> np.ndarray:
    return np.round(np.asarray(values, dtype=float), digits)


def _face(entry: dict) -> Face | None:
    if not entry["detected"]:
        return None
    return Face(np.array(entry["box"]), np.array(entry["points"]), entry["probability"])


def _manifest(table: pd.DataFrame, journal: Journal, crop_size: int) -> pd.DataFrame:
    entries = [journal.get(image_id) for image_id in table["image_id"]]

    def numbers(key: str) -> list[str | None]:
        return [" ".join(f"{x:g}" for x in e[key]) if key in e else None for e in entries]

    return table.assign(
        width=crop_size,
        height=crop_size,
        sha256=[entry["sha256"] for entry in entries],
        detected=[entry["detected"] for entry in entries],
        probability=[entry.get("probability") for entry in entries],
        box=numbers("box"),
        landmarks=numbers("landmarks"),
    )[CROP_COLUMNS]
