"""What a trained network says of pictures: P(pain) of every face, as a table.

python -m helpers.predict FOLDER_OR_FILES --model RUN [--pairs] [--out FILE] [--annotate FOLDER]

Pictures go the way of the study: chapter 1's halves (with --pairs), chapter 2's crops, the run's
own arithmetic. Every file has a row, and what could not be used has its reason there. Broken off,
the same command goes on.

This is no medical device: P(pain) is what a network that was trained for a study says of a picture.
It is no measurement of pain, and nobody's care may depend on it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from tqdm import tqdm

from helpers import crops, train
from helpers.devices import pick_device
from helpers.files import StudyError, command, replacing, sha256, write_csv
from helpers.pairs import PictureError, open_picture, read_bytes, split_pair, write_jpeg
from helpers.runs import HEADS, Run, read_run, weights_of
from helpers.stats import THRESHOLD

COLUMNS = ["file", "side", *HEADS, *"decision threshold box warnings reason detail".split()]
CROP_SIZE, MARGIN, MIN_FACE_SIZE = 256, 0.2, 80  # as every config has them
# Smaller faces than the study has are looked for where there is no other, and flagged; not in
# pictures of more pixels, where that would fill the memory.
SMALLEST_FACE, MOST_PIXELS = 20, 4_000_000
# See `sharpness`. Of 100 faces of the stand-in and 18 of SynPAIN the least had 0.033; blurred by a
# Gaussian of 2 % of the crop's width the most had 0.0033.
BLURRED = 0.01


def predict_pictures(
    inputs: Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    *,
    pairs: bool = False,
    threshold: float = THRESHOLD,
    annotate: str | Path | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Score every picture of `inputs`, write the table (`COLUMNS`) to `out`, and return it.

    One row a file, or a half of it: `probability` is the decision's P(pain), `decision` is Pain
    where it exceeds `threshold`, `box` holds x1 y1 x2 y2 in pixels of the picture, `warnings` any
    of small_face, blurred and shrunk (a picture of more than 40 million pixels was read at a part
    of its size). What was not scored has a `reason` and a `detail`.

    Args:
        inputs: pictures, and folders of them with all that lies below.
        model: a run's folder.
        out: the CSV file; beside it lies what is done while the work is going on.
        pairs: each picture is two faces side by side.
        threshold: 0 to 1.
        annotate: folder for the pictures with their faces framed.
        device: auto, cpu, cuda or mps.

    Raises:
        StudyError: for a model or a device that cannot be had, a bad threshold, an input that is
            not there, a folder for `out`, or no file at all.
    """
    if not 0 <= threshold <= 1:
        raise StudyError(f"The threshold must lie in 0..1, not {threshold:g}.")
    out, run = Path(out).absolute(), read_run(model)
    weights_of(run)
    pick_device(device)
    if out.is_dir():
        raise StudyError(f"{out} is a folder: name a file for the table.")
    work = out.with_name(f".{out.stem}-work")
    paths = list(dict.fromkeys(_files(inputs, [out, work, Path(annotate or out).absolute()])))
    if not paths:
        raise StudyError(f"There is no file in {', '.join(map(str, inputs))}.")
    table = _prepare(paths, work / "faces", pairs)
    for size, most in ((MIN_FACE_SIZE, np.inf), (SMALLEST_FACE, MOST_PIXELS)):
        due = table[(table["reason"] == "no_face") & (table["width"] * table["height"] <= most)]
        if len(due):
            table.update(_look(due, work, size, run, device))
    table = table.astype(dict.fromkeys(HEADS, float)).assign(threshold=threshold)
    called = (table["probability"] > threshold).map({True: "Pain", False: "NoPain"})
    table["decision"] = called.where(table["box"].notna())
    if annotate is not None:
        _draw(table.dropna(subset="box"), Path(annotate))
    write_csv(out, table := table.reset_index()[COLUMNS])
    shutil.rmtree(work)
    return table


def _files(inputs: Sequence[str | Path], leave_out: Sequence[Path]) -> Iterator[Path]:
    """Yield every file that was meant, also a link to nowhere, but what is written here."""
    for given in map(Path, inputs):
        if not os.path.lexists(given):
            raise StudyError(f"There is no file or folder {given.absolute()}.")
        for path in sorted(given.rglob("*")) if given.is_dir() else [given]:
            own = any(path.absolute().is_relative_to(other) for other in leave_out)
            if not own and (path.is_file() or not path.exists()):
                yield path


