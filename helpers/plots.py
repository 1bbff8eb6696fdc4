"""The look of every figure: one style, one colour a teacher, intervals, heat maps, faces, saving.

The colours (blue and vermilion are Okabe and Ito's, https://jfly.uni-koeln.de/color/) stay apart
for colour-blind readers; markers differ as well, so that no figure depends on colour alone. A
student has its teacher's colour, with an open marker or a dashed line.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from helpers.files import project_path, replacing
from helpers.text import name_of, teacher_of

COLOURS = {"resnet50": "#0072B2", "swin": "#D55E00", "swin_base": "#5D1F57", "none": "#767676"}
MARKERS = {"resnet50": "o", "swin": "s", "swin_base": "^", "none": "D"}
INK, MUTED = "#1F1F1F", "#5F5F5F"
_STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.family": "DejaVu Sans",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E8E8E8",
    "legend.frameon": False,
}


def use_style() -> None:
    """Set the study's style; call it once, near the top of a notebook."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9, rc=_STYLE)


def colour_of(arm: str) -> str:
    """Return the colour of an arm: its teacher's (`none` for a student without one)."""
    return COLOURS.get(teacher_of(arm), COLOURS["none"])


def look(arm: str) -> dict:
    """Return colour and marker of an arm as matplotlib takes them, the marker open for students."""
    fill = "white" if "-" in arm else colour_of(arm)
    marker = MARKERS.get(teacher_of(arm), "o")
    return {"color": colour_of(arm), "marker": marker, "markerfacecolor": fill}


def line_look(arm: str) -> dict:
    """Return colour and dashes of an arm's line, dashed for students."""
    return {"color": colour_of(arm), "linestyle": (0, (4, 1.6)) if "-" in arm else "-"}


def save_fig(fig: plt.Figure, folder: str | Path, name: str) -> Path:
    """Write `fig` as `name`.png into `folder`, whole, and return the path.

    A relative folder counts from the project's root. The same figure gives the same bytes. A
    figure that shows photographs has fewer dots an inch, which is all that the pictures hold.
    """
    path = project_path(folder) / f"{name}.png"
    photographs = any(image.get_array().ndim == 3 for ax in fig.axes for image in ax.images)
    with replacing(path) as temporary:
        fig.savefig(temporary, dpi=100 if photographs else 150, metadata={"Software": None})
    return path


def forest(
    table: pd.DataFrame,
    y: str = "arm",
    hue: str | None = None,
    col: str | None = None,
    chance: float | None = None,
    seeds: pd.DataFrame | None = None,
    label: str = "AUROC",
    form: Callable[[float], str] = "{:.2f}".format,
) -> plt.Figure:
    """Draw estimates with their intervals, one below the other, and return the figure.

    Args:
        table: tidy, one row a number, with `estimate`, `low`, `high` (NaN: no interval).
        y: the column whose values are the lines, in order of appearance; arms by display name.
        hue: the column of arms that gives colour and marker; none: `y` itself. Where several rows
            share a line they stand below each other, with a legend; nothing moves along x.
        col: the column whose values are the panels and their titles, on one scale.
        chance: a dotted line; left out, and said, where every interval lies far above it.
        seeds: the same columns and `estimate`, one row a seed: small ticks above the line.
        label: of the axis.
        form: writes each value at the right edge, where a line holds one.
    """
    table = table.assign(panel=table[col] if col else "", hue=table[hue or y])
    lines, arms, panels = (list(dict.fromkeys(table[c])) for c in (y, "hue", "panel"))
    crowd = int(table.groupby([y, "panel"]).size().max())
    step = max(0.42, 0.13 * crowd, 0.27 * max(str(line).count("\n") + 1 for line in lines))
    size = (9.2, 1.2 + step * len(lines))
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row in table.itertuples():
        ax, place = axes[0, panels.index(row.panel)], lines.index(getattr(row, y))
        if crowd > 1:
            place += 0.7 * ((arms.index(row.hue) + 0.5) / len(arms) - 0.5)
        style = look(row.hue)
        ax.plot([row.low, row.high], [place, place], color=style["color"], linewidth=2)
        ax.plot(row.estimate, place, markersize=7 - 2 * (crowd > 1), markeredgewidth=1.6, **style)
        if seeds is not None:
            keys = [key for key in (y, hue, col) if key]
            ticks = seeds.merge(pd.DataFrame([row._asdict()])[keys])["estimate"]
            ax.plot(ticks, [place - 0.24] * len(ticks), "|", color=MUTED, markersize=6)
        if crowd == 1 and np.isfinite(row.estimate):
            across = ax.get_yaxis_transform()
            ax.text(1.01, place, form(row.estimate), va="center", fontsize=9, transform=across)
    far = chance is not None and float(table["low"].fillna(chance).min()) > chance + 0.25
    for ax, panel in zip(axes[0], panels, strict=True):
        if chance is not None and not far:
            ax.axvline(chance, color=INK, linestyle=":", linewidth=1.2)
        ax.set_title(panel, fontsize=11, fontweight="bold")
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=5)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(lines)), [name_of(line) for line in lines])
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.6)
    fig.supxlabel(f"{label}; chance, {chance:g}, lies beyond the axis" if far else label, size=10.5)
    if crowd > 1:
        dots = [plt.Line2D([], [], linestyle="", label=name_of(arm), **look(arm)) for arm in arms]
        fig.legend(handles=dots, loc="outside upper center", ncols=min(len(arms), 5))
    return fig


