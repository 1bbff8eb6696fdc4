"""What notebook 02 shows: settings, detections, their rate, the alignment, crops of every cell."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from helpers import figures
from helpers.cropping.align import Face, crop_face
from helpers.cropping.crops import read_detections
from helpers.dataset.naming import AGES, ETHNICITIES, GENDERS
from helpers.dataset.pair_views import LABEL_COLOURS
from helpers.files import project_path, read_csv, short_path
from helpers.prose import listing, markdown_table, number, percent, plural

_SOURCES = {
    "standin": "rendered faces at full size",
    "small": "the same at a third of it",
    "real": "real pairs",
}
_BATCH = 8  # the halves of full size that go through MTCNN together
_PACKAGE = "MTCNN.detect"  # the method that calls the package as it comes


def detection_rates(crops: pd.DataFrame) -> plt.Figure:
    """Show the share of faces that MTCNN found, in all and in each group."""
    groups = [("all faces", crops)]
    for key, names in (
        ("side", {"left": "neutral halves", "right": "expressive halves"}),
        ("label", {"Pain": "Pain", "NoPain": "NoPain"}),
        *((k, {n: n for n in v}) for k, v in
          (("gender", GENDERS), ("age", AGES), ("ethnicity", ETHNICITIES))),
    ):  # fmt: skip
        groups += [(name, crops[crops[key] == value]) for value, name in names.items()]
    groups = [(name, rows) for name, rows in groups if len(rows)]
    fig, ax = plt.subplots(figsize=(7.2, 0.3 * len(groups) + 0.7))
    for y, (_, rows) in enumerate(groups):
        ax.barh(y, 1, color=figures.FAINT, height=0.7)
        ax.barh(y, rows["detected"].mean(), color=figures.COLOURS["resnet50"], height=0.7)
        text = f"{rows['detected'].sum():,} of {len(rows):,}"
        ax.text(1.015, y, text, va="center", fontsize=10)
    ax.set_yticks(range(len(groups)), [name for name, _ in groups])
    ax.set(xlim=(0, 1.24), ylim=(len(groups) - 0.4, -0.6), xticks=[0, 0.5, 1])
    ax.set_xticklabels(["0 %", "50 %", "100 %"])
    ax.set_xlabel("share of the faces that MTCNN found")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return fig


def read_rates(crops: pd.DataFrame) -> str:
    """Return the detection rate as a sentence."""
    found, total = int(crops["detected"].sum()), len(crops)
    text = f"MTCNN found {found:,} of {plural(total, 'face')} ({percent(found / total, 2)})"
    if not found:
        return text + "."
    least = crops["probability"].min()
    return f"{text}; the least sure of them has a probability of {number(least, 3)}."


def measures(out_dir: str | Path, crops: pd.DataFrame, prepared: pd.DataFrame) -> pd.DataFrame:
    """Return one row a detected face: label, side, probability, box_height, tilt.

    `box_height` is a share of the prepared picture's height; `tilt` is in degrees, before
    alignment.
    """
    detections = read_detections(out_dir).set_index("image_id")
    table = crops[crops["detected"]].set_index("image_id")[["label", "side", "probability"]]
    faces = detections["face"].reindex(table.index)
    heights = prepared.set_index("image_id")["height"].reindex(table.index)
    box = np.array([face.box[3] - face.box[1] for face in faces])
    return table.assign(box_height=box / heights, tilt=detections["tilt"].reindex(table.index))


def distributions(table: pd.DataFrame) -> plt.Figure:
    """Show how sure MTCNN was, how large the faces are and how far they lean (see `measures`)."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 2.9))
    columns = {
        "probability": "MTCNN's probability",
        "box_height": "face box, share of picture height",
        "tilt": "tilt of the eye line, degrees",
    }
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        parts = [table.loc[table["label"] == name, column] for name in LABEL_COLOURS]
        edges = np.histogram_bin_edges(table[column], bins=24)
        ax.hist(parts, edges, stacked=True, color=list(LABEL_COLOURS.values()),
                label=list(LABEL_COLOURS))  # fmt: skip
        ax.set_xlabel(title)
        ax.locator_params(axis="x", nbins=5)
    axes[0].set_ylabel("faces")
    axes[0].legend(loc="upper left")
    return fig


