"""The tables of the comparison, each tidy (one row a number) and written as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate
from helpers.evaluation.compare import HEADS, Panel, counts, make_panel, own_teacher
from helpers.evaluation.subgroups import gap_between_groups, subgroup_table
from helpers.figures import teacher_of
from helpers.files import project_path, write_csv
from helpers.metrics import CONTRASTS, METRICS, THRESHOLD, mcnemar
from helpers.parameters import STUDENTS, TEACHERS
from helpers.training.runs import Run

CONVERGED = 0.95


@dataclass(frozen=True)
class Study:
    """Everything that notebook 05 shows: the runs, their test and train faces, the tables."""

    runs: list[Run]
    test: Panel
    train: Panel
    tables: dict[str, pd.DataFrame]


def evaluate(runs: Sequence[Run], samples: int, seed: int) -> Study:
    """Build every table from the runs; `samples` and `seed` are the bootstrap's."""
    test = make_panel(runs, samples, seed)
    train = make_panel(runs, 1, seed, split="train")
    tables = {
        "metrics": metric_table(test),
        "seeds": seed_table(test),
        "heads": head_table(test),
        "differences": difference_table(test),
        "gap_closed": gap_table(test),
        "mcnemar": mcnemar_table(test),
        "fidelity": fidelity_table(test, train, runs),
        "disagreement": disagreement_table(test),
        "convergence": convergence_table(runs),
        "cost": cost_table(runs),
        "subgroups": subgroup_table(test),
        "subgroup_gaps": gap_between_groups(test),
        "test_predictions": prediction_table(test),
    }
    return Study(list(runs), test, train, tables)


def write_tables(study: Study, folder: str | Path) -> Path:
    """Write each table as `<name>.csv` into `folder`, and return the folder."""
    folder = project_path(folder)
    for name, table in study.tables.items():
        write_csv(folder / f"{name}.csv", table)
    return folder


def write_external(panel: Panel, folder: str | Path) -> None:
    """Write the metrics and the predictions on faces of another source, beside the others."""
    folder = project_path(folder)
    write_csv(folder / "external_metrics.csv", metric_table(panel))
    write_csv(folder / "external_predictions.csv", prediction_table(panel))


def metric_table(panel: Panel) -> pd.DataFrame:
    """Return every metric of every arm and contrast with its interval."""
    return pd.DataFrame(
        {"arm": arm, "contrast": contrast, "metric": metric}
        | estimate.row()
        | counts(panel, contrast)
        | {"seeds": len(estimate.seeds)}
        for arm in panel.arms
        for contrast in CONTRASTS
        for metric, estimate in panel.estimates(arm, contrast).items()
    )