def heat(
    table: pd.DataFrame,
    rows: str,
    columns: str,
    values: str = "estimate",
    ax: plt.Axes | None = None,
    frames: Sequence[tuple[str, str]] = (),
    **options: object,
) -> plt.Figure:
    """Draw a tidy table as a heat map with its numbers, in order of appearance; return the figure.

    `rows`, `columns`, `values`: its columns; arms get their display names. `ax`: where to draw;
    none makes a figure. `frames`: (row, column) of cells to frame. `options` go to
    `seaborn.heatmap`, e.g. `fmt`, `vmin`, `vmax`, `cmap`, `cbar`. A NaN stays white.
    """
    order = {c: list(dict.fromkeys(table[c])) for c in (rows, columns)}
    wide = table.pivot(index=rows, columns=columns, values=values)
    wide = wide.loc[order[rows], order[columns]].rename(index=name_of, columns=name_of)
    if ax is None:
        _, ax = plt.subplots(figsize=(3.4 + 0.75 * wide.shape[1], 1.6 + 0.4 * wide.shape[0]))
    sns.heatmap(wide, ax=ax, **{"cmap": "Blues", "annot": True, "linewidths": 1} | options)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    plt.setp(ax.get_yticklabels(), rotation=0)
    for row, column in frames:
        corner = (order[columns].index(column), order[rows].index(row))
        ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=2))
    return ax.figure


def as_pixels(image: object) -> np.ndarray:
    """Return a path, PIL image or array as an array (height, width, 3) of uint8."""
    if isinstance(image, str | Path):
        image = Image.open(image)
    return np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)


def face_grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    width: float = 1.55,
    colours: Sequence[str] | None = None,
) -> plt.Figure:
    """Show pictures in a grid, and return the figure; it says so where there is none.

    `images`: paths, PIL images or arrays (height, width, 3). `titles`: above each, may hold line
    breaks. `width`: of one picture, in inches; the first sets the proportions. `colours`: a frame
    for each.
    """
    pixels = [as_pixels(image) for image in images] or [np.full((1, 8, 3), 255, np.uint8)]
    titles = titles if len(images) and titles else [""] * len(images) or ["No picture to show."]
    columns = min(columns, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    height = width * pixels[0].shape[0] / pixels[0].shape[1] + 0.06
    height += 0.17 * max(title.count("\n") + (title > "") for title in titles)
    fig, axes = plt.subplots(rows, columns, figsize=(columns * width, rows * height), squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if index < len(pixels):
            ax.imshow(pixels[index], cmap="gray")
            ax.set_title(titles[index], fontsize=9, loc="center", pad=3)
            if colours:
                ax.spines[:].set(visible=True, color=colours[index], linewidth=2.4)
    return fig