def read_measures(table: pd.DataFrame) -> str:
    """Return the spread of box sizes and tilts, and how the labels differ in them."""
    right = table[table["side"] == "right"]
    size = right.groupby("label")["box_height"].median()
    tilt = table["tilt"].abs()
    text = (
        f"Half of the boxes are between {percent(table['box_height'].quantile(0.25))} and "
        f"{percent(table['box_height'].quantile(0.75))} of the picture's height; half of the faces "
        f"lean by less than {number(tilt.median(), 1)}°, the most by {number(tilt.max(), 1)}°."
    )
    if set(size.index) == set(LABEL_COLOURS):
        text += (
            f" Among the expressive halves the median box is {percent(size['Pain'], 1)} of the "
            f"height for Pain and {percent(size['NoPain'], 1)} for NoPain; the crop brings the "
            "boxes to one size."
        )
    return text


def alignment(
    prepared_dir: str | Path, out_dir: str | Path, prepared: pd.DataFrame,
    crop_size: int, margin: float, shown: int = 3,
) -> plt.Figure:  # fmt: skip
    """Show the most tilted faces: as detected, cropped without and with alignment."""
    table = read_detections(out_dir).dropna(subset=["tilt"])
    table = table.loc[table["tilt"].abs().sort_values(ascending=False).index].head(shown)
    if table.empty:
        return figures.image_grid([])
    paths = prepared.set_index("image_id")["path"]
    fig, axes = plt.subplots(3, len(table), figsize=(2.5 * len(table), 7.6), squeeze=False)
    for column, row in zip(axes.T, table.itertuples(), strict=True):
        pixels = figures.as_pixels(project_path(prepared_dir) / paths[row.image_id])
        _draw_face(column[0], pixels, row.face)
        column[0].set_title(f"tilt {number(row.tilt, 1)}°", fontsize=10, fontweight="normal")
        for ax, level in zip(column[1:], (False, True), strict=True):
            crop, points = crop_face(pixels, row.face, crop_size, margin, level=level)
            ax.imshow(crop)
            ax.axhline(points[:2, 1].mean(), color="white", linewidth=0.8, linestyle="--")
            ax.plot(*points[:2].T, color=figures.COLOURS["swin"], marker="o", markersize=4)
    for ax, name in zip(axes[:, 0], ("detected", "cropped", "aligned"), strict=True):
        ax.set_ylabel(name)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return fig


def failures(prepared_dir: str | Path, crops: pd.DataFrame, shown: int = 24) -> plt.Figure | None:
    """Show prepared pictures in which no face was found, None where there is none."""
    missed = crops[~crops["detected"]].head(shown)
    if missed.empty:
        return None
    folder = project_path(prepared_dir)
    return figures.image_grid([folder / path for path in missed["path"]], list(missed["image_id"]))


def read_failures(crops: pd.DataFrame) -> str:
    """Return how many faces were not found and what became of them."""
    missed = crops[~crops["detected"]]
    if missed.empty:
        return "There are none: a face was found in every picture."
    pain = int((missed["label"] == "Pain").sum())
    return (
        f"In {plural(len(missed), 'picture')} ({pain} of them Pain) no face was found; there the "
        "crop is the central square, and `detected` is False in the manifest."
    )


