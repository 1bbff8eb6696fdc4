"""Figures of decisions and confidence: confusion, disagreement, reliability."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from helpers.evaluation.compare import Panel
from helpers.figures import INK, colour_of, label_of
from helpers.metrics import THRESHOLD, reliability

SHADES = LinearSegmentedColormap.from_list("study", ["#FFFFFF", "#DCE6EE", "#6C93B4", "#204060"])


def confusion(ax: plt.Axes, panel: Panel, arm: str) -> plt.Axes:
    """Draw an arm's confusion matrix on all test faces: counts (mean over seeds), shaded by row."""
    called = panel.probabilities[arm]["probability"] > THRESHOLD
    cells = np.array(
        [
            [(called[:, panel.positive == truth] == call).sum() for call in (True, False)]
            for truth in (True, False)
        ]
    ) / len(called)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=SHADES, vmin=0, vmax=1, aspect="equal")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else INK
        count = cells[row, column]
        text = f"{count:.0f}" if count == round(count) else f"{count:.1f}"
        text += f"\n{100 * share:.0f} %"
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    ax.set_xticks([0, 1], ["Pain", "NoPain"])
    ax.set_yticks([0, 1], ["Pain", "NoPain"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(label_of(arm), color=colour_of(arm), fontsize=10)
    return ax


def confusions(panel: Panel) -> plt.Figure:
    """Draw every arm's confusion matrix in one row."""
    fig, axes = _of_each_arm(panel, confusion, 2.55)
    for ax in axes.flat[: len(panel.arms)]:
        ax.set_xlabel("called")
    for ax in axes[:, 0]:
        ax.set_ylabel("labelled")
    return fig


def disagreement(ax: plt.Axes, table: pd.DataFrame) -> plt.Axes:
    """Draw the pairwise disagreement (columns `first, second, disagreement`) with its numbers."""
    names = list(table["first"].unique())
    wide = table.pivot(index="first", columns="second", values="disagreement").loc[names, names]
    values = wide.to_numpy()
    off = values[~np.eye(len(names), dtype=bool)]
    top = max(0.05, float(np.nanmax(off))) if len(off) else 1.0
    ax.imshow(np.nan_to_num(values), cmap=SHADES, vmin=0, vmax=top * 1.15, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{100 * value:.1f}" if np.isfinite(value) else "–"
        colour = "white" if value > 0.62 * top else INK
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    labels = [label_of(name) for name in names]
    ax.set_xticks(range(len(names)), [text.replace(" ← ", "\n← ").replace(", ", ",\n")
                                      for text in labels], fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(names)), labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def reliability_diagram(ax: plt.Axes, panel: Panel, arm: str) -> plt.Axes:
    """Draw observed share of Pain against mean P(pain) in ten bins, dots sized by their faces."""
    ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2)
    scores = panel.probabilities[arm]["probability"]
    table = reliability(np.tile(panel.positive, len(scores)), scores.ravel())
    ax.plot(table["predicted"], table["observed"], color=colour_of(arm), linewidth=1.2)
    size = 12 + 150 * table["faces"] / table["faces"].sum()
    ax.scatter(table["predicted"], table["observed"], s=size, color=colour_of(arm), zorder=3)
    error = panel.estimates(arm)["ece"].value
    ax.set_title(label_of(arm), color=colour_of(arm), fontsize=10)
    ax.text(0.04, 0.95, f"ECE {error:.2f}", va="top", fontsize=9, transform=ax.transAxes)
    ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel="P(pain)")
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_aspect("equal")
    ax.grid(True)
    return ax


def reliabilities(panel: Panel) -> plt.Figure:
    """Draw every arm's reliability diagram in one row."""
    fig, axes = _of_each_arm(panel, reliability_diagram, 2.7)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of Pain")
    return fig


def _of_each_arm(
    panel: Panel, draw: Callable[[plt.Axes, Panel, str], plt.Axes], height: float
) -> tuple[plt.Figure, np.ndarray]:
    count = len(panel.arms)
    columns = min(count, 5)
    rows = -(-count // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(0.6 + 2.0 * columns, height * rows), squeeze=False, sharey=True
    )
    for ax in axes.flat[count:]:
        ax.axis("off")
    for ax, arm in zip(axes.flat, panel.arms, strict=False):
        draw(ax, panel, arm)
    return fig, axes
