"""The table of exports in words: what int8 saves and what it changes."""

from pathlib import Path

import pandas as pd

from helpers.export.plots import FORMS, read_export
from helpers.figures import label_of
from helpers.prose import markdown_table, number, percent, signed

_CHANGED = {"accuracy": "accuracy", "auroc": "AUROC", "ece": "ECE"}


def summary(results_dir: str | Path) -> str:
    """Return the table and what it says, or a sentence where these runs were not exported."""
    rows = export_rows(results_dir)
    if rows is None:
        return "These runs have not been exported: see `benchmarks/export_students.py`."
    return "\n\n".join([rows, read_int8(results_dir), read_parity(results_dir)])


def export_rows(results_dir: str | Path) -> str | None:
    """Return the table as Markdown, one row an arm and form; None where there is no table."""
    table = read_export(results_dir)
    if table is None:
        return None
    return markdown_table(
        pd.DataFrame(
            {
                "arm": label_of(row.arm),
                "form": FORMS[row.form],
                "MB": number(row.megabytes, 1),
                "ms, 1 thread": number(row.ms_1, 1),
                "ms, 2 threads": number(row.ms_2, 1),
                "faces/s, 1 thread": number(row.images_per_second_1, 0),
                "faces/s, 2 threads": number(row.images_per_second_2, 0),
                "AUROC": _interval(row.auroc_estimate, row.auroc_low, row.auroc_high),
            }
            for row in table.itertuples()
        )
    )


def read_int8(results_dir: str | Path) -> str | None:
    """Return what int8 saves and changes against float32 in ONNX, a sentence or two an arm."""
    table = read_export(results_dir)
    if table is None:
        return None
    said = []
    for arm, part in table.groupby("arm", sort=False):
        forms = part.set_index("form")
        exact, small = forms.loc["onnx"], forms.loc["int8"]
        changes = ", ".join(
            f"{signed(small[f'{name}_change_estimate'], 4)} {title} "
            f"[{signed(small[f'{name}_change_low'], 4)}, {signed(small[f'{name}_change_high'], 4)}]"
            for name, title in _CHANGED.items()
        )
        said.append(
            f"- **{label_of(arm)}**: int8 has {number(small['megabytes'] / exact['megabytes'])} of "
            f"the size of float32 and takes {number(small['ms_1'] / exact['ms_1'])} of its time on "
            f"one thread, {number(small['ms_2'] / exact['ms_2'])} on two; {changes}; "
            f"{percent(small['changed_decisions'], 1)} of the decisions change."
        )
    return "\n".join(said)


def read_parity(results_dir: str | Path) -> str | None:
    """Return how near ONNX is to torch, how we count multiply-adds, and what was timed where."""
    table = read_export(results_dir)
    if table is None:
        return None
    exact, own = (table[table["form"] == form] for form in ("onnx", "torch"))
    sizes = " and ".join(str(size) for size in sorted(table["image_size"].unique()))
    macs = (table["macs_224"] / table["published_macs_224"] - 1).abs().max()
    return (
        f"In float32, ONNX gives torch's P(pain) to {exact['largest_difference'].max():.1e}; torch "
        f"in float32 gives the runs' own to {own['largest_difference'].max():.1e}, as they scored "
        "in their own precision. Our count of multiply-adds at 224 pixels is within "
        f"{percent(macs, 1)} of the published ones. Times are those of pictures of {sizes} pixels "
        f"on this machine: {table['machine'].iloc[0]}."
    )


def _interval(value: float, low: float, high: float) -> str:
    return f"{number(value, 3)} [{number(low, 3)}, {number(high, 3)}]"
