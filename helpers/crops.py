"""From prepared faces to aligned crops: MTCNN finds the face, the rest is geometry.

The detector is `facenet_pytorch.MTCNN` with its shipped weights, used as it comes. MTCNN: Zhang,
Zhang, Li and Qiao, "Joint face detection and alignment using multitask cascaded convolutional
networks", IEEE Signal Processing Letters 23, 2016.

The last bits of its arithmetic depend on which pictures it sees together, so the batches are those
of the whole manifest, also where a run is taken up again: it ends with the same bytes.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from facenet_pytorch import MTCNN
from PIL import Image

from helpers import files, pairs
from helpers.devices import pick_device
from helpers.files import StudyError, short_path

FOUND_COLUMNS = "detected probability box landmarks tilt original_landmarks".split()
# Pictures that go through MTCNN together: so many of one size, and no more than so many pixels.
_BATCH, _BATCH_PIXELS = 32, 16_000_000
_VERSION = 1  # of what is done to a face; a change of it makes old work count for nothing
_OWN_FILE = re.compile(r"\.?[0-9]{10}_(left|right)(-[^.]*)?\.jpg|\.?[0-9a-f]{16}(-[^.]*)?\.json")


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


def make_detector(min_face_size: float, device: str = "auto") -> MTCNN:
    """Return MTCNN for faces of at least `min_face_size` pixels.

    Raises `StudyError` for a device that is not there.
    """
    chosen = pick_device(device)
    if chosen.type == "mps":  # Apple's backend lacks the resizing that MTCNN needs
        chosen = torch.device("cpu")
    return MTCNN(min_face_size=min_face_size, keep_all=True, device=chosen)


def detect(detector: MTCNN, images: Sequence[Image.Image]) -> list[Face | None]:
    """Return the face of each RGB picture, None where there is none.

    Pictures of one size are looked at together, up to 32 at a time. Coordinates are rounded to
    0.01 pixels, probabilities to 4 digits.
    """
    faces = {}
    sizes = pd.DataFrame([image.size for image in images], columns=["width", "height"])
    for rows in _batches(sizes):
        faces |= zip(rows, _look(detector, [images[row] for row in rows]), strict=True)
    return [faces[row] for row in range(len(images))]


def choose_face(faces: Sequence[Face], width: int, height: int) -> Face | None:
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


def align_crop(
    image: Image.Image, face: Face | None, crop_size: int, margin: float
) -> tuple[Image.Image, np.ndarray | None]:
    """Return the crop (crop_size × crop_size) and the landmarks (5, 2) in its pixels.

    The crop is a square around the middle of the box; its side is the longer side of the box plus
    `margin` times that on each side. It is turned by the face's tilt, so that both eyes have one
    height. Beyond the picture's border its edge is repeated. Without a face it is the largest
    central square, and there are no landmarks.
    """
    if face is None:
        centre = np.array(image.size) / 2
        return _square(image, centre, np.eye(2), min(image.size), crop_size), None
    centre = (face.box[:2] + face.box[2:]) / 2
    side = max(face.box[2:] - face.box[:2]) * (1 + 2 * margin)
    angle = math.radians(face.tilt)
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # (p - centre) @ axes are the coordinates of p along the crop's own axes.
    landmarks = (face.landmarks - centre) @ axes * (crop_size / side) + crop_size / 2
    return _square(image, centre, axes, side, crop_size), landmarks


def crop_faces(
    prepared_dir: str | Path,
    out_dir: str | Path,
    crop_size: int,
    margin: float,
    min_face_size: int,
    device: str,
) -> pd.DataFrame:
    """Crop every prepared face to `crop_size` × `crop_size` pixels, and return the manifest.

    Writes `Pain/`, `NoPain/`, `batches/` (what was found, so that a run that was broken off is
    taken up) and `manifest.csv` into `out_dir`: the columns of the prepared faces' manifest and

    - `detected`: False where no face was found, and the crop is the central square;
    - `probability`, `box`, `original_landmarks`: what MTCNN found, in the prepared picture;
    - `tilt`: of the eye line there, in degrees; `landmarks`: in the crop. See `Face`.

    `margin` is the share of the face box added on each side; `min_face_size` is in pixels of the
    prepared picture. A batch whose crops are there, made from the same pictures with the same
    parameters, is kept; crops of other faces are removed. `manifest.csv` is there only while the
    folder is whole. Raises `StudyError` for a missing folder or manifest, a prepared face that is
    missing or damaged, and a device that is not there.
    """
    source, out = files.project_path(prepared_dir), files.project_path(out_dir)
    if out.resolve() == source.resolve():
        raise StudyError(f"The folder {short_path(out)} is both prepared_dir and out_dir.")
    table = read_prepared(source)
    detector = make_detector(min_face_size, device)
    batches = [table.iloc[rows] for rows in _batches(table[["width", "height"]])]
    records = [_record(out, batch, crop_size, margin, min_face_size) for batch in batches]
    (out / "manifest.csv").unlink(missing_ok=True)

    def work_on(number: int) -> dict[str, dict]:
        rows, record = list(batches[number].itertuples()), records[number]
        known = files.read_json(record) if record.is_file() else {}
        if known and all(_is_whole(out / row.path, known[row.image_id]) for row in rows):
            return known
        images = [_read(source, row) for row in rows]
        found = zip(rows, images, detect(detector, images), strict=True)
        known = {
            row.image_id: _write_crop(out / row.path, image, face, crop_size, margin)
            for row, image, face in found
        }
        files.write_json(record, known)
        return known

    entries: dict[str, dict] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches are worked on side by side instead
    try:
        for known in files.side_by_side(work_on, range(len(batches)), "Cropping", "batch"):
            entries |= known
    finally:
        torch.set_num_threads(threads)
    _remove_others(out, {*records, *(out / path for path in table["path"])})
    found = pd.DataFrame([entries[image_id] for image_id in table["image_id"]], table.index)
    manifest = table.assign(width=crop_size, height=crop_size, **found)
    files.write_csv(out / "manifest.csv", manifest)
    return manifest


def read_prepared(prepared_dir: str | Path) -> pd.DataFrame:
    """Return the manifest of chapter 1's faces; raise `StudyError` where it is none."""
    path = files.existing_folder(prepared_dir, "prepared faces of chapter 1") / "manifest.csv"
    table = files.read_csv(path)
    for column in ("image_id", "path", "identity", "side", "label", "width", "height", "sha256"):
        if column not in table:
            raise StudyError(f"The file {short_path(path)} lacks the column {column}.")
    if table.empty:
        raise StudyError(f"The file {short_path(path)} lists no faces.")
    return table


