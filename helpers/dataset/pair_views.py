"""What notebook 01 shows: counts, the seam, the balance of labels, pairs of every cell."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from PIL import Image

from helpers import figures
from helpers.dataset.naming import AGES, CELL, ETHNICITIES, EXPRESSIONS, GENDERS, LABELS
from helpers.dataset.prepare import Prepared, read_pair
from helpers.dataset.seams import Seam, split_at
from helpers.dataset.splits import SPLITS
from helpers.files import project_path
from helpers.prose import capital, listing, percent, plural

LABEL_COLOURS = {"Pain": "#CC5A71", "NoPain": "#8FA6B8"}
_SEAM_WORDS = {
    "white": "were divided at a white line",
    "edge": "at a step in brightness without a line",
    "middle": "in the middle, for want of either",
}


def cell_counts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs in each of the 40 cells: ethnicity by expression, gender and age."""
    pairs = manifest[manifest["side"] == "left"]
    who = pairs["gender"] + ", " + pairs["age"].str.lower()
    columns = pd.MultiIndex.from_product(
        [EXPRESSIONS, [f"{gender}, {age.lower()}" for gender in GENDERS for age in AGES]]
    )
    counts = pd.crosstab(pairs["ethnicity"], [pairs["expression"], who])
    counts = counts.reindex(index=ETHNICITIES, columns=columns, fill_value=0)
    counts["all", ""] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index=None, columns=[None] * 2)


