"""Whether the tables of a release are of its runs: what they say, computed anew.

Nothing here uses what made the tables: AUROC is scikit-learn's, from predictions.csv.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from helpers.files import read_csv, sha256
from helpers.metrics import CONTRASTS, PRIMARY
from helpers.release.runs import DAMAGE, Release, ablation_of, first_line
from helpers.training.runs import Run

_TOLERANCE = 1e-9  # of a number that is computed anew


def results_faults(release: Release) -> list[str]:
    """Compare the tables with the runs, and return a sentence on each difference.

    Compared are every arm and seed of seeds.csv, their means in metrics.csv, those of
    the ablations in ablations.csv, and the hashes of predictions that other tables were made from.
    """
    try:
        seeds, means = (read_csv(release.results / f"{n}.csv") for n in ("seeds", "metrics"))
        found = seeds[seeds["metric"] == "auroc"].set_index(["arm", "seed", "contrast"])["estimate"]
        expected = pd.Series(dict(_aurocs(release.study))).rename_axis(found.index.names)
        faults = _compared("seeds.csv", found, expected)
        rows = means[means["metric"] == "auroc"].set_index(["arm", "contrast"])["estimate"]
        mean = expected.groupby(["arm", "contrast"]).mean()
        faults += _compared("metrics.csv", rows, mean)
        return faults + _ablation_faults(release) + _kept_faults(release)
    except DAMAGE as error:
        return [f"The tables of results/{release.name} cannot be read: {first_line(error)}"]


def _aurocs(runs: Mapping[str, Run]) -> Iterator[tuple[tuple, float]]:
    for run in runs.values():
        test = run.predictions[run.predictions["split"] == "test"]
        pain = test["label"] == "Pain"
        for contrast in CONTRASTS:
            side = {"neutral": "left", "expressive": "right"}.get(contrast)
            rows = pain | (test["side"] == side) if side else pain | True
            value = np.nan
            if pain.any() and not pain[rows].all():
                value = roc_auc_score(pain[rows], test["probability"][rows])
            yield (run.name, run.seed, contrast), float(value)


def _compared(table: str, found: pd.Series, expected: pd.Series) -> list[str]:
    faults = []
    for key in sorted(set(found.index) ^ set(expected.index)):
        where = "runs" if key in set(found.index) else table
        faults.append(f"{table}: the AUROC of {_words(key)} is not in the {where}.")
    for key in expected.index.intersection(found.index):
        if not np.isclose(found[key], expected[key], rtol=0, atol=_TOLERANCE, equal_nan=True):
            faults.append(
                f"{table}: the AUROC of {_words(key)} is {found[key]:.6f}, and the predictions "
                f"give {expected[key]:.6f}."
            )
    return faults


def _words(key: Iterable) -> str:
    return ", ".join(str(part) for part in key)


def _ablation_faults(release: Release) -> list[str]:
    """Compare the AUROC of each ablation's students, the mean over its seeds."""
    path = release.results / "ablations.csv"
    if not path.is_file():
        return []
    table = read_csv(path)
    rows = table[(table["kind"] == "arm") & (table["ablation"] != "study")]
    values = [
        (ablation_of(key), run.name, dict(_aurocs({key: run}))[run.name, run.seed, PRIMARY])
        for key, run in release.runs.items()
        if ablation_of(key) and run.stage == "student"
    ]
    expected = pd.DataFrame(values, columns=["ablation", "first", "estimate"])
    index = ["ablation", "first"]
    means = expected.groupby(index)["estimate"].mean()
    return _compared("ablations.csv", rows.set_index(index)["estimate"], means)


def _kept_faults(release: Release) -> list[str]:
    """Compare the hashes of predictions beside tables that only weights can give; see `kept`."""
    known = {
        f"{run.name}/seed{run.seed}": sha256(run.folder / "predictions.csv")
        for run in release.study.values()
    }
    return [
        f"{path.name}: its table was made from other predictions."
        for path in sorted(release.results.glob("*.json"))
        for made in [json.loads(path.read_text(encoding="utf-8"))]
        if isinstance(made, dict)
        and any(known.get(key) != digest for key, digest in made.items() if "/seed" in key)
    ]
