"""What matters from scratch, in data/README.md, from the table of `benchmarks/scratch_ablation.py`.

python -m helpers.pretraining.scratch_card    # writes it between its marks
"""

from pathlib import Path

import pandas as pd

from helpers.figures import label_of
from helpers.files import project_path, read_csv, write_between
from helpers.prose import listing, markdown_table, number, plural

TABLE = Path("results/benchmarks/scratch_ablation.csv")
START, END = "<!-- scratch, by helpers.pretraining.scratch_card -->", "<!-- end of scratch -->"
_FACTORS = {
    "none": "–",
    "batch_size": "batch",
    "learning_rate": "step size",
    "warm_up": "warm-up",
    "clip_norm": "clipping",
    "normalisation": "normalisation",
    "augmentation": "augmentation",
}


def card(path: str | Path = TABLE) -> str:
    """Return the table as Markdown with a reading; raises `StudyError` where it is missing."""
    table = read_csv(project_path(path))
    table["left"] = table["off_plateau_epoch"].notna()
    seeds = table["seed"].nunique()
    parts = []
    for model, runs in table.groupby("model", sort=False):
        arm = label_of(model)
        kept = runs.groupby(["factor", "value"], sort=False)["left"].mean()
        left, stayed = ([_named(*key) for key in kept[kept == share].index] for share in (1, 0))
        said = f"**{arm}**, {plural(int(runs['epochs'].max()), 'epoch')} from random weights, "
        said += f"{plural(seeds, 'seed')}, one change a run. "
        said += _sentence("Off the plateau", left) + _sentence("Still on it", stayed)
        missing = dict.fromkeys(table["factor"][~table["factor"].isin(runs["factor"])])
        said += _sentence("Not run", [_FACTORS[factor] for factor in missing])
        parts += [said.strip(), markdown_table(_rows(runs))]
    if seeds == 1:
        parts.append(
            "With one seed the table cannot tell a cause from luck where a run just left the "
            "plateau or just did not."
        )
    return "\n\n".join(parts)


def _sentence(what: str, names: list[str]) -> str:
    return f"{what}: {listing(names)}. " if names else ""


def _named(factor: str, value: str) -> str:
    return value if factor == "none" else f"{_FACTORS[factor]} {value}"


def _rows(runs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "changed": _FACTORS[row.factor],
            "to": "the recipe as it is" if row.factor == "none" else row.value,
            "seed": row.seed,
            "AUROC, validation": number(row.validation_auroc),
            "AUROC, test": number(row.test_auroc),
            "off the plateau in epoch": int(row.off_plateau_epoch) if row.left else "–",
            "training loss at the end": number(row.train_loss),
        }
        for row in runs.itertuples()
    )


if __name__ == "__main__":
    write_between("data/README.md", START, END, card())