def split_counts(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return, for each split, its people, its faces, and how many of them are Pain."""
    groups = manifest.groupby("split")
    table = pd.DataFrame(
        {
            "people": groups["identity"].nunique(),
            "faces": groups.size(),
            **{name: groups["label"].agg(lambda x, n=name: (x == n).sum()) for name in LABELS},
        }
    ).reindex(SPLITS, fill_value=0)
    table.loc["all"] = table.sum()
    shares = table["Pain"] / table["faces"]
    return table.assign(**{"share of Pain": shares.map(percent)}).rename_axis(index=None)


def read_splits(manifest: pd.DataFrame) -> str:
    """Return what the split table says: disjoint people, the base rate, what is missing."""
    pain = (manifest["label"] == "Pain").mean()
    cells = manifest.groupby(list(CELL)).ngroups
    empty = [name for name in SPLITS if name not in set(manifest["split"])]
    text = (
        f"No person is in two splits. Pain is {percent(pain, 1)} of the faces, so a model that "
        f"always answers NoPain is right {percent(1 - pain, 1)} of the time: accuracy alone says "
        f"little. {cells} of the 40 cells of expression, gender, age and ethnicity hold a pair."
    )
    if empty:
        text += f" {capital(listing(empty))} got nobody, for want of pairs."
    return text


def balance(manifest: pd.DataFrame) -> plt.Figure:
    """Show the share of Pain among the faces of each split and of each group."""
    groups = [("all faces", manifest)]
    for key in ("split", "gender", "age", "ethnicity"):
        order = {"split": SPLITS, "gender": GENDERS, "age": AGES, "ethnicity": ETHNICITIES}[key]
        groups += [(name, manifest[manifest[key] == name]) for name in order]
    groups = [(name, rows) for name, rows in groups if len(rows)]
    fig, ax = plt.subplots(figsize=(7.2, 0.32 * len(groups) + 0.9))
    for y, (_, rows) in enumerate(groups):
        share = (rows["label"] == "Pain").mean()
        ax.barh(y, share, color=LABEL_COLOURS["Pain"], height=0.72)
        ax.barh(y, 1 - share, left=share, color=LABEL_COLOURS["NoPain"], height=0.72)
        place = (share / 2, "center") if share > 0.06 else (share + 0.01, "left")
        ax.text(place[0], y, percent(share), ha=place[1], va="center", color="white", fontsize=10)
        count = f"{len(rows):,} faces"
        ax.text(0.99, y, count, ha="right", va="center", color="white", fontsize=10)
    ax.set_yticks(range(len(groups)), [name for name, _ in groups])
    ax.set(xlim=(0, 1), ylim=(len(groups) - 0.4, -0.6), xticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [Rectangle((0, 0), 1, 1, color=LABEL_COLOURS[name]) for name in ("Pain", "NoPain")]
    ax.legend(handles, ["Pain", "NoPain"], ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return fig


def pairs_of_cells(out_dir: str | Path, manifest: pd.DataFrame, height: float = 3.9) -> plt.Figure:
    """Show one pair of each cell, both halves: ethnicities down, the other attributes across.

    `manifest` is that of notebook 01 or 02; `height` of the figure is in inches.
    """
    folder = project_path(out_dir)
    columns = [(g, a, e) for e in EXPRESSIONS for g in GENDERS for a in AGES]
    fig, axes = plt.subplots(*(len(ETHNICITIES), len(columns)), figsize=(10, height), layout="none")
    fig.subplots_adjust(0.08, 0.0, 1, 0.9, wspace=0.04, hspace=0.04)
    for row, ethnicity in enumerate(ETHNICITIES):
        for column, (gender, age, expression) in enumerate(columns):
            ax = axes[row, column]
            ax.axis("off")
            if row == 0:
                title = f"{expression}\n{gender}, {age.lower()}"
                ax.set_title(title, fontsize=9, loc="center", fontweight="normal", pad=3)
            if column == 0:
                ax.text(-0.04, 0.5, ethnicity.replace(" ", "\n"), fontsize=9, ha="right",
                        va="center", transform=ax.transAxes)  # fmt: skip
            chosen = manifest.query(
                "expression == @expression and gender == @gender and age == @age "
                "and ethnicity == @ethnicity"
            )
            if chosen.empty:
                ax.text(0.5, 0.5, "no pair", ha="center", va="center", color=figures.MUTED,
                        fontsize=9, transform=ax.transAxes)  # fmt: skip
                continue
            ax.imshow(_tile([folder / path for path in chosen["path"].iloc[:2]], height=110))
    return fig


def seam_view(raw_dir: str | Path, result: Prepared, shown: int = 3) -> plt.Figure:
    """Show how pairs are cut: the pair, its columns around the seam enlarged, and both halves.

    One pair of each kind of seam there is, then more of the commonest, up to `shown`.
    """
    kinds = result.pairs["seam"].value_counts().index
    firsts = [result.pairs[result.pairs["seam"] == kind] for kind in kinds]
    rows = pd.concat([group.head(1) for group in firsts] + [firsts[0].iloc[1:]]).head(shown)
    widths = [2, 1, 1, 1]
    fig, axes = plt.subplots(
        len(rows), 4, figsize=(9.5, 2.3 * len(rows)), width_ratios=widths, squeeze=False
    )
    for line, identity in zip(axes, rows["identity"], strict=True):
        pixels, seam = read_pair(raw_dir, result, identity)
        _draw_cut(line, pixels, seam)
    titles = ["the pair as it came", "around the seam", "left: neutral", "right: expressive"]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=10, fontweight="normal", loc="center")
    return fig


def read_seams(pairs: pd.DataFrame) -> str:
    """Return how the pairs were divided, and how wide the strip was that belongs to no half."""
    counts = pairs["seam"].value_counts()
    kinds = [f"{count:,} {_SEAM_WORDS[kind]}" for kind, count in counts.items()]
    text = f"Of the {plural(len(pairs), 'pair')}, {listing(kinds)}."
    strips = pairs[pairs["seam_end"] > pairs["seam_start"]]
    if strips.empty:
        return text
    width = strips["seam_end"] - strips["seam_start"]
    return text + (
        f" With the mixed columns beside it, what went into neither half is {width.min()} to "
        f"{width.max()} pixels wide and begins between columns {strips['seam_start'].min()} and "
        f"{strips['seam_start'].max()}. A cut in the middle would have left some of it at the "
        "inner edge of the halves, where it tells left halves, which are never Pain, from right "
        "ones."
    )


def _draw_cut(axes: Sequence[plt.Axes], pixels: np.ndarray, seam: Seam) -> None:
    height, width = pixels.shape[:2]
    reach = max(20, seam.end - seam.start)
    first = max(seam.start - reach, 0)
    strip = pixels[: height // 4, first : seam.end + reach]
    pictures = [_small(pixels, 200), strip, *(_small(h, 200) for h in split_at(pixels, seam))]
    for ax, picture in zip(axes, pictures, strict=True):
        aspect = "auto" if picture is strip else "equal"
        ax.imshow(picture, aspect=aspect, interpolation="nearest" if picture is strip else None)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for column in (seam.start - first, seam.end - first):
        axes[1].axvline(column - 0.5, color=figures.COLOURS["swin"], linewidth=1.4)
    note = f"columns {seam.start}–{seam.end - 1} dropped" if seam.end > seam.start else "the middle"
    axes[1].set_xlabel(note, fontsize=9)
    axes[0].set_xlabel(f"{width} × {height} pixels", fontsize=9)


def _small(pixels: np.ndarray, height: int) -> np.ndarray:
    """Return a picture reduced to `height`: notebooks hold their figures, and should stay light."""
    image = Image.fromarray(pixels)
    image.thumbnail((10 * height, height))
    return np.asarray(image)


def _tile(paths: Sequence[Path], height: int) -> np.ndarray:
    """Return pictures side by side at one height."""
    small = [_small(figures.as_pixels(path), height) for path in paths]
    least = min(picture.shape[0] for picture in small)
    return np.concatenate([picture[:least] for picture in small], axis=1)


def read_balance(manifest: pd.DataFrame) -> str:
    """Return between which shares of Pain the groups of people lie."""
    shares = {
        name: (rows["label"] == "Pain").mean()
        for key in CELL[1:]
        for name, rows in manifest.groupby(key)
    }
    low, high = min(shares, key=shares.get), max(shares, key=shares.get)
    text = "Across genders, ages and ethnicities the share of Pain is "
    if percent(shares[low]) == percent(shares[high]):
        return text + f"{percent(shares[low])} everywhere: the group alone says nothing."
    return text + f"{percent(shares[low])} ({low}) to {percent(shares[high])} ({high})."


def close(result: Prepared) -> str:
    """Return what notebook 01 did, in a sentence or two, and what comes next."""
    counts = result.manifest.groupby("split")["identity"].nunique()
    people = listing([f"{counts.get(name, 0):,} in {name}" for name in SPLITS])
    return (
        f"{plural(len(result.pairs), 'pair')} became {len(result.manifest):,} labelled faces of "
        f"{len(result.pairs):,} people, {people}. They still differ in framing: the face is "
        "somewhere in the picture, larger or smaller, more or less upright. Chapter 2 finds it and "
        "crops it."
    )
