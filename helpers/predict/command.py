"""What a trained network says of pictures: P(pain) of every face, as a table.

python -m helpers.predict PICTURE_OR_FOLDER... --model RUN_FOLDER_OR_ONNX [--pairs]

Every picture is in the table, and what could not be used has its reason there. The face is found,
aligned and cut as in training. A run folder is opened in torch; an ONNX file, or a run folder
where torch is not installed, in onnxruntime.

This is no medical device. P(pain) is what a network that was trained for a study says of one
picture. It is no measurement of pain, and nobody's care may depend on it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.dataset.pictures import PictureError, read_rgb, write_jpeg
from helpers.dataset.tree import printable
from helpers.errors import StudyError
from helpers.files import short_path, write_csv
from helpers.predict.face_spec import DECISION
from helpers.predict.faces import NO_FACE, FaceFinder, Seen, halves, see, see_cropped
from helpers.predict.inputs import Item, list_items
from helpers.predict.loading import RUNTIMES, load_predictor
from helpers.predict.pictures import Mark, annotate
from helpers.predict.predictor import Predictor
from helpers.work import Journal, side_by_side

COLUMNS = (
    "file side probability probability_class probability_distillation decision threshold faces "
    "face_probability box warnings reason detail"
).split()
NOTICE = (
    "This is no medical device. P(pain) is what a network trained for a study says of a picture: "
    "no measurement of pain, and nothing that anybody's care may depend on."
)
_VERSION = 1  # of what is done to a picture; a change of it makes old work count for nothing
_BATCH = 64  # faces that are scored together, at most
_SHOWN = 20  # rows that the command prints


def predict_pictures(
    inputs: Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    *,
    pairs: bool = False,
    cropped: bool = False,
    centre: bool = False,
    threshold: float = 0.5,
    annotated: str | Path | None = None,
    runtime: str = "auto",
    device: str = "auto",
) -> pd.DataFrame:
    """Score every picture of `inputs` (files and folders), write the table to `out`, return it.

    One row a picture, or a half of it (`COLUMNS`): `probability` is the decision's P(pain),
    `decision` is Pain where it exceeds `threshold`, `faces` counts those that MTCNN is sure of,
    `box` holds x1 y1 x2 y2 in pixels of the picture, `warnings` any of no_face, several_faces,
    small_face, blurred. What was not scored has a `reason` and a `detail`.

    Args:
        inputs: pictures and folders of them, from the working directory.
        model: see `predict_models.load_predictor`.
        out: the CSV file; beside it lies a journal while the work is going on, by which a call
            that was broken off is taken up.
        pairs: pictures are two faces side by side, each half gets a row.
        cropped: pictures are aligned faces already.
        centre: where no face is found the central square is scored, as in training.
        threshold: 0 to 1.
        annotated: folder for the pictures with their faces framed; None: none are written.
        runtime: `auto`, `torch` or `onnx`.
        device: of torch.

    Raises:
        StudyError: for a model that cannot be had, or options that contradict each other.
    """
    if pairs and cropped:
        raise StudyError("A picture is either a pair or a cropped face: choose one of the two.")
    if not 0 <= threshold <= 1:
        raise StudyError(f"The threshold must lie in 0..1, not {threshold:g}.")
    predictor = load_predictor(model, runtime, device)
    out = Path(out).expanduser()
    drawings = None if annotated is None else Path(annotated).expanduser()
    journal_path = out.with_name(f"{out.stem}.journal.jsonl")
    items = list_items(inputs, [path for path in (out, journal_path, drawings) if path])
    work = _Work(predictor, pairs, cropped, centre, threshold, drawings)
    out.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(journal_path, work.settings())
    due = [item for item in items if not _known(item, journal)]
    count = _BATCH // 2 if pairs else _BATCH
    batches = [due[start : start + count] for start in range(0, len(due), count)]

    def work_on(batch: list[Item]) -> None:
        rows = work.rows(batch)
        journal.add_all({i.key: {"state": i.state, "rows": rows[i.key]} for i in batch})

    with predictor.alone():
        sizes = [len(batch) for batch in batches]
        done = len(items) - len(due)
        for _ in side_by_side(work_on, batches, "Looking", "picture", sizes=sizes, done=done):
            pass
    rows = [row for item in items for row in journal.get(item.key)["rows"]]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"faces": "Int64"})
    write_csv(out, table)
    journal_path.unlink()
    return table


def _known(item: Item, journal: Journal) -> bool:
    entry = journal.get(item.key)
    return entry is not None and entry["state"] == item.state


class _Work:
    """What is done to a batch of pictures."""

    def __init__(
        self,
        predictor: Predictor,
        pairs: bool,
        cropped: bool,
        centre: bool,
        threshold: float,
        drawings: Path | None,
    ) -> None:
        self.predictor, self.pairs, self.cropped = predictor, pairs, cropped
        self.centre, self.threshold, self.drawings = centre, threshold, drawings
        self.find: FaceFinder | None = None if cropped else predictor.finder()

    def settings(self) -> dict:
        """Return what decides the rows; a journal of other settings counts for nothing."""
        spec = self.predictor.spec
        return {
            "version": _VERSION,
            "model": spec.to_json(),
            "note": self.predictor.note,
            "pairs": self.pairs,
            "cropped": self.cropped,
            "centre": self.centre,
            "threshold": self.threshold,
            "annotated": None if self.drawings is None else str(self.drawings.absolute()),
        }

    def rows(self, batch: list[Item]) -> dict[str, list[dict]]:
        """Return the rows of each picture, by its key."""
        found = {item.key: self._look(item) for item in batch}
        seen = [part for _, parts in found.values() for part in parts if part[1].image is not None]
        images = [part[1].image for part in seen]
        scores = iter(self.predictor.score(np.stack(images)) if images else ())
        rows = {}
        for item in batch:
            first, parts = found[item.key]
            if first is not None:
                rows[item.key] = [first]
                continue
            marks = [
                self._row(item, side, one, start, next(scores) if one.image is not None else None)
                for side, one, start in parts
            ]
            rows[item.key] = [row for row, _ in marks]
            if self.drawings is not None:
                self._draw(item, [mark for _, mark in marks], rows[item.key])
        return rows

    def _look(self, item: Item) -> tuple[dict | None, list[tuple[str, Seen, int]]]:
        """Return a row with the reason and nothing, or None and (side, face, first column)."""
        if item.reason:
            return self._unused(item, item.reason, item.detail), []
        try:
            pixels = read_rgb(item.path)
            parts = [("", pixels, 0)]
            if self.pairs:
                sides = zip(("left", "right"), halves(pixels), strict=True)
                parts = [(side, half, start) for side, (half, start) in sides]
            return None, [(side, self._see(part), start) for side, part, start in parts]
        except PictureError as error:
            return self._unused(item, error.reason, str(error)), []
        except Exception as error:  # one picture must not end a folder of thousands
            detail = f"The picture could not be worked on: {type(error).__name__}: {error}."
            return self._unused(item, "failed", detail), []

    def _see(self, pixels: np.ndarray) -> Seen:
        if self.cropped:
            return see_cropped(pixels, self.predictor.spec)
        return see(pixels, self.find, self.predictor.spec, self.centre)

    def _unused(self, item: Item, reason: str, detail: str) -> dict:
        row = dict.fromkeys(COLUMNS)
        return row | {"file": item.name, "reason": reason, "detail": printable(detail)}

    def _row(
        self, item: Item, side: str, seen: Seen, start: int, score: np.ndarray | None
    ) -> tuple[dict, Mark]:
        row = dict.fromkeys(COLUMNS) | {"file": item.name, "side": side, "faces": seen.count}
        row |= {"threshold": self.threshold, "warnings": " ".join(seen.warnings)}
        box, probability = None, None
        if seen.face is not None:
            box = seen.face.box + np.array([start, 0, start, 0])
            row |= {"face_probability": seen.face.probability}
            row["box"] = " ".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in box)
        if score is None:
            row |= {"reason": NO_FACE, "detail": "MTCNN finds no face in it."}
        else:
            row |= dict(zip(self.predictor.spec.heads, map(float, score), strict=True))
            probability = row[DECISION]
            row["decision"] = "Pain" if probability > self.threshold else "NoPain"
        place = None if box is None else tuple(box)
        return row, Mark(place, start, probability, row["decision"] or "", seen.warnings)

    def _draw(self, item: Item, marks: list[Mark], rows: list[dict]) -> None:
        path = self.drawings / item.drawing
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jpeg(path, annotate(read_rgb(item.path), marks))
        except (OSError, PictureError) as error:
            for row in rows:
                row["detail"] = printable(f"{row['detail'] or ''} Not annotated: {error}.".strip())


def summary(table: pd.DataFrame) -> str:
    """Return how many faces were scored, and why the other pictures were not, in one line."""
    unused = table["reason"].dropna().value_counts(sort=True)
    scored = table[DECISION].notna()
    called = int((table["decision"] == "Pain").sum())
    text = f"Faces scored: {scored.sum()}, above the threshold: {called}"
    if len(unused):
        why = ", ".join(f"{reason} {count}" for reason, count in unused.items())
        text += f"; not scored: {len(table) - scored.sum()} ({why})"
    return text + "."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, also where pictures were bad, or 1 with one sentence."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m helpers.predict", description=__doc__, formatter_class=about
    )
    parser.add_argument("inputs", nargs="+", help="pictures, and folders of them")
    parser.add_argument("--model", required=True, help="a run folder, or what helpers.export wrote")
    parser.add_argument("--out", default="predictions.csv", help="the table (%(default)s)")
    parser.add_argument("--pairs", action="store_true", help="each picture is two side by side")
    parser.add_argument("--cropped", action="store_true", help="pictures are aligned faces already")
    parser.add_argument(
        "--centre", action="store_true", help="without a face, score the middle, as in training"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="Pain above it (%(default)s)")
    parser.add_argument("--annotate", metavar="FOLDER", help="write pictures with faces framed")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="(%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    given = parser.parse_args(arguments)
    options = vars(given) | {"annotated": given.annotate}
    for name in ("inputs", "model", "out", "annotate"):
        del options[name]
    try:
        table = predict_pictures(given.inputs, given.model, given.out, **options)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The table cannot be written: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: what was done is kept, the same command goes on.", file=sys.stderr)
        return 130
    shown = table[["file", "side", DECISION, "decision", "warnings", "reason"]].head(_SHOWN)
    shown = shown.assign(**{DECISION: [f"{p:.3f}" if p == p else "" for p in shown[DECISION]]})
    print(shown.fillna("").to_string(index=False))
    print(f"{summary(table)} The table: {short_path(Path(given.out).absolute())}")
    print(NOTICE)
    return 0
