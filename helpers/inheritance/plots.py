"""Figures of what a student inherits: corruptions, drops, shared errors, dose and response."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from helpers.evaluation.compare import Panel
from helpers.figures import FAINT, INK, MUTED, as_pixels, colour_of, label_of
from helpers.files import read_csv
from helpers.inheritance.corruptions import CLEAN, NAMES, STRENGTHS, corrupt
from helpers.inheritance.dose import LABELS, SCALE
from helpers.inheritance.psychometric import psychometric
from helpers.writeup.plots import line_style, marker_style


def contact_sheet(image: torch.Tensor, face: pd.DataFrame, seed: int) -> plt.Figure:
    """Show one face under every corruption, the weakest on top.

    `image`: (3, S, S) uint8. `face`: its one row of the crops' manifest. `seed` as in `corrupt`.
    """
    columns = [CLEAN, *STRENGTHS]
    fig, axes = plt.subplots(3, len(columns), figsize=(11.0, 4.1))
    for ax in axes.flat:
        ax.axis("off")
    for column, name in enumerate(columns):
        title = textwrap.fill(NAMES[name], width=12)
        axes[0, column].set_title(title, fontsize=9, fontweight="normal", loc="center", pad=4)
        for level in (0,) if name == CLEAN else (1, 2, 3):
            pixels = corrupt(image[None], face, name, level, seed)[0]
            axes[max(level - 1, 0), column].imshow(pixels.permute(1, 2, 0).numpy())
    return fig


def _key(fig: plt.Figure, arms: list[str], lines: bool) -> None:
    """Write the arms' marks above the panels."""
    for arm in arms:
        style = marker_style(arm) | (line_style(arm) if lines else {})
        fig.axes[0].plot([], [], label=label_of(arm), **style)
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3,
               handlelength=2.6)  # fmt: skip


def by_strength(table: pd.DataFrame, contrast: str) -> plt.Figure:
    """Draw AUROC against the strength of each corruption, one line an arm, with its intervals.

    `table`: see `robustness.robustness_table`. 0 is the face as it is; the dotted line is chance.
    """
    table = table[table["contrast"] == contrast]
    arms = list(table["arm"].unique())
    offsets = dict(zip(arms, np.linspace(-0.16, 0.16, len(arms)), strict=True))
    fig, axes = plt.subplots(2, 4, figsize=(10.4, 5.4), sharex=True, sharey=True)
    for ax, name in zip(axes.flat, STRENGTHS, strict=True):
        for arm in arms:
            part = table[(table["arm"] == arm) & table["corruption"].isin([CLEAN, name])]
            x = part["strength"] + offsets[arm]
            ax.vlines(x, part["low"], part["high"], color=colour_of(arm), linewidth=0.9, alpha=0.6)
            style = marker_style(arm) | line_style(arm)
            ax.plot(x, part["estimate"], markersize=4.5, linewidth=1.4, **style)
        ax.axhline(0.5, color=INK, linestyle=":", linewidth=1.2)
        ax.set_title(NAMES[name], fontsize=10.5)
        ax.grid(axis="y")
        ax.set_xticks([0, 1, 2, 3])
    fig.supxlabel("strength", fontsize=11)
    fig.supylabel("AUROC", fontsize=11)
    _key(fig, arms, lines=True)
    return fig


def inherited(ax: plt.Axes, table: pd.DataFrame) -> plt.Axes:
    """Draw for each corruption what it costs one teacher more than the other, and their pupils.

    `table`: rows of `robustness.inherited_table` of one pair of pupils and one contrast.
    """
    for y, row in enumerate(table.itertuples()):
        for who, offset in (("teachers", -0.16), ("pupils", 0.16)):
            low, high = getattr(row, f"{who}_low"), getattr(row, f"{who}_high")
            ax.plot([low, high], [y + offset] * 2, color=INK if who == "teachers" else MUTED)
            value, fill = getattr(row, f"{who}_estimate"), INK if who == "teachers" else "white"
            ax.plot(value, y + offset, "o", color=INK, markerfacecolor=fill,
                    label=who if y == 0 else None)  # fmt: skip
    ax.axvline(0, color=INK, linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(table)), [NAMES[name] for name in table["corruption"]])
    ax.set_ylim(len(table) - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    if len(table):
        first, second = (label_of(table[f"{n}_teacher"].iloc[0]) for n in ("first", "second"))
        ax.set_xlabel(f"drop in AUROC: {first} minus {second}, and their pupils alike")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handlelength=1)
    return ax