def _batches(sizes: pd.DataFrame) -> list[list[int]]:
    """Return rows in lists: the pictures of one list have one size and fit into memory together."""
    batches = []
    for (width, height), rows in sizes.groupby(["width", "height"], sort=False).indices.items():
        count = max(1, min(_BATCH, _BATCH_PIXELS // (width * height)))
        batches += [rows[start : start + count] for start in range(0, len(rows), count)]
    return batches


def _look(detector: MTCNN, images: list[Image.Image]) -> list[Face | None]:
    """Return the chosen face of each picture; the pictures have one size."""
    width, height = images[0].size
    if min(width, height) < detector.min_face_size:  # MTCNN fails where no face can fit
        return [None] * len(images)
    try:
        found = zip(*detector.detect(images, landmarks=True), strict=True)
    except IndexError:
        # MTCNN stumbles over a candidate that lies outside of its picture. One such picture, alone,
        # counts as one without a face.
        if len(images) == 1:
            return [None]
        return [face for image in images for face in _look(detector, [image])]
    return [choose_face(_faces(*parts), width, height) for parts in found]


def _faces(boxes: np.ndarray | None, scores: np.ndarray, points: np.ndarray) -> list[Face]:
    found = zip(boxes, points, scores, strict=True) if boxes is not None else ()
    return [Face(np.float64(b).round(2), np.float64(p).round(2), round(float(s), 4))
            for b, p, s in found]  # fmt: skip


def _square(
    image: Image.Image, centre: np.ndarray, axes: np.ndarray, side: float, size: int
) -> Image.Image:
    """Return the square of `side` around `centre` along `axes` (columns: right, down) at `size`.

    Bicubic; a square larger than `size` is taken at its own scale first and then reduced with
    antialiasing.
    """
    corners = centre + side / 2 * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) @ axes.T
    left, top = np.floor(corners.min(axis=0)).astype(int) - 2
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 3
    rows = np.clip(np.arange(top, bottom), 0, image.height - 1)
    columns = np.clip(np.arange(left, right), 0, image.width - 1)
    window = Image.fromarray(np.asarray(image)[rows][:, columns])
    work = max(size, round(side))
    (a, b), (d, e) = axes * (side / work)
    x, y = corners[0] - (left, top)
    square = window.transform(
        (work, work), Image.Transform.AFFINE, (a, b, x, d, e, y), Image.Resampling.BICUBIC
    )
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _read(source: Path, row: tuple) -> Image.Image:
    name = f"The prepared face {short_path(source / row.path)}"
    try:
        image = Image.fromarray(pairs.read_rgb(source / row.path))
    except pairs.PictureError as error:
        raise StudyError(f"{name} cannot be read ({error.reason}): run chapter 1 again.") from error
    if image.size != (row.width, row.height):
        raise StudyError(f"{name} has not the size that its manifest says: run chapter 1 again.")
    return image


def _write_crop(
    path: Path, image: Image.Image, face: Face | None, crop_size: int, margin: float
) -> dict:
    """Write one crop, and return its `sha256` and `FOUND_COLUMNS`."""
    crop, landmarks = align_crop(image, face, crop_size, margin)
    pairs.write_jpeg(path, np.asarray(crop))
    entry = dict.fromkeys(FOUND_COLUMNS) | {"sha256": files.sha256(path), "detected": bool(face)}
    if face is None:
        return entry
    return entry | {
        "probability": face.probability,
        "box": _text(face.box),
        "landmarks": _text(landmarks),
        "tilt": round(face.tilt, 2),
        "original_landmarks": _text(face.landmarks),
    }


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in np.round(values, 2).ravel())


def _record(out: Path, batch: pd.DataFrame, *settings: float) -> Path:
    """Return where a batch is noted: a name that other pictures or settings would not have."""
    content = [_VERSION, settings, batch[["path", "sha256"]].to_numpy().tolist()]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return out / "batches" / f"{name}.json"


def _is_whole(path: Path, entry: dict) -> bool:
    return path.is_file() and files.sha256(path) == entry["sha256"]


def _remove_others(out: Path, kept: set[Path]) -> None:
    """Remove crops and records, whole or half written, but those `kept`; other files stay."""
    parts = [path for name in ("Pain", "NoPain", "batches") for path in (out / name).glob("*")]
    own = {path for path in parts if _OWN_FILE.fullmatch(path.name)}
    for path in own.union(out.glob(".manifest-*.csv")) - kept:
        path.unlink()
