"""From side-by-side pairs to labelled faces with splits; what was not used is listed with why.

python -m helpers.prepare RAW OUT [--folds-file FILE] [--split-ratios 0.7 0.15 0.15]

A call that was broken off goes on: `record/<ID>.json` says of what the faces of a pair were made.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL
from scipy.sparse.csgraph import connected_components

from helpers import files, pairs, splits
from helpers.files import StudyError, short_path, write_csv
from helpers.naming import SIDES, PairName, Unusable, label, parse_name

MANIFEST_COLUMNS = "image_id path identity side label expression gender age ethnicity".split()
MANIFEST_COLUMNS += "split site width height sha256".split()
PAIR_COLUMNS = "identity path sha256 format mode bytes width height".split()
PAIR_COLUMNS += "seam seam_start seam_end duplicate_group".split()
# Of the 512 bits of a half's hash. A half at JPEG quality 20, at a quarter of its size, blurred,
# 20 % brighter or with 1 % cut off stays below (at most 57 bits); halves of different people begin
# at 90 bits in the stand-in (2 million comparisons), at 125 in nine real pairs.
MOST_BITS = 60

_TABLES = ("manifest", "rejected", "pairs", "duplicates", "folds")
_OWN_FILE = re.compile(  # faces, records, and what a kill left half written of them and of tables
    r"(No)?Pain/\.?\d{10}_(left|right)(-\w+)?\.jpg|record/\.?\d{10}(-\w+)?\.json|\.[a-z]+-\w+\.csv"
)
_FOLDS_FILE = re.compile(r"(?:.*[^a-z])?folds\.(?:txt|csv)", re.IGNORECASE)
_ROWS = 512  # of the comparison of hashes at a time, which bounds its memory
# What decides a face beside its file: where it differs, earlier work does not count.
_MADE_BY = f"{files.sha256(pairs.__file__)}, Pillow {PIL.__version__}"


class Prepared(NamedTuple):
    """What `prepare_dataset` did.

    `manifest`, two rows a used pair; `rejected`, one row a file that was not used; `pairs`, one
    row a used pair: its file and what that was (`bytes` long, `width` and `height` in pixels with
    EXIF rotation applied), the columns that were cut out at the seam, and the least identity of
    those who share a picture with it; `duplicates`, one row a pair of halves of different people
    that look the same, with the bits of their hashes that differ; `folds_file`, the file that made
    the splits, or None.
    """

    manifest: pd.DataFrame
    rejected: pd.DataFrame
    pairs: pd.DataFrame
    duplicates: pd.DataFrame
    folds_file: str | None


def prepare_dataset(
    raw_dir: str, out_dir: str, folds_file: str | None, split_ratios: Sequence, split_seed: int
) -> Prepared:
    """Cut all pairs below `raw_dir` into labelled faces in `out_dir`, with identity splits.

    Writes `Pain/` and `NoPain/` (JPEG, named <ID>_left.jpg and <ID>_right.jpg), `manifest.csv`,
    `rejected.csv`, `pairs.csv`, `duplicates.csv` and, where people were split by folds,
    `folds.csv`. Every file found is in `pairs.csv` or in `rejected.csv`. Of several files of one
    ID the first usable one counts, in the order of their paths; of several IDs with the same bytes
    the first, or none where their names contradict each other. People who share a picture that is
    nearly the same come into one split. Faces that still fit are kept; those of an earlier,
    different input are removed; `manifest.csv` is there only while the folder is whole.

    `folds_file` is a file of the dataset's own folds (see `read_folds`), `"auto"` for the one
    below `raw_dir` if there is one, or None. `split_ratios` is the shares of train,
    validation and test, or `[k, i]` for k folds of which the i-th, counted from 0, is the test set
    and the one before it the validation set. With a folds file the folds are those of the file:
    shares give way to its last fold as test set. Raises `StudyError` for a missing or empty folder,
    a split that is none, a folds file that does not fit, and a folder without a usable pair.
    """
    raw, out = files.existing_folder(raw_dir, "side-by-side pairs"), files.project_path(out_dir)
    if raw.resolve().is_relative_to(out.resolve()):  # outputs would become inputs
        raise StudyError(f"{short_path(raw)} (raw_dir) may not lie in {short_path(out)} (out_dir).")
    asked = splits.check_split(split_ratios)
    candidates: dict[PairName, list[str]] = {}
    rejections: dict[str, Unusable] = {}
    for path, said in sorted(_scan(raw, out)):
        if isinstance(said, Unusable):
            rejections[path] = said
        else:
            candidates.setdefault(said, []).append(path)
    if folds_file == "auto":
        folds_file = next((raw / path for path in rejections if _FOLDS_FILE.fullmatch(path)), None)
    folds = None
    if folds_file is not None:
        folds = splits.read_folds(folds_file, {pair.identity for pair in candidates}, asked)
        folds_file = short_path(folds_file)

    out.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        (out / f"{name}.csv").unlink(missing_ok=True)
    entries: dict[str, dict] = {}  # by the path of the pair's file
    tasks = [(raw, out, *item) for item in sorted(candidates.items())]
    for entry, unusable in files.side_by_side(_cut_pair, tasks, "Cutting pairs", "pair"):
        rejections |= unusable
        if entry is not None:
            entries[entry["path"]] = entry
    repeated = _repeated(pd.DataFrame(entries.values(), columns=["identity", "path", "sha256"]))
    rejections |= repeated
    entries = {path: entry for path, entry in entries.items() if path not in repeated}
    faces = [face for entry in entries.values() for face in entry["faces"]]
    records = {f"record/{entry['identity']}.json" for entry in entries.values()}
    remove_unlisted(out, records | {face["path"] for face in faces})
    rows = [(path, error.reason, str(error)) for path, error in sorted(rejections.items())]
    rejected = pd.DataFrame(rows, columns=["path", "reason", "detail"]).map(_printable)
    write_csv(out / "rejected.csv", rejected)
    if not entries:
        reasons = short_path(out / "rejected.csv")
        raise StudyError(f"No file in {short_path(raw)} is a usable pair: {reasons} says why.")

    faces, used = pd.DataFrame(faces), pd.DataFrame(entries.values())
    duplicates, groups = near_duplicates(faces)
    people = faces[faces["side"] == "left"]
    table = splits.split_people(people, asked, split_seed, groups, folds)
    manifest = faces.merge(table[["identity", "split", "site"]], "left", "identity")
    manifest = manifest[MANIFEST_COLUMNS]
    together = manifest.groupby(manifest["identity"].map(groups))["split"].nunique() == 1
    assert together.all(), "A person is in two splits."
    used = used.assign(duplicate_group=used["identity"].map(groups))[PAIR_COLUMNS]
    write_csv(out / "duplicates.csv", duplicates)
    if folds is not None or isinstance(asked, splits.KFold):
        write_csv(out / "folds.csv", table)
    write_csv(out / "pairs.csv", used)
    write_csv(out / "manifest.csv", manifest)
    return Prepared(manifest, rejected, used, duplicates, folds_file)


def remove_unlisted(folder: Path, listed: set[str]) -> None:
    """Remove faces (`Pain/<image_id>.jpg`) and records below `folder` that are not `listed`.

    With them goes what a kill left half written, of these and of tables; any other file stays.
    """
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        name = path.relative_to(folder).as_posix()
        if _OWN_FILE.fullmatch(name) and name not in listed:
            path.unlink()


def _scan(folder: Path, leave_out: Path) -> Iterator[tuple[str, PairName | Unusable]]:
    """Yield all that lies below `folder`: its relative path, and what its name says of it.

    Links to folders are followed, each real folder once, and none leads into `leave_out`: outputs
    would become inputs. A folder that cannot be opened is an entry of its own.
    """
    closed: list[OSError] = []
    seen = {leave_out.resolve()}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=closed.append):
        if Path(place).resolve() in seen:
            folders.clear()
            continue
        seen.add(Path(place).resolve())
        folders.sort()
        for name in names:
            path = Path(place, name).relative_to(folder).as_posix()
            try:
                yield path, parse_name(name)
            except Unusable as error:
                yield path, error
    for error in closed:
        detail = f"The folder cannot be opened: {error.strerror}."
        yield os.path.relpath(error.filename, folder), Unusable("unreadable", detail)


def _printable(text: str) -> str:
    """Return `text` as UTF-8: a file's name may be any bytes."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _cut_pair(task: tuple) -> tuple[dict | None, dict[str, Unusable]]:
    """Write both halves of a pair's first usable file; return what is known of it, and the others.

    `task`: the folder of pairs, that of faces, the pair and its files. What an earlier call wrote
    is kept where it was made of the same bytes by the same code.
    """
    raw, out, pair, paths = task
    record = out / "record" / f"{pair.identity}.json"
    before = files.read_json(record) if record.is_file() else {}
    entry, unusable = None, {}
    for path in paths:
        try:
            if entry is not None:
                raise Unusable("duplicate_id", f"Its ID is already that of '{entry['path']}'.")
            data = pairs.read_bytes(raw / path)
            source = {"path": _printable(path), "sha256": hashlib.sha256(data).hexdigest()}
            source["made"] = _MADE_BY
            there = all((out / face["path"]).is_file() for face in before.get("faces", ()))
            done = there and source.items() <= before.items()
            entry = before if done else source | _write_halves(out, pair, data)
        except Unusable as error:
            unusable[path] = error
    if entry not in (None, before):
        files.write_json(record, entry)
    return entry, unusable


