"""Notebook 07 for its reader: which pictures, what was said of them, and whether the run agrees."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from helpers.dataset.naming import PICTURE_SUFFIXES
from helpers.dataset.pictures import read_rgb, write_jpeg
from helpers.errors import StudyError
from helpers.figures import image_grid, label_of
from helpers.files import existing_folder, project_path, read_csv, short_path, write_text
from helpers.predict.command import NOTICE, summary
from helpers.predict.face_spec import DECISION
from helpers.predict.faces import halves
from helpers.prose import markdown_table, number
from helpers.training.runs import read_run

_ID = 10  # digits of SynPAIN's ID, with which a file's name begins


def choose_pictures(model_dir: str | Path, pictures_dir: str | Path, most: int) -> list[Path]:
    """Return up to `most` pictures below `pictures_dir`, of people whom the run was not trained on.

    Who that is the run's `predictions.csv` says, by the ID that a file's name begins with; of these
    half show pain. Where it names nobody, they are the first. Raises `StudyError` for a folder
    without pictures.
    """
    folder = existing_folder(pictures_dir, "pictures")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise StudyError(f"The folder {short_path(folder)} holds no picture.")
    known = _run_predictions(model_dir)
    if known is None:
        return paths[:most]
    pain = known[known["split"] == "test"].groupby("identity")["label"].max() == "Pain"
    named = [path for path in paths if path.name[:_ID] in pain.index]
    hurt = [path for path in named if pain[path.name[:_ID]]]
    others = [path for path in named if not pain[path.name[:_ID]]]
    chosen = [*_spread(hurt, most // 2), *_spread(others, most - most // 2)]
    return sorted(chosen) or [p for p in paths if p.name[:_ID] not in set(known["identity"])][:most]


def _spread(paths: list[Path], count: int) -> list[Path]:
    """Return `count` of `paths`, evenly: IDs that are near each other are of similar people."""
    places = np.linspace(0, len(paths) - 1, min(count, len(paths)))
    return [paths[round(place)] for place in places]


def odd_pictures(folder: str | Path, picture: Path, pairs: bool) -> list[Path]:
    """Write what should not be scored, or not without a warning, and return the paths.

    A blurred and a small copy of `picture` (of its left half, if it is one of `pairs`), a wall, a
    text that calls itself a picture.
    """
    folder, pixels = project_path(folder), read_rgb(picture)
    image = Image.fromarray(halves(pixels)[0][0] if pairs else pixels)
    small = Image.new("RGB", image.size, "grey")
    small.paste(image.reduce(4))
    made = {
        "blurred.jpg": image.filter(ImageFilter.GaussianBlur(image.height / 60)),
        "far_away.jpg": small,
        "wall.jpg": Image.new("RGB", image.size, "grey"),
    }
    for name, odd in made.items():
        write_jpeg(folder / name, np.asarray(odd))
    write_text(folder / "no_picture.jpg", "This is a text.\n")
    return [folder / name for name in (*made, "no_picture.jpg")]


def rows(table: pd.DataFrame) -> str:
    """Return a table of `predict.predict_pictures` as Markdown, three digits, and its summary."""
    words = table.astype(object).where(table.notna(), "")
    shown = pd.DataFrame(
        {
            "picture": [Path(name).name for name in table["file"]],
            "half": words["side"],
            "P(pain)": [number(value, 3) for value in table[DECISION].astype(float)],
            "decision": words["decision"].replace("", "–"),
            "warnings": words["warnings"].map(_words),
            "why not": words["detail"],
        }
    )
    empty = [name for name in shown if (shown[name] == "").all()]
    return f"{markdown_table(shown.drop(columns=empty))}\n\n{summary(table)}"


def _words(warnings: str) -> str:
    return warnings.replace(" ", ", ").replace("_", " ")


def against_run(table: pd.DataFrame, model_dir: str | Path) -> str:
    """Return how near the halves' P(pain) is to that of the run's `predictions.csv`."""
    known = _run_predictions(model_dir)
    halves = table.dropna(subset=[DECISION])
    ids = [f"{Path(f).name[:_ID]}_{s}" for f, s in zip(halves["file"], halves["side"], strict=True)]
    if known is None or not set(ids) & set(known["image_id"]):
        return "The run has not seen these pictures: there is nothing to hold them against."
    own = known.set_index("image_id")[DECISION].reindex(ids).to_numpy()
    largest = np.nanmax(np.abs(own - halves[DECISION].to_numpy(float)))
    return (
        f"{int(np.isfinite(own).sum())} of the {len(ids)} halves are in the run's "
        f"`predictions.csv`. From the picture to P(pain) the largest difference is {largest:.0e}."
    )


def pictures(drawings: Sequence[Path]) -> plt.Figure:
    """Show annotated pictures two in a row."""
    return image_grid(drawings, columns=2, width=4.4)


def about(model_dir: str | Path) -> str:
    """Return which network it is, and how well it does on people that it has not seen."""
    run = read_run(model_dir)
    test = run.metrics["test"]
    return (
        f"{label_of(run.name)}, seed {run.seed}, {run.metrics['image_size']} pixels: on its test "
        f"faces AUROC {number(test['auroc'])}, accuracy {number(test['accuracy'])}."
    )


def close(table: pd.DataFrame) -> str:
    """Return the notebook's last words."""
    return f"{summary(table)} {NOTICE}"


def _run_predictions(model_dir: str | Path) -> pd.DataFrame | None:
    path = project_path(model_dir) / "predictions.csv"
    return read_csv(path) if path.is_file() else None
