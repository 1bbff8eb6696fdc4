"""Tables that only trained weights can give, kept beside the results and made once.

So the report can be made anew where the weights are not, from what is committed.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from helpers.files import project_path, read_csv, sha256, write_csv, write_json
from helpers.training.runs import Run

VERSION = "version"


def kept_table(
    path: str | Path,
    runs: Sequence[Run],
    make: Callable[[], pd.DataFrame],
    version: int | None = None,
) -> pd.DataFrame | None:
    """Return the table at `path` where it was made from `runs`, else what `make` returns.

    Which runs it was made from is in a `.json` beside it: each run's name and seed, the hash of its
    `predictions.csv`, and where there is one the `version`. What is made is written, and read back,
    so that it is the same to the digit now and later. None where it would have to be made and a run
    lacks its weights.

    Args:
        path: `<name>.csv` or `<name>.csv.gz`.
        runs: the runs that it is about.
        make: makes it.
        version: of the way in which it is made; a table of another version counts for nothing.
    """
    path = project_path(path)
    about = path.with_name(path.name.partition(".")[0] + ".json")
    key = {f"{run.name}/seed{run.seed}": sha256(run.folder / "predictions.csv") for run in runs}
    if version is not None:
        key[VERSION] = version
    if not (path.is_file() and about.is_file() and json.loads(about.read_text()) == key):
        if not all((run.folder / "model.safetensors").is_file() for run in runs):
            return None
        write_csv(path, make())
        write_json(about, key)
    return read_csv(path)
