"""From side-by-side pairs to labelled faces with splits; what was not used is listed with why."""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.dataset.duplicates import NearDuplicates, find_near_duplicates, picture_hash
from helpers.dataset.naming import CELL, LABELS, SIDES, PairName, label
from helpers.dataset.pictures import PictureError, check_size, read_picture, read_rgb, write_jpeg
from helpers.dataset.seams import Seam, find_seam, split_at
from helpers.dataset.splits import check_disjoint, check_split
from helpers.dataset.splitting import Splitting, choose_folds, split_people
from helpers.dataset.tree import IGNORED, Rejection, Tree, printable, walk
from helpers.errors import StudyError
from helpers.files import existing_folder, project_path, sha256, short_path, write_csv
from helpers.prose import listing
from helpers.work import Journal, side_by_side

MANIFEST_COLUMNS = [
    *("image_id", "path", "identity", "side", "label", *CELL),
    *("split", "width", "height", "sha256"),
]
REJECTED_COLUMNS = ["path", "reason", "detail"]
SOURCE_COLUMNS = ["path", "sha256", "format", "mode", "bytes", "width", "height"]
PAIR_COLUMNS = [
    *("identity", *SOURCE_COLUMNS, "seam", "seam_start", "seam_end", "duplicate_group"),
]

_SMALLEST = 64  # width and height of a half, in pixels
# Width to height of a pair. SynPAIN's is 1.78; a half alone or a photograph of one person (4:3)
# lies below, three people side by side above.
_NARROWEST, _WIDEST = 1.4, 2.6
_VERSION = 2  # of what is done to a picture; a change of it makes old work count for nothing
_FACE_FILE = re.compile(r"\.?[0-9]{10}_(left|right)(-[^.]*)?\.jpg")
_TABLES = ("manifest.csv", "rejected.csv", "pairs.csv", "duplicates.csv", "folds.csv")


@dataclass(frozen=True)
class Prepared:
    """What `prepare_dataset` did.

    `manifest`, two rows a used pair; `rejected`, one row a file that was not used; `pairs`, one
    row a used pair: its file and what that was (`bytes` long, `width` and `height` in pixels with
    EXIF rotation applied), the columns that were cut out at the seam, and the least identity of
    those who share a picture with it; `n_found`, the files found; `sources`, the path of each
    identity's file; `near`, the halves that look the same; `splitting`, how the splits were made;
    `seconds` that it took.
    """

    manifest: pd.DataFrame
    rejected: pd.DataFrame
    pairs: pd.DataFrame
    n_found: int
    sources: dict[str, str]
    near: NearDuplicates
    splitting: Splitting
    seconds: float

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


def prepare_dataset(
    raw_dir: str | Path,
    out_dir: str | Path,
    folds_file: str | Path | None,
    split_ratios: Sequence[float],
    split_seed: int,
) -> Prepared:
    """Cut all pairs below `raw_dir` into labelled faces in `out_dir`, with identity splits.

    Writes `Pain/` and `NoPain/` (JPEG, named <ID>_left.jpg and <ID>_right.jpg), `manifest.csv`,
    `rejected.csv`, `pairs.csv`, `duplicates.csv` and, where people were split by folds,
    `folds.csv`. Every file found is in `pairs.csv` or in `rejected.csv`. Of several files of one
    ID the first usable one counts, in the order of their paths; of several IDs with the same bytes
    the first, or none where their names contradict each other. People who share a picture that is
    nearly the same come into one split. Finished work is kept when it still fits; faces of an
    earlier, different input are removed; `manifest.csv` is there only while the folder is whole.

    `folds_file` is a file of the dataset's own folds (`read_folds` says which layouts), `"auto"`
    for the one below `raw_dir` if there is one that can be understood, or None. `split_ratios` is
    the shares of train, validation and test, or `[k, i]` for k folds of which the i-th, counted
    from 0, is the test set and the one before it the validation set. With a folds file the folds
    are those of the file: shares give way to its last fold as test set, and k must be their
    number. Raises `StudyError` for a missing or empty folder, a split that is none, a folds file
    that cannot be understood, and a folder without any usable pair.
    """
    began = time.monotonic()
    raw = existing_folder(raw_dir, "side-by-side pairs")
    out = project_path(out_dir)
    _check_apart(raw, out)
    ratios = check_split(split_ratios)
    tree = walk(raw, out)
    folds = choose_folds(folds_file, raw, tree, ratios)

    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.csv").unlink(missing_ok=True)
    _remove_leftovers(out)
    entries, rejections = _cut_all(raw, out, tree)
    rejected = pd.DataFrame(map(asdict, rejections), columns=REJECTED_COLUMNS)
    rejected["path"] = rejected["path"].map(printable)
    rejected = rejected.sort_values("path", ignore_index=True, kind="stable")
    write_csv(out / "rejected.csv", rejected)
    remove_unlisted(out, {face["path"] for e in entries.values() for face in e["faces"]})
    for name in _TABLES[2:]:
        (out / name).unlink(missing_ok=True)
    if not entries:
        raise StudyError(
            f"None of the {tree.n_found} files in {short_path(raw)} is a usable pair: all "
            f"{len(rejected)} were rejected, see {short_path(out / 'rejected.csv')}."
        )

    near = find_near_duplicates(
        {
            (pair.identity, side): code
            for pair, entry in entries.items()
            for side, code in zip(SIDES, entry["hashes"], strict=True)
        }
    )
    people = pd.DataFrame(map(asdict, entries))
    splitting = split_people(people, ratios, split_seed, near.groups, folds)
    manifest = _manifest(entries, splitting.splits)
    check_disjoint(manifest)
    check_disjoint(manifest.assign(identity=manifest["identity"].map(near.groups)))
    pairs = _pairs(entries, near.groups)
    if len(pairs) + len(rejected) != tree.n_found:
        raise AssertionError("Files found and files accounted for differ.")
    write_csv(out / "duplicates.csv", near.table)
    if splitting.folds is not None:
        write_csv(out / "folds.csv", splitting.folds)
    write_csv(out / "pairs.csv", pairs)
    write_csv(out / "manifest.csv", manifest)
    sources = {pair.identity: entry["path"] for pair, entry in entries.items()}
    seconds = time.monotonic() - began
    return Prepared(manifest, rejected, pairs, tree.n_found, sources, near, splitting, seconds)


