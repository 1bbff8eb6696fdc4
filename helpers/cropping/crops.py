"""From prepared faces to aligned face crops: MTCNN finds the face, the rest is geometry."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cropping.align import Face, crop_centre, crop_face
from helpers.cropping.detector import FaceDetector
from helpers.dataset.pictures import PictureError, read_rgb, write_jpeg
from helpers.dataset.prepare import MANIFEST_COLUMNS, remove_unlisted
from helpers.devices import one_thread
from helpers.errors import StudyError
from helpers.files import existing_folder, project_path, read_csv, sha256, short_path, write_csv
from helpers.work import Journal, side_by_side

CROP_COLUMNS = [*MANIFEST_COLUMNS, "detected", "probability", "box", "landmarks"]

# Pictures of one size that go through MTCNN together: as many, and no more than so many pixels.
_BATCH, _BATCH_PIXELS = 32, 4_000_000
_VERSION = 2  # of what is done to a face; a change of it makes old work count for nothing


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
    `margin` is the share of the face box added on each side; `min_face_size` is in pixels of the
    prepared picture. A face that MTCNN does not find becomes the central square, with `detected`
    False. Faces and crops that were found and made from the same picture with the same parameters
    are kept, others are removed; `manifest.csv` is there only while the folder is whole. At any
    time a few batches of pictures are in memory, whatever their number. Raises `StudyError` for a
    missing folder or manifest, a prepared face that is missing or damaged, and `cuda` without a
    GPU.
    """
    source, out = project_path(prepared_dir), project_path(out_dir)
    if out.resolve() == source.resolve():
        raise StudyError(f"The folder {short_path(out)} is both prepared_dir and out_dir.")
    table = read_prepared(source)
    detect = FaceDetector(min_face_size, device)
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.csv").unlink(missing_ok=True)
    for name in (".manifest-*.csv", ".journal-*.jsonl"):  # a kill left them half written
        for path in out.glob(name):
            path.unlink()
    settings = {"crop_size": crop_size, "margin": margin, "min_face_size": min_face_size}
    journal = Journal(out / "journal.jsonl", {"version": _VERSION, **settings})
    # The batches are those of the whole table, also where most of it is done: what MTCNN finds
    # depends in the last digit on what it sees together, and a run that was broken off is to end
    # like any other.
    unfinished = {row.image_id for row in table.itertuples() if not _finished(out, row, journal)}
    batches = [(rows, [row for row in rows if row.image_id in unfinished])
               for rows in _batches(table)]  # fmt: skip
    batches = [(rows, due) for rows, due in batches if due]

    def work_on(batch: tuple[list, list]) -> None:
        rows, due = batch
        pictures = {row.image_id: _read(source, row) for row in due}
        unseen = [row for row in due if not _known(row, journal)]
        if unseen:
            others = {r.image_id: _read(source, r) for r in rows if r.image_id not in pictures}
            together = [(pictures | others)[row.image_id] for row in rows]
            faces = dict(zip((row.image_id for row in rows), detect(together), strict=True))
            journal.add_all({r.image_id: _describe(r, faces[r.image_id]) for r in unseen})
        for row in due:
            entry = journal.get(row.image_id)
            more = _write_crop(out / row.path, pictures[row.image_id], entry, crop_size, margin)
            journal.add(row.image_id, entry | more)

    with one_thread():
        sizes = [len(due) for _, due in batches]
        done = len(table) - sum(sizes)
        for _ in side_by_side(work_on, batches, "Cropping", "face", sizes=sizes, done=done):
            pass
    journal.keep(list(table["image_id"]))
    remove_unlisted(out, set(table["path"]))
    manifest = _manifest(table, journal, crop_size)
    write_csv(out / "manifest.csv", manifest)
    return manifest


def read_prepared(prepared_dir: str | Path) -> pd.DataFrame:
    """Return the manifest of notebook 01's faces; raise `StudyError` where it is none."""
    path = existing_folder(prepared_dir, "prepared faces of notebook 01") / "manifest.csv"
    table = read_csv(path)
    missing = [column for column in MANIFEST_COLUMNS if column not in table]
    if missing:
        raise StudyError(f"The file {short_path(path)} lacks the column {missing[0]}.")
    if table.empty:
        raise StudyError(f"The file {short_path(path)} lists no faces.")
    return table


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


def _batches(table: pd.DataFrame) -> Iterator[list]:
    """Yield rows in lists; the pictures of one list have one size and fit into memory together."""
    for (width, height), group in table.groupby(["width", "height"], sort=False):
        rows = list(group.itertuples())
        count = max(1, min(_BATCH, _BATCH_PIXELS // (width * height)))
        for start in range(0, len(rows), count):
            yield rows[start : start + count]


def _read(source: Path, row: tuple) -> np.ndarray:
    name = short_path(source / row.path)
    try:
        pixels = read_rgb(source / row.path)
    except PictureError as error:
        raise StudyError(
            f"The prepared face {name} cannot be read ({error.reason}): run notebook 01 again."
        ) from error
    if pixels.shape[:2] != (row.height, row.width):
        raise StudyError(
            f"The prepared face {name} has not the size that its manifest says: run notebook 01 "
            "again."
        )
    return pixels


def _known(row: tuple, journal: Journal) -> bool:
    """Tell whether MTCNN has looked at this very picture."""
    entry = journal.get(row.image_id)
    return entry is not None and entry["source_sha256"] == row.sha256


def _finished(out: Path, row: tuple, journal: Journal) -> bool:
    """Tell whether the crop of a prepared face is there, and still that of this very picture."""
    path = out / row.path
    return (
        _known(row, journal)
        and path.is_file()
        and sha256(path) == journal.get(row.image_id).get("sha256")
    )


def _describe(row: tuple, face: Face | None) -> dict:
    """Return the journal's entry of a face that was looked for and is not cropped yet."""
    entry = {"source_sha256": row.sha256, "detected": face is not None}
    if face is None:
        return entry
    return entry | {
        "probability": face.probability,
        "box": face.box.tolist(),
        "points": face.landmarks.tolist(),
    }


def _face(entry: dict) -> Face | None:
    if not entry["detected"]:
        return None
    return Face(np.array(entry["box"]), np.array(entry["points"]), entry["probability"])


def _write_crop(path: Path, pixels: np.ndarray, entry: dict, crop_size: int, margin: float) -> dict:
    """Write one crop; return what it adds to the entry."""
    face = _face(entry)
    if face is None:
        write_jpeg(path, crop_centre(pixels, crop_size))
        return {"sha256": sha256(path)}
    crop, landmarks = crop_face(pixels, face, crop_size, margin)
    write_jpeg(path, crop)
    return {"sha256": sha256(path), "landmarks": np.round(landmarks, 2).ravel().tolist()}


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
