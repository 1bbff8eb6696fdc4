"""The figures of the comparison; each function takes axes and returns them.

Lines and dots carry the teacher's colour; a teacher is drawn with a filled marker or a full line,
its pupil with an open marker or a dashed line.
"""

from collections.abc import Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate
from helpers.evaluation.compare import Panel
from helpers.figures import INK, MARKERS, MUTED, colour_of, label_of, teacher_of
from helpers.metrics import CONTRASTS, METRICS, roc_curve
from helpers.prose import signed
from helpers.training.runs import Run


def _is_student(arm: str) -> bool:
    return "-" in arm


def line_style(arm: str) -> dict:
    """Return colour and dashes of an arm's line."""
    return {"color": colour_of(arm), "linestyle": (0, (4, 1.6)) if _is_student(arm) else "-"}


def marker_style(arm: str) -> dict:
    """Return colour and marker of an arm's dot, open for students."""
    fill = "white" if _is_student(arm) else colour_of(arm)
    marker = MARKERS.get(teacher_of(arm), "o")
    return {"color": colour_of(arm), "marker": marker, "markerfacecolor": fill, "linestyle": "none"}


def interval(ax: plt.Axes, estimate: Estimate, y: float, arm: str) -> plt.Axes:
    """Draw one estimate at height `y`: its interval, its seeds as small ticks, its dot."""
    if np.isfinite(estimate.low):
        ax.plot([estimate.low, estimate.high], [y, y], color=colour_of(arm), linewidth=2.2)
    if len(estimate.seeds) > 1:
        ax.plot(estimate.seeds, np.full(len(estimate.seeds), y + 0.24), "|", color=MUTED, ms=6)
    if not np.isfinite(estimate.value):
        ax.text(0.02, y, "not defined", color=MUTED, va="center", fontsize=9,
                transform=ax.get_yaxis_transform())  # fmt: skip
        return ax
    ax.plot(estimate.value, y, markersize=7.5, markeredgewidth=1.8, **marker_style(arm))
    return ax


def _label_rows(ax: plt.Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def _far_above_chance(panel: Panel, contrasts: Sequence[str]) -> float | None:
    """Return the lowest end of all intervals where chance need not be on the axis, or None."""
    found = [panel.estimates(arm, c)["auroc"] for arm in panel.arms for c in contrasts]
    ends = [estimate.low for estimate in found]
    return min(ends) if np.isfinite(ends).all() and min(ends) > 0.75 else None


def forest(ax: plt.Axes, panel: Panel, contrast: str, metric: str = "auroc") -> plt.Axes:
    """Draw `metric` of every arm with its interval; the dotted line is chance (AUROC)."""
    for y, arm in enumerate(panel.arms):
        estimate = panel.estimates(arm, contrast)[metric]
        interval(ax, estimate, y, arm)
        if np.isfinite(estimate.value):
            ax.text(1.01, y, f"{estimate.value:.2f}", va="center", fontsize=10,
                    transform=ax.get_yaxis_transform())  # fmt: skip
    if metric == "auroc":
        ax.axvline(0.5, color=INK, linestyle=":", linewidth=1.2)
    _label_rows(ax, [label_of(arm) for arm in panel.arms])
    ax.set_xlabel(METRICS[metric])
    return ax


def forests(panel: Panel, metric: str = "auroc") -> plt.Figure:
    """Draw `forest` for the three contrasts side by side, on one scale."""
    height = 1.35 + 0.42 * len(panel.arms)
    fig, axes = plt.subplots(1, 3, figsize=(9.2, height), sharey=True, sharex=True)
    for ax, (contrast, title) in zip(axes, CONTRASTS.items(), strict=True):
        forest(ax, panel, contrast, metric)
        ax.set_title(title.replace("Pain vs ", "Pain vs\n"), fontsize=11)
    least = _far_above_chance(panel, list(CONTRASTS)) if metric == "auroc" else None
    if least is not None:
        low, high = least - 0.01, 1.005
        axes[1].set_xlabel("AUROC; chance, 0.5, lies beyond the axis")
        axes[0].set_xlabel("")
        axes[2].set_xlabel("")
    else:
        low, high = axes[0].get_xlim()
        low, high = max(min(low, 0.46), -0.02), min(max(high, 0.9), 1.02)
    axes[0].set_xlim(low, high)
    axes[0].set_xticks([tick for tick in axes[0].get_xticks() if low <= tick <= high])
    axes[0].set_xlim(low, high)
    return fig


def differences(
    ax: plt.Axes, panel: Panel, pairs: Sequence[tuple[str, str]], contrast: str, metric: str
) -> plt.Axes:
    """Draw the paired difference of each pair (first minus second) with its interval, and 0."""
    for y, (first, second) in enumerate(pairs):
        estimate = panel.difference(first, second, contrast, metric)
        interval(ax, estimate, y, first)
        if np.isfinite(estimate.value):
            ax.text(1.01, y, signed(estimate.value), va="center", fontsize=10,
                    transform=ax.get_yaxis_transform())  # fmt: skip
    ax.axvline(0, color=INK, linestyle=":", linewidth=1.2)
    _label_rows(ax, [f"{label_of(first)}\nminus {label_of(second)}" for first, second in pairs])
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(f"difference in {METRICS[metric]}")
    return ax


def difference_panels(
    panel: Panel, pairs: Sequence[tuple[str, str]], metric: str = "auroc"
) -> plt.Figure:
    """Draw `differences` for the contrasts `all` and `expressive` side by side."""
    height = 1.5 + 0.62 * len(pairs)
    fig, axes = plt.subplots(1, 2, figsize=(9.2, height), sharey=True, sharex=True)
    for ax, contrast in zip(axes, ("all", "expressive"), strict=True):
        differences(ax, panel, pairs, contrast, metric)
        ax.set_title(CONTRASTS[contrast], fontsize=11)
    reach = max(0.06, *(abs(x) for x in axes[0].get_xlim()))
    axes[0].set_xlim(-reach, reach)
    return fig


def roc(ax: plt.Axes, panel: Panel, contrast: str) -> plt.Axes:
    """Draw every arm's ROC curve: the mean over seeds of sensitivity at each specificity.

    So the area under the curve drawn is the mean AUROC that is written beside its name.
    """
    rows = panel.rows(contrast)
    positive, grid = panel.positive[rows], np.linspace(0, 1, 401)
    ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2)
    for arm in panel.arms:
        scores = panel.probabilities[arm]["probability"][:, rows]
        curves = [roc_curve(positive, score) for score in scores]
        value = panel.estimates(arm, contrast)["auroc"].value
        if not np.isfinite(value):
            ax.plot([], [], label=f"{label_of(arm)}  not defined", **line_style(arm))
        elif len(curves) == 1:
            ax.plot(*curves[0], label=f"{label_of(arm)}  {value:.2f}", **line_style(arm))
        else:
            mean = np.mean([np.interp(grid, *curve) for curve in curves], axis=0)
            label = f"{label_of(arm)}  {value:.2f}"
            ax.plot(np.r_[0, grid], np.r_[0, mean], label=label, **line_style(arm))
    ax.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    ax.set_aspect("equal")
    ax.grid(True)
    ax.legend(loc="lower right", fontsize=9, handlelength=2.4, frameon=True, framealpha=0.9,
              edgecolor="none", title="area under the curve", title_fontsize=9)  # fmt: skip
    return ax


