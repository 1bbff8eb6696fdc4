"""The efficiency frontier: AUROC against latency and against size, in torch, ONNX and int8."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from helpers.figures import INK, MUTED, colour_of, label_of
from helpers.files import project_path, read_csv
from helpers.metrics import CONTRASTS

TABLE = "export.csv"
FORMS = {"torch": "torch, float32", "onnx": "ONNX, float32", "int8": "ONNX, int8"}
_MARKERS = {"torch": "o", "onnx": "s", "int8": "^"}
_VALUE, _CONTRAST = "auroc_expressive", "expressive"
_COSTS = {"ms_1": "milliseconds a face, one thread", "megabytes": "file, megabytes"}
_APART = 0.02  # of the axis, between arms that cost the same


def read_export(results_dir: str | Path) -> pd.DataFrame | None:
    """Return the committed table of `benchmarks/export_students.py`, None where there is none."""
    path = project_path(results_dir) / TABLE
    return read_csv(path) if path.is_file() else None


def draw_frontier(results_dir: str | Path) -> plt.Figure | None:
    """Draw the frontier from `<results_dir>/export.csv`; None where there is no such table."""
    table = read_export(results_dir)
    return None if table is None else frontier(table)


def frontier(table: pd.DataFrame) -> plt.Figure:
    """Draw AUROC, against expressive NoPain, with its interval over two costs.

    `table`: of `export_table`. Colour tells the teacher, the marker the form; teachers are filled,
    students open. The grey line joins what nothing else beats in both.
    """
    fig, axes = plt.subplots(1, len(_COSTS), figsize=(9.2, 4.3), sharey=True)
    arms = list(dict.fromkeys(table["arm"]))
    for ax, (cost, label) in zip(axes, _COSTS.items(), strict=True):
        ax.set_xscale("log")
        places = _apart(table, cost)
        best = unbeaten(table, cost, f"{_VALUE}_estimate")
        line = {"where": "post", "color": MUTED, "linewidth": 1.2}
        ax.step(places[best.index], best[f"{_VALUE}_estimate"], **line)
        for row, x in zip(table.itertuples(), places, strict=True):
            colour = colour_of(row.arm)
            low, high = getattr(row, f"{_VALUE}_low"), getattr(row, f"{_VALUE}_high")
            ax.plot([x, x], [low, high], color=colour, linewidth=1.2, alpha=0.6)
            fill = "white" if "-" in row.arm else colour
            style = {"color": colour, "markerfacecolor": fill, "markeredgewidth": 1.6}
            ax.plot(x, getattr(row, f"{_VALUE}_estimate"), _MARKERS[row.form], **style)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel(label)
        ax.grid(axis="y")
    axes[0].set_ylabel(f"AUROC, {CONTRASTS[_CONTRAST]}")
    for form, words in FORMS.items():
        axes[1].plot([], [], _MARKERS[form], color=INK, markerfacecolor="white", label=words)
    for arm in arms:
        fill = "white" if "-" in arm else colour_of(arm)
        axes[1].plot([], [], "D", color=colour_of(arm), markerfacecolor=fill, label=label_of(arm))
    axes[1].plot([], [], color=MUTED, linewidth=1.2, label="unbeaten")
    fig.legend(loc="outside upper center", ncols=5, handletextpad=0.3, columnspacing=1.2)
    return fig


def _apart(table: pd.DataFrame, cost: str) -> pd.Series:
    """Return where each row stands; arms that cost much the same, in one form, side by side."""
    same = table.groupby(["form", table[cost].map("{:.2g}".format)])
    place = same.cumcount() - (same["arm"].transform("size") - 1) / 2
    return table[cost] * np.exp(_APART * np.log(table[cost].max() / table[cost].min()) * place)


def unbeaten(table: pd.DataFrame, cost: str, value: str) -> pd.DataFrame:
    """Return the rows that no other row beats, by rising cost: none is as cheap and better."""
    ordered = table.sort_values([cost, value], ascending=[True, False])
    best = ordered[value].cummax().shift(fill_value=-np.inf)
    return ordered[ordered[value] > best]