def _write_halves(out: Path, pair: PairName, data: bytes) -> dict:
    """Write the halves of the pair whose file holds `data`; return what is known of all three."""
    whole, kind, mode, _ = pairs.open_picture(data)
    halves = pairs.split_pair(whole)._asdict()
    faces = []
    for side in SIDES:
        pixels = halves.pop(side)
        face = {"image_id": f"{pair.identity}_{side}", "side": side, **pair._asdict()}
        face["label"] = label(pair.expression, side)
        face["path"] = f"{face['label']}/{face['image_id']}.jpg"
        face["height"], face["width"], _ = pixels.shape
        pairs.write_jpeg(out / face["path"], pixels)
        face["sha256"] = files.sha256(out / face["path"])
        face["hash"] = pairs.picture_hash(pixels)
        faces.append(face)
    row = {"identity": pair.identity, "format": kind, "mode": mode, "bytes": len(data)}
    return row | halves | {"width": whole.shape[1], "height": whole.shape[0], "faces": faces}


def _repeated(used: pd.DataFrame) -> dict[str, Unusable]:
    """Return the files, by path, that have the very bytes of another person's, and why.

    Of names that say the same of the person the first is used, of contradictory ones none.
    """
    repeated = {}
    for _, same in used[used.duplicated("sha256", keep=False)].groupby("sha256"):
        # the first five digits say what the words of a name say
        alike = int(same["identity"].str[:5].nunique() == 1)
        reason = "duplicate_picture" if alike else "contradictory_duplicate"
        error = Unusable(reason, f"Files of {', '.join(same['identity'])} have the same bytes.")
        repeated |= dict.fromkeys(same["path"].iloc[alike:], error)
    return repeated