def learning_curves(ax: plt.Axes, runs: Sequence[Run]) -> plt.Axes:
    """Draw validation AUROC by epoch, one line a run, a dot at the epoch whose weights are used."""
    ends: dict[str, float] = {}
    for run in runs:
        history = run.history
        ax.plot(
            history["epoch"], history["validation_auroc"], linewidth=1.6, **line_style(run.name)
        )
        best = history[history["epoch"] == run.metrics["best_epoch"]]
        ax.plot(best["epoch"], best["validation_auroc"], markersize=6, **marker_style(run.name))
        last = history[["epoch", "validation_auroc"]].iloc[-1]
        if np.isfinite(last["validation_auroc"]):
            ends[run.name] = last["validation_auroc"]
    ax.axhline(0.5, color=INK, linestyle=":", linewidth=1.2)
    ax.set(xlabel="epoch", ylabel="AUROC on validation faces")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y")
    ax.margins(x=0.02)
    _label_side(ax, ends, 1.0, step=0.075)
    return ax


def _label_side(ax: plt.Axes, heights: dict[str, float], edge: float, step: float) -> None:
    """Write each arm's name at its height (data), right of `edge` (share of the axes' width).

    Names closer than `step` (share of the axes' height) are moved apart.
    """
    if not heights:
        return
    low, high = ax.get_ylim()
    gap = step * (high - low)
    names = sorted(heights, key=lambda name: heights[name])
    places = [heights[name] for name in names]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i, ceiling in enumerate(high - gap * np.arange(len(places))[::-1]):
        places[i] = min(places[i], ceiling)
    for name, height in zip(names, places, strict=True):
        ax.annotate(
            label_of(name),
            (edge, height),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            xycoords=("axes fraction", "data"),
            color=colour_of(name),
            fontsize=10,
            annotation_clip=False,
        )


