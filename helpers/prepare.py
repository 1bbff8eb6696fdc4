"""From side-by-side pairs to labelled faces with splits; what was not used is listed with why."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import StudyError
from helpers.files import existing_folder, project_path, sha256, short_path, write_csv
from helpers.naming import CELL, LABELS, SIDES, NamingError, PairName, label, parse_name
from helpers.pictures import PictureError, read_rgb, write_jpeg
from helpers.seams import Seam, find_seam, split_at
from helpers.splits import (
    assign_splits,
    check_disjoint,
    check_ratios,
    read_folds,
    splits_from_folds,
)
from helpers.work import Journal, side_by_side

MANIFEST_COLUMNS = [
    *("image_id", "path", "identity", "side", "label", *CELL),
    *("split", "width", "height", "sha256"),
]
REJECTED_COLUMNS = ["path", "reason", "detail"]
PAIR_COLUMNS = ["identity", "path", "sha256", "seam", "seam_start", "seam_end"]

# A file of another kind is no failed pair: it is counted apart.
IGNORED = "other_file"
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_SMALLEST = 64  # width and height of a half, in pixels
_VERSION = 1  # of what is done to a picture; a change of it makes old work count for nothing
_FACE_FILE = re.compile(r"\.?[0-9]{10}_(left|right)(-[^.]*)?\.jpg")


@dataclass(frozen=True)
class Prepared:
    """What `prepare_dataset` did.

    `manifest`, two rows a used pair; `rejected`, one row a file that was not used; `pairs`, one
    row a used pair: its file, its bytes' SHA-256 and the columns that were cut out at the seam;
    `n_found`, the files found; `split_note`, a sentence on how the splits were made.
    """

    manifest: pd.DataFrame
    rejected: pd.DataFrame
    pairs: pd.DataFrame
    n_found: int
    split_note: str

    @property
    def n_accepted(self) -> int:
        """Files that became a pair of faces."""
        return len(self.pairs)

    @property
    def n_ignored(self) -> int:
        """Files that are no pictures by their name (text, video, ...)."""
        return int((self.rejected["reason"] == IGNORED).sum())

    @property
    def n_rejected(self) -> int:
        """Pictures that could not be used."""
        return len(self.rejected) - self.n_ignored


@dataclass(frozen=True)
class _Rejection:
    path: str
    reason: str
    detail: str


def prepare_dataset(
    raw_dir: str | Path,
    out_dir: str | Path,
    folds_file: str | Path | None,
    split_ratios: Sequence[float],
    split_seed: int,
) -> Prepared:
    """Cut all pairs below `raw_dir` into labelled faces in `out_dir`, with identity splits.

    Writes `Pain/` and `NoPain/` (JPEG, named <ID>_left.jpg and <ID>_right.jpg), `manifest.csv`,
    `rejected.csv` and `pairs.csv`. Every file found is in `pairs.csv` or in `rejected.csv`. Of
    several files of one ID the first usable one counts, in the order of their paths. Finished work
    is kept when it still fits; faces of an earlier, different input are removed; `manifest.csv`
    is there only while the folder is whole. With `folds_file` the splits are the dataset's own
    folds (see `splits_from_folds`), else `assign_splits` makes them. Raises `StudyError` for a
    missing or empty folder, ratios that are none, a folds file that cannot be understood, and a
    folder without any usable pair.
    """
    raw = existing_folder(raw_dir, "side-by-side pairs")
    out = project_path(out_dir)
    _check_apart(raw, out)
    check_ratios(split_ratios)
    folds = read_folds(folds_file) if folds_file is not None else None

    found = _files(raw)
    candidates, rejections = _by_identity(raw, found)
    (out / "manifest.csv").unlink(missing_ok=True)
    journal = Journal(out / "journal.jsonl", {"version": _VERSION})
    tasks = [(raw, out, pair, paths, journal.get(pair.identity)) for pair, paths in candidates]
    entries: dict[PairName, dict] = {}
    results = side_by_side(lambda task: _prepare_identity(*task), tasks, "Cutting pairs", "pair")
    for (pair, _), (entry, more) in zip(candidates, results, strict=True):
        rejections += more
        if entry is not None:
            entries[pair] = entry
            if entry != journal.get(pair.identity):
                journal.add(pair.identity, entry)
    journal.keep([pair.identity for pair in entries])
    rejected = pd.DataFrame(map(asdict, rejections), columns=REJECTED_COLUMNS)
    rejected = rejected.sort_values("path", ignore_index=True)
    write_csv(out / "rejected.csv", rejected)
    remove_unlisted(out, {face["path"] for e in entries.values() for face in e["faces"]})
    if not entries:
        (out / "pairs.csv").unlink(missing_ok=True)
        raise StudyError(
            f"None of the {len(found)} files in {short_path(raw)} is a usable pair: all "
            f"{len(rejected)} were rejected, see {short_path(out / 'rejected.csv')}."
        )

    table = pd.DataFrame(map(asdict, entries))
    if folds is None:
        splits = assign_splits(table, split_ratios, split_seed)
        note = f"The splits were drawn by identity within the cells, with seed {split_seed}."
    else:
        splits, note = splits_from_folds(list(table["identity"]), folds)
    manifest = _manifest(entries, splits)
    check_disjoint(manifest)
    pairs = pd.DataFrame(
        [[pair.identity, _text(e["path"]), e["sha256"], *e["seam"]] for pair, e in entries.items()],
        columns=PAIR_COLUMNS,
    )
    if len(pairs) + len(rejected) != len(found):
        raise AssertionError("Files found and files accounted for differ.")
    write_csv(out / "pairs.csv", pairs)
    write_csv(out / "manifest.csv", manifest)
    return Prepared(manifest, rejected, pairs, len(found), note)


def read_pair(raw_dir: str | Path, pairs: pd.DataFrame, identity: str) -> tuple[np.ndarray, Seam]:
    """Return the picture (height, width, 3) and the seam of a used pair, for display."""
    row = pairs.set_index("identity").loc[identity]
    seam = Seam(row["seam"], int(row["seam_start"]), int(row["seam_end"]))
    return read_rgb(project_path(raw_dir) / row["path"]), seam


def remove_unlisted(folder: Path, listed: set[str]) -> None:
    """Remove the faces below `folder` whose paths (`Pain/<image_id>.jpg`) are not `listed`.

    Among them are those that a kill left half written; any other file stays.
    """
    for name in LABELS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in (folder / name).iterdir():
            if _FACE_FILE.fullmatch(path.name) and f"{name}/{path.name}" not in listed:
                path.unlink()


def _check_apart(raw: Path, out: Path) -> None:
    """Raise `StudyError` where one folder lies in the other: outputs would become inputs."""
    a, b = raw.resolve(), out.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise StudyError(
            f"The folders {short_path(raw)} (raw_dir) and {short_path(out)} (out_dir) must not lie "
            "one within the other."
        )


def _files(folder: Path) -> list[str]:
    """Return all that lies below `folder` and is no folder, as sorted relative paths.

    Links to folders are followed, each real folder once.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def _by_identity(
    raw: Path, found: list[str]
) -> tuple[list[tuple[PairName, list[str]]], list[_Rejection]]:
    """Sort the files by what their names say: candidates of each identity, and rejections."""
    candidates: dict[PairName, list[str]] = {}
    rejections = []
    for path in found:
        suffix = Path(path).suffix.lower()
        if suffix not in _PICTURES:
            kind = f"of type '{_text(suffix)}'" if suffix else "without a type"
            detail = f"A file {kind} is no pair of faces."
            rejections.append(_Rejection(_text(path), IGNORED, detail))
        elif not (raw / path).is_file():
            detail = "This is neither a file nor a link to one."
            rejections.append(_Rejection(_text(path), "unreadable", detail))
        else:
            try:
                candidates.setdefault(parse_name(Path(path).name), []).append(path)
            except NamingError as error:
                rejections.append(_Rejection(_text(path), error.reason, _text(str(error))))
    return sorted(candidates.items(), key=lambda item: item[0].identity), rejections


