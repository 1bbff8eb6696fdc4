"""What chapter 6 shows without controls: rates over all thresholds, a row of faces, words."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.bootstrap import LEVEL
from helpers.evaluation.subgroups import GROUPS
from helpers.explorer.choice import (
    ANY,
    EXPRESSIVE,
    Choice,
    FaceSet,
    arms_with,
    in_dispute,
    in_group,
    probability,
)
from helpers.explorer.rates import Counts, count
from helpers.figures import FAINT, INK, as_pixels, label_of
from helpers.metrics import THRESHOLD
from helpers.prose import listing, number, percent, plural
from helpers.writeup.matrices import SHADES
from helpers.writeup.plots import line_style, marker_style

_RATES = ("sensitivity", "specificity")


def overview(faces: FaceSet, choice: Choice, thresholds: pd.DataFrame) -> plt.Figure:
    """Draw the chosen run's confusion matrix, and both rates of every arm over all thresholds.

    `thresholds`: see `explorer.threshold_table`. Lines are means over seeds.
    """
    arms = len(faces.panel.arms)
    fig, axes = plt.subplots(
        1, 3, figsize=(9.4, 3.2 + 0.22 * -(-arms // 3)), width_ratios=[1, 1.2, 1.2]
    )
    confusion(axes[0], count(faces, choice))
    title = f"{run_words(faces, choice)}\nat a threshold of {number(choice.threshold)}"
    axes[0].set_title(title, fontsize=10)
    means = thresholds.groupby(["arm", "threshold"], sort=False)[list(_RATES)].mean().reset_index()
    for ax, rate in zip(axes[1:], _RATES, strict=True):
        for arm, line in means.groupby("arm", sort=False):
            ax.plot(line["threshold"], line[rate], label=label_of(arm), **line_style(arm))
        ax.axvline(choice.threshold, color=INK, linestyle=":", linewidth=1.2)
        ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="threshold on P(pain)")
        ax.set_title(rate, fontsize=11)
        ax.grid(True)
    handles, labels = axes[1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower right", ncols=3)
    return fig


def confusion(ax: plt.Axes, counts: Counts) -> plt.Axes:
    """Draw one confusion matrix: faces and percent of the row, shaded by that."""
    cells = np.array([[counts.hit, counts.miss], [counts.false_alarm, counts.correct_rejection]])
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else INK
        text = f"{cells[row, column]}\n{percent(share)}"
        ax.text(column, row, text, ha="center", va="center", color=colour)
    ax.set_xticks([0, 1], ["Pain", "NoPain"])
    ax.set_yticks([0, 1], ["Pain", "NoPain"])
    ax.set(xlabel="called", ylabel="labelled")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def face_row(
    faces: FaceSet, choice: Choice, rows: Sequence[int], pictures: dict[str, Path]
) -> plt.Figure | None:
    """Draw faces side by side, under each every arm's P(pain) in the runs of the chosen seed.

    A dot in the shaded part is on the side of the label. `pictures`: by image_id, see
    `samples.pictures`. None where none of `rows` has one.
    """
    rows = [row for row in rows if faces.table["image_id"][row] in pictures]
    if not rows:
        return None
    arms = arms_with(faces, choice.seed)
    strip = 0.24 * len(arms)
    fig, axes = plt.subplots(
        2, len(rows), figsize=(1.7 + 1.3 * len(rows), 2.1 + strip), height_ratios=[1.3, strip],
        squeeze=False,
    )  # fmt: skip
    for column, row in enumerate(rows):
        picture, below = axes[:, column]
        face = faces.table.iloc[row]
        picture.imshow(as_pixels(pictures[face["image_id"]]))
        picture.set(xticks=[], yticks=[])
        picture.spines[:].set_visible(False)
        caption = face["label"] if face["kind"] == "pain" else f"{face['label']}: {face['kind']}"
        picture.set_title(caption, fontsize=9, fontweight="normal", loc="center", pad=4)
        _strip(below, faces, choice, row)
        names = [label_of(arm) for arm in arms] if column == 0 else []
        below.set_yticks(range(len(arms)), names or [""] * len(arms), fontsize=9)
    fig.supxlabel("P(pain)", fontsize=10)
    return fig


def _strip(ax: plt.Axes, faces: FaceSet, choice: Choice, row: int) -> None:
    right = (choice.threshold, 1) if faces.panel.positive[row] else (0, choice.threshold)
    ax.axvspan(*right, color="#EFEFEF", linewidth=0)
    ax.axvline(choice.threshold, color=INK, linewidth=0.8, linestyle=":")
    arms = arms_with(faces, choice.seed)
    for y, arm in enumerate(arms):
        value = probability(faces, arm, choice.seed)[row]
        ax.plot(value, y, markersize=5.5, markeredgewidth=1.4, clip_on=False, **marker_style(arm))
    ax.set(xlim=(0, 1), ylim=(len(arms) - 0.4, -0.6))
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.spines["bottom"].set(visible=True, color=FAINT)


def group_words(choice: Choice) -> str:
    """Return the chosen people and kind of expression, e.g. "Old, Woman, laugh" or "all"."""
    wanted = [getattr(choice, name) for name in (*GROUPS, "kind")]
    return ", ".join(value for value in wanted if value != ANY) or "all"


def run_words(faces: FaceSet, choice: Choice) -> str:
    """Return "DeiT-Ti ← Swin-T", and its seed where the arm has several."""
    name = label_of(choice.arm)
    return f"{name}, seed {choice.seed}" if len(faces.panel.seeds[choice.arm]) > 1 else name


def rate_words(counts: Counts, rate: str) -> str:
    """Return "0.60 [0.49, 0.70], 45 of 75 Pain faces"."""
    part, noun = (
        (counts.hit, "Pain") if rate == "sensitivity" else (counts.correct_rejection, "NoPain")
    )
    whole = part + (counts.miss if rate == "sensitivity" else counts.false_alarm)
    if not whole:
        return f"not defined, as there is no {noun} face"
    low, high = counts.interval(rate)
    return (
        f"{number(getattr(counts, rate))} [{number(low)}, {number(high)}], {part:,} of "
        f"{plural(whole, f'{noun} face')}"
    )


def summary(faces: FaceSet, choice: Choice) -> str:
    """Return what the chosen run does at the chosen threshold, in Markdown."""
    counts = count(faces, choice)
    total = int(in_group(faces, choice).sum())
    return (
        f"**{run_words(faces, choice)}** at a threshold of {number(choice.threshold)} on "
        f"{plural(total, 'test face')}: sensitivity {rate_words(counts, 'sensitivity')}; "
        f"specificity {rate_words(counts, 'specificity')}. In brackets are {percent(LEVEL)} Wilson "
        "intervals that count people, as the two faces of one person are not independent; they "
        "speak of this run alone, not of the luck of its training."
    )


def at_odds(faces: FaceSet, choice: Choice) -> str:
    """Return on how many faces the arms differ, and on which kinds of expression most often."""
    narrowed = Choice(choice.arm, choice.seed, threshold=choice.threshold, dispute="arms")
    differ = in_dispute(faces, narrowed)
    said = (
        f"The {len(arms_with(faces, choice.seed))} arms do not all decide alike on "
        f"{differ.sum():,} of {plural(len(differ), 'test face')}"
    )
    if not differ.any():
        return f"{said}."
    kinds = faces.table.assign(differ=differ).groupby("kind")["differ"].agg(["sum", "size"])
    kinds = kinds.assign(share=kinds["sum"] / kinds["size"]).sort_values(
        ["share", "size"], ascending=False
    )
    most = [f"{kind} ({n} of {size})" for kind, n, size, _ in kinds.head(3).itertuples()]
    return f"{said}, most often by kind of expression on {listing(most)}."


def closing(faces: FaceSet, choice: Choice) -> str:
    """Return what a reader should take from the chapter, in Markdown."""
    every, expressive = (
        count(faces, Choice(choice.arm, choice.seed, kind=kind)).specificity
        for kind in (ANY, EXPRESSIVE)
    )
    own = probability(faces, choice.arm, choice.seed)
    flatters = " The neutral faces are the easy ones." if every > expressive else ""
    return (
        f"- P(pain) of {run_words(faces, choice)} runs from {number(own.min())} to "
        f"{number(own.max())} on the test faces: a threshold outside of that calls all alike.\n"
        f"- At {number(THRESHOLD)} the specificity of {run_words(faces, choice)} is "
        f"{number(every)} on all faces and {number(expressive)} on expressive ones.{flatters}\n"
        "- A threshold that looks good here was chosen on the test faces. Its rates are no "
        "estimate for other people: a threshold to be used is chosen on validation faces.\n"
        "- Faces picked by hand are anecdotes. They raise questions; chapter 5 holds the numbers "
        "that can answer them."
    )