def _prepare(paths: Sequence[Path], folder: Path, in_pairs: bool) -> pd.DataFrame:
    """Write halves of pairs as chapter 1 does, other pictures without loss, into `folder`.

    Returns a row for each, and for each file that cannot be used, by `image_id`: `COLUMNS`, what
    the crops ask of a manifest, and `start`, the half's first column in its pair.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in tqdm(paths, "Reading", unit="file", delay=2):
        file = str(path).encode(errors="backslashreplace").decode()
        try:
            pixels, _, _, shrunk = open_picture(read_bytes(path), shrink=True)
            cut = split_pair(pixels) if in_pairs else None
        except PictureError as error:
            rows.append({"file": file, "reason": error.reason, "detail": str(error)})
            continue
        for side in ("left", "right") if in_pairs else ("",):
            part = getattr(cut, side) if in_pairs else pixels
            name = f"{len(rows):08}.{'jpg' if in_pairs else 'png'}"
            with replacing(folder / name) as whole:
                Image.fromarray(part).save(whole, quality=95, subsampling=0, compress_level=1)
            row = {"file": file, "side": side, "path": name, "sha256": sha256(folder / name)}
            row["start"] = pixels.shape[1] - part.shape[1] if side == "right" else 0
            row |= {"reason": "no_face", "detail": "MTCNN finds no face in it.", "shrunk": shrunk}
            rows.append(row | {"height": part.shape[0], "width": part.shape[1]})
    columns = ["path", "sha256", "width", "height", "start", "shrunk", *COLUMNS]
    table = pd.DataFrame(rows, columns=columns, dtype=object).rename_axis("image_id")
    return table.assign(identity="", label="NoPain", split="train")


def _look(due: pd.DataFrame, work: Path, size: int, run: Run, device: str) -> pd.DataFrame:
    """Return P(pain), box and warnings of each of `due` with a face of at least `size` pixels."""
    folder = work / f"crops{size}"
    write_csv(work / "faces" / "manifest.csv", due.reset_index())
    found = crops.crop_faces(work / "faces", folder, CROP_SIZE, MARGIN, size, device)
    said = train.predict_runs([run], folder, device)[list(HEADS)].set_axis(due.index)
    found = found.set_axis(due.index)[found["detected"].to_numpy()]
    boxes = np.array([box.split() for box in found["box"]], float).reshape(-1, 4)
    least = max(MIN_FACE_SIZE, run.params["parameters"]["image_size"] / (1 + 2 * MARGIN))
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) < least
    sharp = np.array([sharpness(Image.open(folder / path)) for path in found["path"]])
    flags = {"small_face": small, "blurred": sharp < BLURRED, "shrunk": found["shrunk"] > 1}
    rows = zip(*flags.values(), strict=True)
    warnings = [" ".join(name for name, on in zip(flags, row, strict=True) if on) for row in rows]
    boxes[:, ::2] += found[["start"]].to_numpy(float)
    boxes *= found[["shrunk"]].to_numpy(float)
    words = {"box": [" ".join(f"{value:.2f}" for value in box) for box in boxes]}
    words |= {"warnings": warnings, "reason": "", "detail": ""}
    return said.loc[found.index].assign(**words)


def sharpness(image: Image.Image) -> float:
    """Return the share of a face's contrast that is in its finest detail, about 0 to 0.3.

    That is the variance of the difference to a copy at a quarter of the size, over the whole
    variance, of the grey picture at 128 × 128.
    """
    grey = image.convert("L").resize((128, 128), Image.Resampling.LANCZOS)
    rough = grey.resize((32, 32), Image.LANCZOS).resize((128, 128), Image.BICUBIC)
    fine = np.asarray(grey, float)
    return float(np.var(fine - np.asarray(rough, float)) / max(np.var(fine), 1.0))


def _draw(table: pd.DataFrame, folder: Path) -> None:
    """Write each picture of `table`, in folders as it lies, with its faces framed."""
    known = table[table["file"].map(os.path.isfile)].groupby("file")
    top = os.path.commonpath([Path(file).absolute().parent for file in known.groups] or "/")
    for file, faces in known:
        image = Image.fromarray(open_picture(read_bytes(file), shrink=True).pixels)
        draw, size = ImageDraw.Draw(image), max(14, min(image.size) // 20)
        for row in faces.itertuples():
            colour = "#D55E00" if row.decision == "Pain" else "#0072B2"
            words = f"P(pain) {row.probability:.2f}"
            box = [float(x) / row.shrunk for x in row.box.split()]
            draw.rectangle(box, outline=colour, width=max(2, size // 8))
            place = (box[0], max(0, box[1] - 1.3 * size))
            draw.text(place, words, colour, font_size=size, stroke_width=3, stroke_fill="white")
        drawn = folder / Path(file).absolute().relative_to(top)
        write_jpeg(drawn.with_suffix(".jpg"), np.asarray(image))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad pictures are rows, anything else ends it with one sentence."""
    with command("predict", __doc__) as parser:
        add = parser.add_argument
        add("inputs", nargs="+", help="pictures, and folders of them")
        add("--model", required=True, type=os.path.abspath, help="a run's folder")
        add("--out", default="predictions.csv", help="the table (%(default)s)")
        add("--pairs", action="store_true", help="each picture is two side by side")
        add("--threshold", type=float, default=THRESHOLD, help="(%(default)s)")
        add("--annotate", metavar="FOLDER", help="write pictures with faces framed")
        add("--device", default="auto", help="auto, cpu, cuda or mps (%(default)s)")
        given = parser.parse_args(arguments)
        table = predict_pictures(**vars(given))
        counts = table["decision"].fillna(table["reason"]).value_counts().to_string(header=False)
        print(counts, given.out, __doc__.rpartition("\n\n")[2], sep="\n")
        if table["decision"].isna().all():
            raise StudyError(f"Nothing could be scored: {given.out} says why.")


if __name__ == "__main__":
    main()
