"""The look of every figure: one style, one fixed colour a teacher, one way to save.

The colours (blue and vermilion are Okabe and Ito's, https://jfly.uni-koeln.de/color/) stay apart
for colour-blind readers; markers differ as well, so that no figure depends on colour alone.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from helpers.files import project_path, replacing

COLOURS = {
    "resnet50": "#0072B2",
    "swin": "#D55E00",
    "swin_base": "#5D1F57",
    "none": "#767676",
    "truth": "#1F1F1F",
    "labels": "#1F1F1F",
}
MARKERS = {"resnet50": "o", "swin": "s", "swin_base": "^", "none": "D"}
LABELS = {
    "resnet50": "ResNet-50",
    "swin": "Swin-T",
    "swin_base": "Swin-B",
    "none": "no teacher",
    "deit_tiny": "DeiT-Ti",
    "deit_small": "DeiT-S",
    "deit_base": "DeiT-B",
    "truth": "labels",
    "labels": "labels",
    "left": "neutral half",
    "right": "expressive half",
}
INK = "#1F1F1F"
MUTED = "#5F5F5F"
FAINT = "#D9D9D9"
_PHOTOGRAPH_DPI = 100

_STYLE = {
    "figure.dpi": 110,
    "figure.figsize": (7.2, 4.0),
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.08,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8C8C8C",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.interpolation": "antialiased",
    "svg.fonttype": "path",
}


def use_style() -> None:
    """Set the study's matplotlib style; call it once, near the top of a notebook."""
    mpl.rcParams.update(_STYLE)


def teacher_of(name: str) -> str:
    """Return the teacher in a run's name: `swin` for `swin` and for `deit_tiny-swin`."""
    return name.rpartition("-")[2]


def colour_of(name: str) -> str:
    """Return the colour of a run: its teacher's (`none` for a student without teacher)."""
    return COLOURS.get(teacher_of(name), COLOURS["none"])


def label_of(name: str) -> str:
    """Return the display name of a run or of anything in `LABELS`.

    `deit_tiny-swin` becomes "DeiT-Ti ← Swin-T", `deit_tiny-none` "DeiT-Ti, no teacher"; an
    unknown name is returned as it is.
    """
    student, _, teacher = name.rpartition("-")
    if not student:
        return LABELS.get(name, name)
    link = ", " if teacher == "none" else " ← "
    return LABELS.get(student, student) + link + LABELS.get(teacher, teacher)


def save_fig(fig: plt.Figure, folder: str | Path, name: str) -> Path:
    """Write `fig` as `name`.png and `name`.svg into `folder`, and return the PNG's path.

    A figure that shows photographs is a PNG alone: pixels gain nothing in a vector file. A
    relative folder counts from the project's root. The same figure gives the same bytes: no date,
    no library version, fixed identifiers in the SVG.
    """
    folder = project_path(folder)
    photographs = any(image.get_array().ndim == 3 for ax in fig.axes for image in ax.images)
    with mpl.rc_context({"svg.hashsalt": "study"}):
        if not photographs:
            with replacing(folder / f"{name}.svg") as temporary:
                fig.savefig(temporary, metadata={"Date": None, "Creator": None})
        with replacing(folder / f"{name}.png") as temporary:
            dpi = _PHOTOGRAPH_DPI if photographs else mpl.rcParams["savefig.dpi"]
            fig.savefig(temporary, metadata={"Software": None}, dpi=dpi)
    return folder / f"{name}.png"


def as_pixels(image: object) -> np.ndarray:
    """Return a path, PIL image or array as an array (height, width, 3) of uint8."""
    if isinstance(image, str | Path):
        with Image.open(image) as opened:
            return np.asarray(opened.convert("RGB"))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    return np.asarray(image)


def image_grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    width: float = 1.55,
    colours: Sequence[str] | None = None,
    heading: str | None = None,
) -> plt.Figure:
    """Show pictures in a grid, and return the figure.

    `images`: paths, PIL images or arrays (height, width, 3). `titles`: a caption above each (may
    hold line breaks). `width`: of one picture, in inches; the first picture sets the proportions.
    `colours`: a frame for each picture. `heading`: a title over all of them. Returns an empty
    figure that says so where there is no picture.
    """
    if not len(images):
        fig, ax = plt.subplots(figsize=(4, 0.6))
        ax.axis("off")
        ax.text(0, 0.5, "No picture to show.", color=MUTED, va="center")
        return fig
    pixels = [as_pixels(image) for image in images]
    columns = min(columns, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    lines = max((str(title).count("\n") + 1 for title in titles), default=0) if titles else 0
    height = width * pixels[0].shape[0] / pixels[0].shape[1] + 0.17 * lines + 0.06
    size = (columns * width, rows * height + (0.4 if heading else 0))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        if index >= len(pixels):
            continue
        ax.imshow(pixels[index], cmap="gray" if pixels[index].ndim == 2 else None)
        if titles:
            ax.set_title(titles[index], fontsize=9, fontweight="normal", loc="center", pad=3)
        if colours:
            ax.spines[:].set(visible=True, color=colours[index], linewidth=2.4)
    if heading:
        fig.suptitle(heading, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return fig


def bars(
    ax: plt.Axes,
    names: Sequence[str],
    values: Sequence[float],
    *,
    colours: str | Sequence[str] | None = None,
    form: str = "{:,g}",
) -> plt.Axes:
    """Draw horizontal bars, the first on top, each with its value written at its end."""
    positions = np.arange(len(names))
    ax.barh(positions, values, color=colours or COLOURS["resnet50"], height=0.68)
    for position, value in zip(positions, values, strict=True):
        text = f" {form.format(value)}" if np.isfinite(value) else " not known"
        ax.text(np.nan_to_num(value), position, text, va="center", fontsize=10)
    ax.set_yticks(positions, names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.18)
    return ax
