"""README's headline, made from the committed tables of the multi-seed study.

python -m helpers.writeup.headline    # writes it between the marks in README.md
"""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import StudyError
from helpers.figures import label_of
from helpers.files import project_path, read_csv, write_between
from helpers.metrics import CONTRASTS, PRIMARY
from helpers.prose import markdown_table, number, plural, signed
from helpers.writeup.readings import each_largest_gap, name_of

RESULTS, FIGURES = Path("results/standin"), Path("figures/standin")
START, END = "<!-- headline, by helpers.writeup.headline -->", "<!-- end of headline -->"


def block(results_dir: str | Path = RESULTS, figures_dir: str | Path = FIGURES) -> str:
    """Return the headline as Markdown: the finding by the decision rule, a table, a figure.

    Raises `StudyError` where a table is missing.
    """
    folder = project_path(results_dir)
    metrics, seeds, differences, cost, gaps = (
        read_csv(folder / f"{name}.csv")
        for name in ("metrics", "seeds", "differences", "cost", "subgroup_gaps")
    )
    figure = Path(figures_dir) / "auroc_by_contrast.png"
    return "\n\n".join(
        [
            f"**{_finding(differences, seeds)}**",
            markdown_table(_table(metrics, differences)),
            f"**At what cost.** {_cost(cost)}",
            "**For whom it works less well.** The largest gap in AUROC between two groups of "
            f"people: {each_largest_gap(gaps)}. Picked as the largest, it is too large on average.",
            f"![AUROC of every arm, by contrast]({figure.as_posix()})",
        ]
    )


def _finding(differences: pd.DataFrame, seeds: pd.DataFrame) -> str:
    taught = differences[(differences["kind"] == "taught") & _primary(differences)]
    if taught.empty:
        raise StudyError("The tables hold no two taught students.")
    row = taught.iloc[0]
    wide = seeds[_primary(seeds)].pivot(index="seed", columns="arm", values="estimate")
    signs = np.sign(wide[row["first"]] - wide[row["second"]])
    shown = (
        f"{signed(row['estimate'])} [{signed(row['low'])}, {signed(row['high'])}] AUROC over "
        f"{plural(len(wide), 'seed')}"
    )
    what = f"{name_of(row['first'])} minus {name_of(row['second'])}, {CONTRASTS[PRIMARY]}: {shown}."
    if row["low"] <= 0 <= row["high"] or signs.nunique() > 1:
        return f"{what} The choice of teacher is not settled on the stand-in."
    better = row["first"] if row["estimate"] > 0 else row["second"]
    return f"{what} On the stand-in {name_of(better)} is the better pupil."


def _primary(table: pd.DataFrame) -> pd.Series:
    return (table["contrast"] == PRIMARY) & (table["metric"] == "auroc")


def _table(metrics: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    wide = metrics[metrics["metric"] == "auroc"].set_index(["arm", "contrast"])
    gains = differences[(differences["kind"] == "gain") & _primary(differences)].set_index("first")
    rows = []
    for arm in dict.fromkeys(metrics["arm"]):
        row = {"AUROC": label_of(arm)}
        for contrast, title in CONTRASTS.items():
            row[title] = _with_interval(wide.loc[(arm, contrast)], number)
        row["gain over no teacher"] = (
            _with_interval(gains.loc[arm], signed) if arm in gains.index else "–"
        )
        rows.append(row)
    return pd.DataFrame(rows)


def _cost(cost: pd.DataFrame) -> str:
    mean = cost.groupby("arm", sort=False)[["train_seconds", "macs"]].mean()
    said = []
    for arm in mean.index:
        student, _, teacher = arm.rpartition("-")
        untaught = f"{student}-none"
        if student and teacher in mean.index and untaught in mean.index:
            time = mean.loc[arm, "train_seconds"] / mean.loc[untaught, "train_seconds"]
            said.append(
                f"{name_of(arm)} took {number(time, 1)} times as long to train as without a "
                "teacher, and one face costs it "
                f"1/{number(mean.loc[teacher, 'macs'] / mean.loc[arm, 'macs'], 1)} of its "
                "teacher's multiply-adds"
            )
    return "; ".join(said) + "."


def _with_interval(row: pd.Series, form) -> str:
    return f"{form(row['estimate'])} [{form(row['low'])}, {form(row['high'])}]"


def main() -> None:
    """Write the headline into README.md."""
    write_between("README.md", START, END, block())


if __name__ == "__main__":
    main()
