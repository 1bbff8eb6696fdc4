"""The ablations of chapter 5: a figure and what it says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.evaluation.ablation_tables import STUDY
from helpers.figures import FAINT, INK, MARKERS, MUTED, colour_of, label_of, teacher_of
from helpers.metrics import CONTRASTS, PRIMARY
from helpers.prose import capital, listing, plural, signed
from helpers.writeup.readings import name_of

TITLES = {
    STUDY: "the study",
    "soft": "soft labels",
    "shuffled": "shuffled labels",
    "out_of_fold": "labels out of fold",
    "scratch": "random weights",
    "small": "DeiT-S",
}
SHUFFLED = "shuffled"
_GUESSING = " Its students cannot be told from guessing: between teachers it cannot decide."
_ALONE = ": intervals without the luck of training"
MISSING = (
    "No ablation was run beside these runs: `config/ablations` holds them, and `snakemake "
    "ablations` with the config of the study makes them."
)


def title_of(ablation: str) -> str:
    """Return an ablation's name as a figure shows it."""
    return TITLES.get(ablation, ablation.replace("_", " "))


def ablation_figure(table: pd.DataFrame) -> plt.Figure:
    """Draw AUROC of every student, and the two teachers' pupils' difference, by ablation.

    `table`: of `ablation_tables.ablation_table`.
    """
    names = list(dict.fromkeys(table["ablation"]))
    height = 1.5 + 0.62 * len(names)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, height), sharey=True)
    arms = table[table["kind"] == "arm"]
    order = list(dict.fromkeys(teacher_of(arm) for arm in arms["first"]))
    for place, teacher in enumerate(order):
        mine = arms[arms["first"].map(teacher_of) == teacher]
        y = [names.index(a) + 0.2 * (place - (len(order) - 1) / 2) for a in mine["ablation"]]
        label = "no teacher" if teacher == "none" else f"taught by {label_of(teacher)}"
        _bars(left, mine, np.array(y), f"x-{teacher}", label)
    taught = table[table["kind"] == "taught"]
    _bars(right, taught, np.array([names.index(a) for a in taught["ablation"]]), None, None)
    seeds = table.groupby("ablation")["seeds"].max()
    titles = [
        f"{title_of(name)}\n({plural(seeds[name], 'seed')})"
        if seeds[name] < seeds.max()
        else title_of(name)
        for name in names
    ]
    left.set_yticks(range(len(names)), titles)
    left.invert_yaxis()
    left.set_xlabel("AUROC")
    if left.get_xlim()[0] < 0.5:
        left.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
    left.set_title(f"Students, {CONTRASTS[PRIMARY]}")
    right.axvline(0, color=MUTED, linestyle=":", linewidth=1)
    right.set_xlabel("difference in AUROC")
    right.set_title("Taught by Swin-T minus taught by ResNet-50")
    for ax in (left, right):
        ax.axhline(0.5, color=FAINT, linewidth=0.8)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    fig.legend(loc="outside lower left", ncols=len(order))
    return fig


def _bars(ax: plt.Axes, rows: pd.DataFrame, y: np.ndarray, arm: str | None, label: str | None):
    colour = colour_of(arm) if arm else INK
    marker = MARKERS[teacher_of(arm)] if arm else "o"
    ax.hlines(y, rows["low"], rows["high"], color=colour, linewidth=1.8)
    look = {"color": colour, "markerfacecolor": "white", "linestyle": ""}
    ax.plot(rows["estimate"], y, marker, label=label, **look)


def ablation_words(table: pd.DataFrame) -> str:
    """Return what each ablation changes, one line each, or that there is none."""
    if set(table["ablation"]) <= {STUDY}:
        return MISSING
    lines = []
    for name, rows in table[table["ablation"] != STUDY].groupby("ablation", sort=False):
        changes = [
            f"{name_of(row.first)} {signed(row.estimate)} {_bracket(row)}"
            for row in rows[rows["kind"] == "change"].itertuples()
        ]
        said = f"against the study's, {listing(changes)}" if changes else "no twin in the study"
        for row in rows[rows["kind"] == "taught"].itertuples():
            said += f"; Swin-taught minus ResNet-taught {signed(row.estimate)} {_bracket(row)}"
        count = int(rows["seeds"].max())
        seeds = plural(count, "seed") + _ALONE * (count == 1)
        guessing = bool((rows.loc[rows["kind"] == "arm", "low"] <= 0.5).all())
        lines.append(f"- **{capital(title_of(name))}** ({seeds}): {said}.{_GUESSING * guessing}")
    return "\n".join(lines) + _control(table)


def _control(table: pd.DataFrame) -> str:
    """Return what the shuffled labels say of what a teacher hands over; nothing without them."""
    rows = table[(table["ablation"] == SHUFFLED) & (table["kind"] == "change")]
    rows = rows[np.isfinite(rows["low"])]
    if rows.empty:
        return ""
    said = "\n\nShuffled labels keep how often a teacher says Pain and lose of whom. "
    losing = listing([name_of(arm) for arm in rows.loc[rows["high"] < 0, "first"]])
    if losing:
        return f"{said}The worse for it: {losing}. There, what a teacher says of a face is of use."
    return said + (
        "No student is shown to be the worse for it: these runs do not show that what a teacher "
        "says of a face is of use to its student. Where intervals are wide they do not exclude it."
    )


def _bracket(row) -> str:
    known = np.isfinite(row.low)
    return f"[{signed(row.low)}, {signed(row.high)}]" if known else "[no interval]"