def seed_table(panel: Panel) -> pd.DataFrame:
    """Return every metric of every arm, contrast and seed."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "contrast": contrast, "metric": metric, "estimate": value}
        for arm in panel.arms
        for contrast in CONTRASTS
        for metric, estimate in panel.estimates(arm, contrast).items()
        for seed, value in zip(panel.seeds[arm], estimate.seeds, strict=True)
    )


def head_table(panel: Panel) -> pd.DataFrame:
    """Return AUROC, balanced accuracy and F1 of each head of each student that has it."""
    rows = [
        {"arm": arm, "head": head, "contrast": contrast, "metric": metric}
        | panel.estimates(arm, contrast, head)[metric].row()
        for arm in panel.students
        for head in heads_of(panel, arm)
        for contrast in CONTRASTS
        for metric in ("auroc", "balanced_accuracy", "f1")
    ]
    columns = ["arm", "head", "contrast", "metric", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def heads_of(panel: Panel, arm: str) -> list[str]:
    """Return the heads of `arm` that were trained, the decision first."""
    return [head for head in HEADS if np.isfinite(panel.probabilities[arm][head]).all()]


def comparisons(panel: Panel) -> list[tuple[str, str, str]]:
    """Return (kind, first, second) for each pair of arms that the question is about.

    `gain`: a taught student and the same student without teacher. `taught`: two teachers' pupils,
    Swin's first. `teachers`: two teachers, Swin's first.
    """
    pairs = [(b, a) for a, b in combinations([t for t in TEACHERS if t in panel.arms], 2)]
    found = [("teachers", first, second) for first, second in pairs]
    for student in STUDENTS:
        taught = [t for t in TEACHERS if f"{student}-{t}" in panel.arms]
        if f"{student}-none" in panel.arms:
            found += [("gain", f"{student}-{t}", f"{student}-none") for t in taught]
        pairs = [(b, a) for a, b in combinations(taught, 2)]
        found += [
            ("taught", f"{student}-{first}", f"{student}-{second}") for first, second in pairs
        ]
    return found


def difference_table(panel: Panel) -> pd.DataFrame:
    """Return the paired difference of each of `comparisons`, every metric and contrast."""
    return pd.DataFrame(
        [
            {"kind": kind, "first": first, "second": second, "contrast": contrast, "metric": metric}
            | found.row()
            | {"share_above_zero": found.share_above_zero}
            for kind, first, second in comparisons(panel)
            for contrast in CONTRASTS
            for metric in METRICS
            for found in [panel.difference(first, second, contrast, metric)]
        ],
        columns="kind first second contrast metric estimate low high share_above_zero".split(),
    )


def gap_closed(panel: Panel, student: str, contrast: str, metric: str = "auroc") -> Estimate | None:
    """Return the share of the way from the untaught student to the teacher that `student` went.

    (student − untaught) / (teacher − untaught), draw by draw. None where the interval of the gap
    itself is not above 0: a share of nothing has no meaning.
    """
    untaught, teacher = f"{student.rpartition('-')[0]}-none", own_teacher(panel, student)
    gap = panel.difference(teacher, untaught, contrast, metric)
    if not gap.low > 0:
        return None
    return panel.difference(student, untaught, contrast, metric) / gap


def gap_table(panel: Panel) -> pd.DataFrame:
    """Return for each taught student the gap to its teacher and the share of it that it closed."""
    rows = []
    for kind, student, untaught in comparisons(panel):
        teacher = own_teacher(panel, student)
        if kind != "gain" or teacher is None:
            continue
        for contrast in CONTRASTS:
            gap = panel.difference(teacher, untaught, contrast, "auroc")
            share = gap_closed(panel, student, contrast)
            shown = share.row() if share else dict.fromkeys(("estimate", "low", "high"), np.nan)
            row = {"student": student, "teacher": teacher, "contrast": contrast, "metric": "auroc"}
            row |= {f"gap_{key}": value for key, value in gap.row().items()}
            rows.append(row | {f"share_{key}": value for key, value in shown.items()})
    keys = [f"{what}_{key}" for what in ("gap", "share") for key in ("estimate", "low", "high")]
    return pd.DataFrame(rows, columns=["student", "teacher", "contrast", "metric", *keys])


def mcnemar_table(panel: Panel) -> pd.DataFrame:
    """Return McNemar's exact test for each of `comparisons`, contrast and seed."""
    rows = []
    for kind, first, second in comparisons(panel):
        a, b = (panel.probabilities[arm]["probability"] for arm in (first, second))
        for contrast in CONTRASTS:
            mask = panel.rows(contrast)
            for i, j in panel.seed_pairs(first, second):
                row = {"kind": kind, "first": first, "second": second, "contrast": contrast}
                row |= {"seed": panel.seeds[first][i], "seed_of_second": panel.seeds[second][j]}
                rows.append(row | mcnemar(panel.positive[mask], a[i][mask], b[j][mask]))
    columns = "kind first second contrast seed seed_of_second only_first only_second p".split()
    return pd.DataFrame(rows, columns=columns)


