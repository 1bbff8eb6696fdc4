"""What notebook 02 shows of the shortcut audit: intervals, and what they say."""

import matplotlib.pyplot as plt
import pandas as pd

from helpers import figures
from helpers.prose import number

_CONTRASTS = {"all": "Pain vs every other face", "expressive": "Pain vs expressive NoPain"}
_COLOURS = {"source": figures.COLOURS["none"], "crop": figures.COLOURS["resnet50"]}
_WORDS = {"source": "in the source", "crop": "in the crop"}


def intervals(table: pd.DataFrame) -> plt.Figure:
    """Show the AUROC of every probe with its interval, source and crop side by side.

    `table` is that of `helpers.cropping.shortcuts.probe_faces`.
    """
    names = list(dict.fromkeys(table["shortcut"]))
    size = (9.6, 0.5 * len(names) + 1.1)
    fig, axes = plt.subplots(1, 2, figsize=size, sharey=True, sharex=True)
    for ax, (contrast, title) in zip(axes, _CONTRASTS.items(), strict=True):
        for row in table[table["contrast"] == contrast].itertuples():
            y = names.index(row.shortcut) + (0.16 if row.where == "crop" else -0.16)
            colour = _COLOURS[row.where]
            marker = "s" if row.where == "crop" else "o"
            ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
            ax.plot(row.estimate, y, marker, color=colour)
        ax.axvline(0.5, color=figures.MUTED, linewidth=1, linestyle=(0, (2, 2)))
        ax.set_title(title)
        ax.set_xlabel("AUROC of a probe that sees only this")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for where, words in _WORDS.items():
        marker = "s" if where == "crop" else "o"
        axes[1].plot([], [], marker, color=_COLOURS[where], label=words)
    axes[1].legend(loc="lower right")
    return fig


def read_intervals(table: pd.DataFrame) -> str:
    """Return what the probes of `table` say, as a paragraph in Markdown."""
    texts = []
    for contrast, title in _CONTRASTS.items():
        rows = table[table["contrast"] == contrast]
        known = rows[rows["low"].notna()]
        telling = known[(known["low"] > 0.5)].sort_values("estimate", ascending=False)
        if known.empty:
            texts.append(f"**{title}:** too few people for an interval.")
        elif telling.empty:
            texts.append(f"**{title}:** every interval holds 0.5; none of these tells the label.")
        else:
            listed = ", ".join(
                f"{row.shortcut} {_WORDS[row.where]} "
                f"({number(row.estimate)} [{number(row.low)}, {number(row.high)}])"
                for row in telling.itertuples()
            )
            texts.append(f"**{title}:** above chance lie {listed}.")
    count = int(table["low"].notna().sum())
    if count:
        texts.append(
            f"About one interval in twenty misses 0.5 by chance alone, and {count} are drawn here."
        )
    return "\n\n".join(texts)
