"""The figures of what is inside: CKA of layers, shares of maps in regions, maps on faces."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from helpers.bootstrap import Estimate
from helpers.errors import StudyError
from helpers.figures import INK, colour_of, label_of, teacher_of
from helpers.inside.attribution import Examples
from helpers.inside.regions import REGIONS
from helpers.inside.saliency import METHODS
from helpers.writeup.matrices import SHADES
from helpers.writeup.plots import interval

_HEAT = plt.get_cmap("magma")
# A map's colours: from a place like any other to one with so many times the mean.
_STRONGEST = 4.0


def layer_cka(table: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return the mean CKA over seeds, layers of arm `first` by layers of `second`, in their order.

    `table`: see `cka.cka_table`. Only runs of one seed with one another. Raises `StudyError` where
    the table holds no such pair.
    """
    flipped = {
        name: name.replace("first", "*").replace("second", "first").replace("*", "second")
        for name in table.columns
    }
    both = pd.concat([table, table.rename(columns=flipped)])
    pair = both[(both["first_arm"] == first) & (both["second_arm"] == second)]
    pair = pair[pair["first_seed"] == pair["second_seed"]]
    if pair.empty:
        raise StudyError(f"There is no CKA of {label_of(first)} with {label_of(second)}.")
    return (
        pair.groupby(["first_layer", "second_layer"])["cka"]
        .mean()
        .unstack()
        .loc[pair["first_layer"].unique(), pair["second_layer"].unique()]
    )


def cka_maps(table: pd.DataFrame, firsts: Sequence[str], seconds: Sequence[str]) -> plt.Figure:
    """Draw the CKA of layers, a row for each arm of `firsts`, a column for each of `seconds`.

    Depth goes up and to the right; all maps share one scale from 0 to 1. A frame marks a student
    and its own teacher. An arm is not compared with itself.
    """
    size = (1.6 + 3.0 * len(seconds), 0.7 + 2.15 * len(firsts))
    fig, axes = plt.subplots(len(firsts), len(seconds), figsize=size, squeeze=False)
    for (row, column), ax in np.ndenumerate(axes):
        first, second = firsts[row], seconds[column]
        ax.tick_params(length=0, labelsize=9)
        ax.spines[:].set_visible(False)
        if row == 0:
            ax.set_title(label_of(second), color=colour_of(second), loc="center")
        if column == 0:
            ax.set_ylabel(label_of(first).replace(" ← ", "\n← ").replace(", ", ",\n"),
                          color=colour_of(first), fontweight="bold", fontsize=10)  # fmt: skip
        if first == second:
            ax.set(xticks=[], yticks=[])
            continue
        _heat(ax, layer_cka(table, first, second))
        if "-" in first and teacher_of(first) == second:
            ax.spines[:].set(visible=True, color=colour_of(second), linewidth=2.4)
        if column and first != seconds[column - 1]:
            ax.set_yticks([])
    fig.align_ylabels(axes[:, 0])
    return fig


def _heat(ax: plt.Axes, values: pd.DataFrame) -> None:
    ax.imshow(values, cmap=SHADES, vmin=0, vmax=1, origin="lower", aspect="auto")
    for (y, x), value in np.ndenumerate(values.to_numpy()):
        text = f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "–"
        colour = "white" if value > 0.55 else INK
        ax.text(x, y, text, ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(values.shape[1]), [name.replace(" ", "\n") for name in values.columns])
    ax.set_yticks(range(values.shape[0]), values.index)


def attributions(ratios: Mapping[tuple[str, str, str], Estimate], method: str) -> plt.Figure:
    """Draw each region's share over chance with its interval, a panel a region, a row an arm.

    The dotted line is chance: the region gets what its area would. `ratios`: see
    `attribution.attribution_ratios`; `method`: a key of `saliency.METHODS`. Raises `StudyError`
    where no arm was asked so.
    """
    arms = list(dict.fromkeys(arm for found, arm, _ in ratios if found == method))
    if not arms:
        raise StudyError(f"No arm was asked by {METHODS.get(method, method)}.")
    size = (9.2, 1.3 + 0.42 * len(arms))
    fig, axes = plt.subplots(1, len(REGIONS), figsize=size, sharey=True, sharex=True)
    for ax, region in zip(axes, REGIONS, strict=True):
        for y, arm in enumerate(arms):
            interval(ax, ratios[method, arm, region], y, arm)
        ax.axvline(1, color=INK, linestyle=":", linewidth=1.2)
        ax.set_title(region, fontsize=11)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(arms)), [label_of(arm) for arm in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.6)
    fig.supxlabel(f"share of {METHODS[method]} over the region's share of the picture", fontsize=11)
    return fig


def gallery(found: Examples) -> plt.Figure:
    """Draw a few Pain faces: on top with the regions' outlines, below with every arm's map.

    One scale for all: a map's strength over its mean, so that a flat map hardly shows.
    """
    count = len(found.pictures)
    size = (1.9 + 1.25 * count, 1.27 * (1 + len(found.maps)) + 0.5)
    fig, axes = plt.subplots(1 + len(found.maps), count, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    extent = (0, 1, 1, 0)
    for column, ax in enumerate(axes[0]):
        ax.imshow(found.pictures[column], extent=extent)
        _outlines(ax, found.masks[column])
    _name(axes[0, 0], "face and\nregions", INK)
    for (arm, method), line in zip(found.maps, axes[1:], strict=True):
        for column, ax in enumerate(line):
            grey = found.pictures[column].mean(axis=2, keepdims=True).repeat(3, axis=2)
            values = found.maps[arm, method][column]
            ax.imshow(overlay(grey, values), extent=extent)
            if np.isnan(values).all():
                ax.text(0.5, 0.92, "no map", color="white", ha="center", fontsize=9)
        name = label_of(arm).replace(" ← ", "\n← ").replace(", ", ",\n")
        _name(line[0], f"{name}\n{METHODS[method].replace(' ', chr(10))}", colour_of(arm))
    scale = ScalarMappable(Normalize(1, _STRONGEST), _HEAT)
    bar = fig.colorbar(scale, ax=axes, orientation="horizontal", aspect=40, shrink=0.7, pad=0.01)
    bar.set_label("strength of the map over its mean", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return fig


def _name(ax: plt.Axes, text: str, colour: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9, color=colour, labelpad=6)


def _outlines(ax: plt.Axes, masks: np.ndarray) -> None:
    side = masks.shape[-1]
    centres = (np.arange(side) + 0.5) / side
    for mask in masks:
        if mask.any():
            ax.contour(centres, centres, mask, levels=[0.5], colors="white", linewidths=0.9)


def overlay(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `pixels` in grey with a map over them, as strong as it is opaque.

    `pixels`: (height, width, 3) uint8. `values`: (S, S), a map with sum 1, enlarged to fit, or all
    NaN for no map. What is at the map's mean or below stays grey.
    """
    height, width = pixels.shape[:2]
    strength = Image.fromarray((np.nan_to_num(values) * values.size).astype(np.float32))
    strength = np.asarray(strength.resize((width, height), Image.Resampling.BILINEAR))
    strength = np.clip((strength - 1) / (_STRONGEST - 1), 0, 1)
    opacity = 0.75 * np.minimum(1, 2 * strength)[..., None]
    grey = pixels.mean(axis=2, keepdims=True)
    mixed = (1 - opacity) * grey + opacity * 255 * _HEAT(strength)[..., :3]
    return mixed.round().astype(np.uint8)
