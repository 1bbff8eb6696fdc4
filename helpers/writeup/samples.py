"""Single test faces: which to show, and how sure each arm was of them."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from helpers.evaluation.compare import Panel
from helpers.figures import FAINT, INK, as_pixels, colour_of, label_of
from helpers.files import project_path, read_csv
from helpers.metrics import THRESHOLD
from helpers.writeup.plots import marker_style

ROWS = {
    "found": "Pain,\nfound",
    "missed": "Pain,\nmissed",
    "false_alarm": "NoPain,\nfalse alarm",
    "dispute": "arms\ndiffer most",
}


def pictures(panel: Panel, crops_dir: str | Path) -> dict[str, Path]:
    """Return the picture of each test face, by image_id; empty where the crops are not there."""
    folder = project_path(crops_dir)
    if not (folder / "manifest.csv").is_file():
        return {}
    manifest = read_csv(folder / "manifest.csv").set_index("image_id")["path"]
    found = {i: folder / manifest[i] for i in panel.faces["image_id"] if i in manifest.index}
    return {image_id: path for image_id, path in found.items() if path.is_file()}


def choose(panel: Panel, count: int = 4) -> dict[str, list[int]]:
    """Return rows of the expressive test faces to show, by the keys of `ROWS`.

    `found` and `missed`: the Pain faces with the highest and the lowest P(pain), the mean over
    arms; `false_alarm`: the NoPain faces with the highest; `dispute`: faces on which the arms'
    P(pain) lie furthest apart. A face is shown once; a row may hold fewer than `count`, or none.
    """
    scores = np.array([panel.mean_probability(arm) for arm in panel.arms])
    mean, spread = scores.mean(axis=0), np.ptp(scores, axis=0)
    expressive = panel.rows("expressive")
    pain, other = panel.positive & expressive, ~panel.positive & expressive
    right = mean > THRESHOLD
    rules = {
        "found": (pain & right, -mean),
        "missed": (pain & ~right, mean),
        "false_alarm": (other & right, -mean),
        "dispute": (expressive, -spread),
    }
    taken: set[int] = set()
    chosen = {}
    for name, (rows, key) in rules.items():
        order = [int(i) for i in np.argsort(key, kind="stable") if rows[i] and int(i) not in taken]
        chosen[name] = order[:count]
        taken |= set(chosen[name])
    return chosen


def gallery(panel: Panel, paths: dict[str, Path], count: int = 4) -> plt.Figure:
    """Draw the chosen faces, and under each every arm's P(pain) from 0 to 1.

    A dot in the shaded half is on the side of the label.
    """
    rows = {name: [i for i in chosen if panel.faces["image_id"][i] in paths]
            for name, chosen in choose(panel, count).items()}  # fmt: skip
    rows = {name: chosen for name, chosen in rows.items() if chosen}
    strip = 0.2 * len(panel.arms)
    height = len(rows) * (1.9 + strip + 0.25)
    fig = plt.figure(figsize=(2.0 + 1.9 * count, height + 0.3))
    ratios = [1.9, strip] * len(rows)
    grid = fig.add_gridspec(2 * len(rows), count, height_ratios=ratios)
    for line, (name, chosen) in enumerate(rows.items()):
        for column, row in enumerate(chosen):
            picture = fig.add_subplot(grid[2 * line, column])
            picture.imshow(as_pixels(paths[panel.faces["image_id"][row]]))
            picture.set(xticks=[], yticks=[])
            picture.spines[:].set_visible(False)
            below = fig.add_subplot(grid[2 * line + 1, column])
            _strip(below, panel, row, names=column == 0, scale=line == len(rows) - 1)
            if column == 0:
                picture.set_ylabel(ROWS[name], rotation=0, ha="right", va="center", fontsize=11,
                                   fontweight="bold", labelpad=8)  # fmt: skip
    return fig


def _strip(ax: plt.Axes, panel: Panel, row: int, names: bool, scale: bool) -> plt.Axes:
    pain = bool(panel.positive[row])
    ax.axvspan(*((THRESHOLD, 1) if pain else (0, THRESHOLD)), color="#EFEFEF", linewidth=0)
    ax.axvline(THRESHOLD, color=INK, linewidth=0.8, linestyle=":")
    for y, arm in enumerate(panel.arms):
        value = panel.mean_probability(arm)[row]
        ax.plot([THRESHOLD, value], [y, y], color=colour_of(arm), linewidth=1.4)
        ax.plot(value, y, markersize=5.5, markeredgewidth=1.4, clip_on=False, **marker_style(arm))
    ax.set(xlim=(0, 1), ylim=(len(panel.arms) - 0.4, -0.6))
    ax.set_yticks(range(len(panel.arms)), [label_of(arm) for arm in panel.arms] if names else [],
                  fontsize=8)  # fmt: skip
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if scale else [], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.spines["bottom"].set(visible=True, color=FAINT)
    if scale:
        ax.set_xlabel("P(pain)", fontsize=9)
    return ax