def read_pair(raw_dir: str | Path, result: Prepared, identity: str) -> tuple[np.ndarray, Seam]:
    """Return the picture (height, width, 3) and the seam of a used pair, for display."""
    row = result.pairs.set_index("identity").loc[identity]
    seam = Seam(row["seam"], int(row["seam_start"]), int(row["seam_end"]))
    return read_rgb(project_path(raw_dir) / result.sources[identity]), seam


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


def _remove_leftovers(out: Path) -> None:
    """Remove what a kill left half written of the tables and the journal."""
    for name in (*_TABLES, "journal.jsonl"):
        stem, suffix = name.split(".")
        for path in out.glob(f".{stem}-*.{suffix}"):
            path.unlink()


def _cut_all(raw: Path, out: Path, tree: Tree) -> tuple[dict[PairName, dict], list[Rejection]]:
    """Write the faces of all candidates; return what is known of each used pair, and the rest."""
    journal = Journal(out / "journal.jsonl", {"version": _VERSION})
    rejections = list(tree.rejections)
    tasks = [(raw, out, pair, paths, journal.get(pair.identity)) for pair, paths in tree.candidates]
    entries: dict[PairName, dict] = {}
    results = side_by_side(lambda task: _prepare_identity(*task), tasks, "Cutting pairs", "pair")
    for (pair, _), (entry, more) in zip(tree.candidates, results, strict=True):
        rejections += more
        if entry is not None:
            entries[pair] = entry
            if entry != journal.get(pair.identity):
                journal.add(pair.identity, entry)
    repeated = _repeated(entries)
    entries = {pair: entry for pair, entry in entries.items() if pair not in repeated}
    journal.keep([pair.identity for pair in entries])
    return entries, [*rejections, *repeated.values()]


def _repeated(entries: dict[PairName, dict]) -> dict[PairName, Rejection]:
    """Return the pairs whose file has the very bytes of another person's, and why each is out."""
    same: dict[str, list[PairName]] = {}
    for pair, entry in entries.items():
        same.setdefault(entry["sha256"], []).append(pair)
    repeated = {}
    for first, *others in (pairs for pairs in same.values() if len(pairs) > 1):
        told = {tuple(getattr(pair, key) for key in CELL) for pair in (first, *others)}
        for pair in others if len(told) == 1 else (first, *others):
            if len(told) == 1:
                reason = "duplicate_picture"
                detail = f"The file has the bytes of '{entries[first]['path']}', which is used."
            else:
                reason = "contradictory_duplicate"
                detail = (
                    f"Files named {listing([p.identity for p in (first, *others)])} have the same "
                    "bytes, and their names contradict each other."
                )
            repeated[pair] = Rejection(entries[pair]["path"], reason, printable(detail))
    return repeated


def _prepare_identity(
    raw: Path, out: Path, pair: PairName, paths: list[str], entry: dict | None
) -> tuple[dict | None, list[Rejection]]:
    """Write both halves of the first usable file of `paths`; return its journal entry."""
    rejections, used = [], None
    for path in paths:
        if used is not None:
            detail = f"The ID {pair.identity} is already that of '{printable(used['path'])}'."
            rejections.append(Rejection(path, "duplicate_id", detail))
            continue
        try:
            used = _prepare_file(raw, out, pair, path, entry)
        except PictureError as error:
            rejections.append(Rejection(path, error.reason, printable(str(error))))
    return used, rejections


def _prepare_file(raw: Path, out: Path, pair: PairName, path: str, entry: dict | None) -> dict:
    n_bytes = check_size(raw / path)
    try:
        digest = sha256(raw / path)
    except OSError as error:
        raise PictureError("unreadable", f"The file cannot be read: {error.strerror}.") from error
    if entry and (entry["path"], entry["sha256"]) == (path, digest) and _whole(out, entry):
        return entry
    picture = read_picture(raw / path)
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    if not _NARROWEST * height <= width <= _WIDEST * height:
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
    source = [path, digest, picture.format, picture.mode, n_bytes, width, height]
    return {
        **dict(zip(SOURCE_COLUMNS, source, strict=True)),
        "seam": [seam.kind, seam.start, seam.end],
        "hashes": [picture_hash(half) for half in halves],
        "faces": faces,
    }


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


def _pairs(entries: dict[PairName, dict], groups: dict[str, str]) -> pd.DataFrame:
    rows = [
        [
            *(pair.identity, printable(entry["path"])),
            *(entry[key] for key in SOURCE_COLUMNS[1:]),
            *(*entry["seam"], groups[pair.identity]),
        ]
        for pair, entry in entries.items()
    ]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)