def fidelity_table(test: Panel, train: Panel, runs: Sequence[Run]) -> pd.DataFrame:
    """Return how far each student decides as each teacher does, its own and the others.

    A student never taught by a teacher agrees with it too, wherever both are right: only the
    surplus of the own teacher's pupil speaks of transfer. `disagreement_seen`: the share of
    training views whose teacher label was not the true one (mean over epochs and seeds).
    """
    rows = []
    for student in test.students:
        seen = [run.history["teacher_disagreement"].mean() for run in runs if run.name == student]
        for teacher in test.teachers:
            found, own = test.agreement(teacher, student), teacher_of(student) == teacher
            row = {"student": student, "teacher": teacher, "own": own}
            for name, estimate in found.items():
                row |= {f"{name}_{key}": value for key, value in estimate.row().items()}
            row["train_agreement"] = train.agreement(teacher, student)["agreement"].value
            row["disagreement_seen"] = float(np.mean(seen)) if own else np.nan
            rows.append(row)
    keys = [f"{n}_{k}" for n in ("agreement", "kappa", "kl") for k in ("estimate", "low", "high")]
    columns = ["student", "teacher", "own", *keys, "train_agreement", "disagreement_seen"]
    return pd.DataFrame(rows, columns=columns)


def disagreement_table(panel: Panel) -> pd.DataFrame:
    """Return the share of test faces on which two deciders differ, labels among them.

    After the DeiT paper's disagreement table. The mean over matching seeds; an arm with itself:
    the mean over its pairs of seeds, NaN with one seed.
    """
    decisions = {arm: panel.probabilities[arm]["probability"] > THRESHOLD for arm in panel.arms}
    decisions["labels"] = panel.positive[None]
    rows = []
    for first, a in decisions.items():
        for second, b in decisions.items():
            if first == second:
                pairs = list(combinations(range(len(a)), 2))
            elif "labels" in (first, second):
                pairs = [(i, j) for i in range(len(a)) for j in range(len(b))]
            else:
                pairs = panel.seed_pairs(first, second)
            shares = [float(np.mean(a[i] != b[j])) for i, j in pairs]
            share = float(np.mean(shares)) if shares else np.nan
            rows.append({"first": first, "second": second, "disagreement": share})
    return pd.DataFrame(rows)


def epochs_to_converge(history: pd.DataFrame) -> float:
    """Return the first epoch whose validation AUROC is 95 % of the run's best or more, or NaN."""
    auroc = history["validation_auroc"]
    reached = history.loc[auroc >= CONVERGED * auroc.max(), "epoch"]
    return float(reached.iloc[0]) if len(reached) else np.nan


def convergence_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return for each run the epochs to 95 % of its best validation AUROC, and that best."""
    return pd.DataFrame(
        {
            "arm": run.name,
            "seed": run.seed,
            "epochs_to_95_percent": epochs_to_converge(run.history),
            "best_epoch": run.metrics["best_epoch"],
            "epochs": run.metrics["epochs"],
            "best_validation_auroc": run.history["validation_auroc"].max(),
        }
        for run in runs
    )


def cost_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what each run cost: parameters, MACs an image, seconds, images/s, ms an image."""
    names = "parameters macs train_seconds images_per_second latency_ms image_size".split()
    return pd.DataFrame(
        {"arm": run.name, "seed": run.seed, "device": run.params.get("device", "not recorded")}
        | {name: run.metrics[name] for name in names}
        for run in runs
    )


def prediction_table(panel: Panel) -> pd.DataFrame:
    """Return every prediction on the test faces, six digits: what all other tables rest on."""
    tables = [
        panel.faces.assign(
            arm=arm, seed=seed, **{name: panel.probabilities[arm][name][i] for name in HEADS}
        )
        for arm in panel.arms
        for i, seed in enumerate(panel.seeds[arm])
    ]
    return pd.concat(tables, ignore_index=True).round(6)