def curves_by_contrast(panel: Panel) -> plt.Figure:
    """Draw `roc` for the contrasts `all` and `expressive` side by side."""
    fig, axes = plt.subplots(1, 2, figsize=(9.2, 4.7), sharey=True)
    for ax, contrast in zip(axes, ("all", "expressive"), strict=True):
        roc(ax, panel, contrast)
        ax.set_title(CONTRASTS[contrast], fontsize=11)
    axes[1].set_ylabel("")
    return fig


def subgroups(ax: plt.Axes, panel: Panel, table: pd.DataFrame, contrast: str) -> plt.Axes:
    """Draw AUROC by subgroup, the arms of a group one below the other.

    `table`: the study's `subgroups`. A group without an interval has dots alone; one in which a
    class is missing has none.
    """
    chosen = table[table["contrast"] == contrast]
    offsets = dict(zip(panel.arms, np.linspace(-0.32, 0.32, len(panel.arms)), strict=True))
    names = []
    for y, ((_, value), part) in enumerate(chosen.groupby(["group", "value"], sort=False)):
        size = part.iloc[0]
        names.append(f"{value}\n{size['pain']} Pain, {size['other']} other")
        for row in part.itertuples():
            height = y + offsets[row.arm]
            ax.plot([row.low, row.high], [height] * 2, color=colour_of(row.arm), linewidth=1.6)
            ax.plot(row.estimate, height, markersize=4.5, **marker_style(row.arm))
        if y % 2:
            ax.axhspan(y - 0.5, y + 0.5, color="#F6F6F6", linewidth=0, zorder=0)
    ax.axvline(0.5, color=INK, linestyle=":", linewidth=1.2)
    _label_rows(ax, names)
    ax.tick_params(axis="y", labelsize=9)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(f"AUROC, {CONTRASTS[contrast]}")
    for arm in panel.arms:
        ax.plot([], [], label=label_of(arm), **marker_style(arm))
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handletextpad=0.2)
    return ax


def cost_against_auroc(ax: plt.Axes, panel: Panel, cost: pd.DataFrame, contrast: str) -> plt.Axes:
    """Draw AUROC with its interval against multiply-adds an image, named at each dot.

    `cost`: the study's `cost` table.
    """
    macs = cost.groupby("arm", sort=False)["macs"].mean() / 1e9
    known = [a for a in panel.arms if np.isfinite(panel.estimates(a, contrast)["auroc"].value)]
    places = _apart(macs, known)
    for arm, x in places.items():
        estimate = panel.estimates(arm, contrast)["auroc"]
        ax.plot([x, x], [estimate.low, estimate.high], color=colour_of(arm), linewidth=2)
        ax.plot(x, estimate.value, markersize=7.5, markeredgewidth=1.8, **marker_style(arm))
    ax.set(xlabel="multiply-adds an image (billions)", ylabel=f"AUROC, {CONTRASTS[contrast]}")
    least = _far_above_chance(panel, [contrast])
    if least is None:
        ax.axhline(0.5, color=INK, linestyle=":", linewidth=1.2)
    else:
        ax.set_ylim(least - 0.03, 1.005)
    ax.set_xlim(0, 1.3 * float(macs.max()))
    ax.grid(axis="y")
    alone = sorted(arm for arm in known if (macs[known] == macs[arm]).sum() == 1)
    sides = _sides({arm: places[arm] for arm in alone}, 0.2 * float(macs.max()))
    for value in macs[known].unique():
        same = {arm: places[arm] for arm in known if macs[arm] == value}
        heights = {arm: panel.estimates(arm, contrast)["auroc"].value for arm in same}
        if len(same) > 1:
            _label_side(ax, heights, max(same.values()) / ax.get_xlim()[1], step=0.065)
            continue
        (arm,) = same
        low = panel.estimates(arm, contrast)["auroc"].low
        foot = (value, low if np.isfinite(low) else heights[arm])
        style = {"ha": sides[arm], "va": "top", "color": colour_of(arm), "fontsize": 10}
        ax.annotate(label_of(arm), foot, xytext=(0, -7), textcoords="offset points", **style)
    return ax


def _sides(places: dict[str, float], width: float) -> dict[str, str]:
    """Return how to align each name under its place, so that neighbours do not touch."""
    order = sorted(places, key=lambda arm: places[arm])
    sides = dict.fromkeys(order, "center")
    for left, right in pairwise(order):
        if places[right] - places[left] < width:
            sides[left] = "right" if sides[left] == "center" else sides[left]
            sides[right] = "left"
    return sides


def _apart(macs: pd.Series, arms: Sequence[str]) -> dict[str, float]:
    """Return each arm's place; arms of equal cost are set side by side around it."""
    step = 0.055 * float(macs.max())
    places = {}
    for value in macs[list(arms)].unique():
        same = [arm for arm in arms if macs[arm] == value]
        for place, arm in enumerate(same):
            places[arm] = value + step * (place - (len(same) - 1) / 2)
    return places