def consistency_forest(ax: plt.Axes, table: pd.DataFrame, contrast: str) -> plt.Axes:
    """Draw the error consistency of each student with each teacher, in the teacher's colour.

    `table`: see `consistency.consistency_table`. A filled marker is the student's own teacher.
    """
    table = table[table["contrast"] == contrast]
    students, teachers = list(table["student"].unique()), list(table["teacher"].unique())
    offsets = np.linspace(-0.15, 0.15, len(teachers)) * (len(teachers) > 1)
    for row in table.itertuples():
        y = students.index(row.student) + offsets[teachers.index(row.teacher)]
        colour = colour_of(row.teacher)
        ax.plot([row.kappa_low, row.kappa_high], [y, y], color=colour, linewidth=2.2)
        style = marker_style(row.teacher) | {"markerfacecolor": colour if row.own else "white"}
        ax.plot(row.kappa_estimate, y, markersize=7.5, markeredgewidth=1.8, **style)
    ax.axvline(0, color=INK, linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(students)), [label_of(student) for student in students])
    ax.set_ylim(len(students) - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    for teacher in teachers:
        ax.plot([], [], label=f"with {label_of(teacher)}", **marker_style(teacher))
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=1)
    ax.set_xlabel("error consistency κ (0: as the accuracies imply)")
    return ax


def dose_curves(doses: pd.DataFrame, responses: pd.DataFrame) -> plt.Figure:
    """Draw for each arm the share of expressive faces called Pain by PSPI, with the fitted curve.

    `doses`, `responses`: see `dose.dose_table` and `dose.response_table`. The grey curve is that
    of the labels, which an arm that is always right would have; a vertical line is the threshold.
    """
    arms = [arm for arm in responses["arm"] if arm != LABELS]
    curves = responses.set_index("arm").rename(columns=lambda name: name.removesuffix("_estimate"))
    columns = min(3, len(arms))
    lines = -(-len(arms) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(0.6 + 3.1 * columns, 0.7 + 2.5 * lines),
                             sharex=True, sharey=True, squeeze=False)  # fmt: skip
    x = np.linspace(*SCALE, 200)
    for ax in axes.flat[len(arms) :]:
        ax.axis("off")
    for ax, arm in zip(axes.flat, arms, strict=False):
        if np.isfinite(curves.loc[LABELS, "alpha"]):
            ax.plot(x, psychometric(x, curves.loc[LABELS]), color=FAINT, linewidth=4)
        part = doses[(doses["arm"] == arm) & (doses["group"] == "expressive")]
        ax.vlines(part["pspi"], part["called_low"], part["called_high"], color=colour_of(arm))
        ax.plot(part["pspi"], part["called_estimate"], **marker_style(arm))
        fitted = curves.loc[arm]
        if np.isfinite(fitted["alpha"]):
            ax.plot(x, psychometric(x, fitted), **line_style(arm))
        else:
            ax.text(0.04, 0.93, "one answer to every face", transform=ax.transAxes, fontsize=9,
                    color=MUTED)  # fmt: skip
        if SCALE[0] <= fitted["alpha"] <= SCALE[1]:
            ax.axvline(fitted["alpha"], color=colour_of(arm), linewidth=0.9)
        ax.set_title(label_of(arm), fontsize=10.5, color=colour_of(arm))
        ax.grid(axis="y")
        ax.set(xlim=SCALE, ylim=(-0.04, 1.04), xticks=[0, 4, 8, 12, 16])
    for ax in axes.flat[max(0, len(arms) - columns) : len(arms)]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel("PSPI", fontsize=11)
    fig.supylabel("share called Pain", fontsize=11)
    return fig


def inherited_panels(table: pd.DataFrame, contrast: str) -> plt.Figure:
    """Draw `inherited` for each pair of pupils, on one contrast."""
    table = table[table["contrast"] == contrast]
    pairs = list(table.groupby(["first", "second"], sort=False))
    fig, axes = plt.subplots(1, max(len(pairs), 1), figsize=(8.2, 4.4), squeeze=False)
    for ax, (_, part) in zip(axes[0], pairs, strict=False):
        inherited(ax, part)
    return fig


def example(panel: Panel, paths: dict[str, Path], seed: int = 0) -> plt.Figure:
    """Show the first Pain face of the panel that has a picture under every corruption."""
    faces = panel.faces[panel.positive]
    image_id = next(i for i in faces["image_id"] if i in paths)
    manifest = read_csv(paths[image_id].parents[1] / "manifest.csv")
    image = torch.from_numpy(as_pixels(paths[image_id]).copy()).permute(2, 0, 1)
    return contact_sheet(image, manifest[manifest["image_id"] == image_id], seed)