def _text(path: str) -> str:
    """Return a path that can be written as UTF-8 (a file's name may be any bytes)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _prepare_identity(
    raw: Path, out: Path, pair: PairName, paths: list[str], entry: dict | None
) -> tuple[dict | None, list[_Rejection]]:
    """Write both halves of the first usable file of `paths`; return its journal entry."""
    rejections, used = [], None
    for path in paths:
        if used is not None:
            detail = f"The ID {pair.identity} is already that of '{_text(used['path'])}'."
            rejections.append(_Rejection(_text(path), "duplicate_id", detail))
            continue
        try:
            used = _prepare_file(raw, out, pair, path, entry)
        except PictureError as error:
            rejections.append(_Rejection(_text(path), error.reason, _text(str(error))))
    return used, rejections


def _prepare_file(raw: Path, out: Path, pair: PairName, path: str, entry: dict | None) -> dict:
    try:
        digest = sha256(raw / path)
    except OSError as error:
        raise PictureError("unreadable", f"The file cannot be read: {error.strerror}.") from error
    if entry and (entry["path"], entry["sha256"]) == (path, digest) and _whole(out, entry):
        return entry
    pixels = read_rgb(raw / path)
    height, width = pixels.shape[:2]
    if width <= height:
        detail = f"The picture is {width}×{height} pixels: not two faces side by side."
        raise PictureError("not_side_by_side", detail)
    seam = find_seam(pixels) if min(height, width) >= _SMALLEST else Seam("middle", 0, 0)
    halves = split_at(pixels, seam)
    if min(halves[0].shape[:2]) < _SMALLEST:
        detail = f"The picture is {width}×{height} pixels: a half needs {_SMALLEST}×{_SMALLEST}."
        raise PictureError("too_small", detail)
    faces = []
    for side, half in zip(SIDES, halves, strict=True):
        face = f"{label(pair.expression, side)}/{pair.identity}_{side}.jpg"
        write_jpeg(out / face, half)
        size = {"width": half.shape[1], "height": half.shape[0]}
        faces.append({"path": face, **size, "sha256": sha256(out / face)})
    seam_columns = [seam.kind, seam.start, seam.end]
    return {"path": path, "sha256": digest, "seam": seam_columns, "faces": faces}


def _whole(out: Path, entry: dict) -> bool:
    """Tell whether the faces of a journal entry are still as they were written."""
    files = [(out / face["path"], face["sha256"]) for face in entry["faces"]]
    return all(path.is_file() and sha256(path) == digest for path, digest in files)


def _manifest(entries: dict[PairName, dict], splits: dict[str, str]) -> pd.DataFrame:
    rows = []
    for pair, entry in entries.items():
        for side, face in zip(SIDES, entry["faces"], strict=True):
            row = {**asdict(pair), **face, "side": side, "split": splits[pair.identity]}
            row |= {
                "image_id": f"{pair.identity}_{side}",
                "label": label(pair.expression, side),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=MANIFEST_COLUMNS)