def settings_table(path: str | Path, min_face_size: int) -> str:
    """Return what the detector's settings cost and keep, as a Markdown table.

    `path` is the table of `benchmarks/crop_settings.py`; where it is not there, a sentence says so.
    Shown are the package by itself, the study's settings (bold), and those that differ from these
    in one. A cell has the milliseconds of one core per picture, the faces kept of those that the
    package finds at its default settings, and the least overlap of the boxes.
    """
    measured = _measured(path)
    if measured is None:
        return f"`{short_path(path)}` is not there; `benchmarks/crop_settings.py` measures it."
    alike = _alike(measured, min_face_size)
    shown = measured[(measured["method"] == _PACKAGE) | (alike.sum(axis=1) >= 2)]
    rows = []
    keys = ["method", "min_face_size", "scale", "batch"]
    for (method, size, scale, batch), group in shown.groupby(keys, sort=False):
        own = method != _PACKAGE
        row = {
            "": "this study" if own else "facenet-pytorch, face by face",
            "smallest face": f"{size:.0f} px",
            "scale": number(scale, 2),
            "batch": str(batch),
        }
        for part in group.itertuples():
            cell = f"{part.ms:.0f} ms · {part.kept} of {part.expected} · {number(part.iou_min, 2)}"
            row[_SOURCES.get(part.source, part.source)] = cell
        if own and alike.loc[group.index].all(axis=None):
            row = {name: f"**{text}**" for name, text in row.items()}
        rows.append(row)
    return markdown_table(pd.DataFrame(rows).fillna(""))


def read_settings(path: str | Path, min_face_size: int) -> str:
    """Return in a sentence or two what the table says for the study's settings (or nothing)."""
    measured = _measured(path)
    if measured is None:
        return ""
    own = measured[(measured["method"] != _PACKAGE)]
    chosen = own[_alike(own, min_face_size).all(axis=1)]
    if chosen.empty:
        return f"A smallest face of {min_face_size} pixels was not measured."
    package = measured[measured["method"] == _PACKAGE].set_index("source")
    chosen = chosen.set_index("source")
    kept, expected = chosen["kept"].sum(), chosen["expected"].sum()
    faster = package["ms"].reindex(chosen.index) / chosen["ms"]
    least = chosen["iou_min"].min()
    text = (
        f"With the study's settings {kept} of {expected} faces ({percent(kept / expected, 1)}) "
        f"have the package's box (overlap 0.8 or more, least {number(least, 2)}), "
        f"and one core searches {number(faster.min(), 1)} to {number(faster.max(), 1)} times as "
        "many pictures a second."
    )
    worse = own[(own["batch"] == _BATCH) & (own["kept"] < own["expected"])]
    if len(worse):
        lost = worse.groupby(["min_face_size", "scale"], sort=True).size().index
        places = [f"{size} px and scale {number(scale, 2)}" for size, scale in lost]
        text += f" Faces are lost at {listing(places)}."
    return text


def _measured(path: str | Path) -> pd.DataFrame | None:
    path = project_path(path)
    return read_csv(path) if path.is_file() else None


def _alike(measured: pd.DataFrame, min_face_size: int) -> pd.DataFrame:
    """Tell which of a row's settings are the study's."""
    return pd.DataFrame(
        {
            "min_face_size": measured["min_face_size"] == min_face_size,
            "scale": measured["scale"] == 1,
            "batch": measured["batch"] == _BATCH,
        }
    )


def _draw_face(ax: plt.Axes, pixels: np.ndarray, face: Face) -> None:
    x1, y1, x2, y2 = face.box
    ax.imshow(pixels)
    colour = figures.COLOURS["swin"]
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=1.4))
    ax.scatter(*face.landmarks.T, s=9, color=colour)


def close(crops: pd.DataFrame, out_dir: str | Path) -> str:
    """Return what notebook 02 did, in a sentence or two, and what comes next."""
    missed = int((~crops["detected"]).sum())
    found = "in every one a face was found" if not missed else f"in {missed} no face was found"
    size = crops["width"].iloc[0]
    return (
        f"`{short_path(out_dir)}` holds {plural(len(crops), 'crop')} of {size} × {size} pixels; "
        f"{found}. The splits are those of chapter 1. Chapter 3 trains a teacher on them."
    )
