"""The tables of notebook 05 as a reader sees them: few columns, rounded, with intervals."""

import numpy as np
import pandas as pd

from helpers.evaluation.compare import HEADS, Panel
from helpers.evaluation.tables import Study, comparisons, heads_of
from helpers.figures import label_of
from helpers.metrics import CONTRASTS, METRICS
from helpers.prose import number, percent, plural, signed, with_interval

HEADLINE = ("accuracy", "balanced_accuracy", "f1", "auroc")
DETAIL = ("sensitivity", "specificity", "auprc", "brier", "ece")


def headline(
    panel: Panel, contrast: str = "all", metrics: tuple[str, ...] = HEADLINE
) -> pd.DataFrame:
    """Return one row an arm, and the row of one who always says NoPain."""
    rows = [
        {"arm": label_of(arm)}
        | {METRICS[m]: with_interval(panel.estimates(arm, contrast)[m]) for m in metrics}
        for arm in panel.arms
    ]
    rows.append(
        {"arm": "*always NoPain*"} | {METRICS[m]: _always(panel, contrast, m) for m in metrics}
    )
    return pd.DataFrame(rows)


def _always(panel: Panel, contrast: str, metric: str) -> str:
    share = float(np.mean(~panel.positive[panel.rows(contrast)]))
    fixed = {"accuracy": share, "balanced_accuracy": 0.5, "sensitivity": 0, "specificity": 1}
    fixed |= {"f1": 0, "kappa": 0, "auroc": 0.5, "auprc": 1 - share, "brier": 1 - share}
    return number(fixed.get(metric, 1 - share))


def by_contrast(panel: Panel, metric: str = "auroc") -> pd.DataFrame:
    """Return one row an arm, one column a contrast."""
    return pd.DataFrame(
        {"arm": label_of(arm)}
        | {CONTRASTS[c]: with_interval(panel.estimates(arm, c)[metric]) for c in CONTRASTS}
        for arm in panel.arms
    )


def heads(panel: Panel, contrast: str = "expressive") -> pd.DataFrame:
    """Return AUROC of each head of each student; a head that was not trained is "–"."""
    rows = []
    for arm in panel.students:
        found = {
            head: with_interval(panel.estimates(arm, contrast, head)["auroc"])
            for head in heads_of(panel, arm)
        }
        rows.append({"student": label_of(arm)} | {HEADS[h]: found.get(h, "–") for h in HEADS})
    return pd.DataFrame(rows, columns=["student", *HEADS.values()])


def differences(panel: Panel, contrast: str = "expressive") -> pd.DataFrame:
    """Return each comparison: differences in AUROC and balanced accuracy, McNemar's p."""
    rows = []
    for _, first, second in comparisons(panel):
        auroc, balanced = (
            panel.difference(first, second, contrast, m) for m in ("auroc", "balanced_accuracy")
        )
        rows.append(
            {
                "difference": f"{label_of(first)} **minus** {label_of(second)}",
                "AUROC": with_interval(auroc, signed),
                "balanced accuracy": with_interval(balanced, signed),
                "draws above 0 (AUROC)": percent(auroc.share_above_zero),
            }
        )
    return pd.DataFrame(rows)


def mcnemar(study: Study, contrast: str = "expressive") -> pd.DataFrame:
    """Return McNemar's exact test of each comparison, one row a seed."""
    table = study.tables["mcnemar"].query("contrast == @contrast")
    return pd.DataFrame(
        {
            "first": table["first"].map(label_of),
            "second": table["second"].map(label_of),
            "seed": table["seed"],
            "only first right": table["only_first"],
            "only second right": table["only_second"],
            "p": table["p"].map(lambda p: "< 0.001" if p < 0.001 else number(p, 3)),
        }
    )


def convergence(study: Study) -> pd.DataFrame:
    """Return one row an arm: epochs to 95 % of the best validation AUROC, each seed."""
    rows = []
    for arm, table in study.tables["convergence"].groupby("arm", sort=False):
        rows.append(
            {
                "arm": label_of(arm),
                "epochs to 95 % of the best": _each(table["epochs_to_95_percent"], 0),
                "best epoch": _each(table["best_epoch"], 0),
                "epochs trained": _each(table["epochs"].drop_duplicates(), 0),
                "best validation AUROC": _each(table["best_validation_auroc"], 2),
            }
        )
    return pd.DataFrame(rows)


def cost(study: Study) -> pd.DataFrame:
    """Return one row an arm: size, compute and time (the mean over seeds)."""
    rows = []
    for arm, table in study.tables["cost"].groupby("arm", sort=False):
        mean = table.mean(numeric_only=True)
        rows.append(
            {
                "arm": label_of(arm),
                "parameters (M)": number(mean["parameters"] / 1e6, 1),
                "MACs (G)": number(mean["macs"] / 1e9, 2),
                "training (min)": number(mean["train_seconds"] / 60, 1),
                "training images/s": number(mean["images_per_second"], 0),
                "one image (ms)": number(mean["latency_ms"], 1),
            }
        )
    return pd.DataFrame(rows)


def _each(values: pd.Series, digits: int) -> str:
    return ", ".join(number(value, digits) for value in values)


def caption(panel: Panel, contrast: str) -> str:
    """Return which faces a table is about, in a few words."""
    rows = panel.rows(contrast)
    pain = int(panel.positive[rows].sum())
    people = plural(panel.faces["identity"][rows].nunique(), "identity")
    return (
        f"{CONTRASTS[contrast]}: {pain} Pain and {int(rows.sum()) - pain} other faces of {people}."
    )