def near_duplicates(faces: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Compare all halves of different people, by `faces`' columns `identity`, `side` and `hash`.

    Returns the pairs of halves that differ in at most `MOST_BITS` bits (`identity, side,
    other_identity, other_side, bits`), and for each identity the smallest one that it is tied to by
    such pairs, directly or through others, itself where it is alone. All against all is one product
    of matrices of ±1, in blocks of rows: bits that agree add 1, bits that differ take 1 away.
    """
    people, person = np.unique(faces["identity"], return_inverse=True)
    keys = faces[["identity", "side"]].to_numpy().tolist()
    codes = np.array([list(bytes.fromhex(code)) for code in faces["hash"]], dtype=np.uint8)
    signs = np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
    ties = np.zeros((len(people), len(people)), dtype=bool)
    rows = []
    for start in range(0, len(faces), _ROWS):
        differ = (signs.shape[1] - signs[start : start + _ROWS] @ signs.T) / 2
        differ[person[start : start + _ROWS, None] >= person] = np.inf  # each two people once
        for a, b in np.argwhere(differ <= MOST_BITS):
            rows.append([*keys[start + a], *keys[b], int(differ[a, b])])
            ties[person[start + a], person[b]] = True
    part = connected_components(ties, directed=False)[1]
    groups = dict(zip(people, pd.Series(people).groupby(part).transform("min"), strict=True))
    columns = ["identity", "side", "other_identity", "other_side", "bits"]
    return pd.DataFrame(rows, columns=columns), groups


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; where the user has to do something, end with one sentence."""
    with files.command("prepare", __doc__) as parser:
        add, shares = parser.add_argument, "of train, validation and test; or k i: k folds, test i"
        add("raw", help="folder of pairs, searched with all its subfolders", type=os.path.abspath)
        add("out", help="folder for the faces and the tables", type=os.path.abspath)
        add("--folds-file", help="a file, auto (one in RAW) or none", default="auto")
        add("--split-ratios", nargs="+", type=json.loads, default=[0.7, 0.15, 0.15], help=shares)
        add("--split-seed", type=int, default=0, help="of our own draw (%(default)s)")
        given = parser.parse_args(arguments)
        folds = {"auto": "auto", "none": None}
        given.folds_file = folds.get(given.folds_file, os.path.abspath(given.folds_file))
        made = prepare_dataset(*vars(given).values())
        unused, faces = (t.value_counts() for t in (made.rejected.reason, made.manifest["split"]))
        print(f"{len(made.pairs):,} pairs accepted; files not used: {unused.to_dict()}")
        print(f"{len(made.manifest):,} faces: {faces.to_dict()}")


if __name__ == "__main__":
    main()
