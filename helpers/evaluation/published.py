"""Runs that are committed: all that the report needs of them, without weights and checkpoints."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from helpers.files import RUN_FILES, existing_folder, project_path, replacing

SHOWN = RUN_FILES[:-1]  # all but the weights


def publish(runs: Iterable[str], runs_dir: str | Path, results_dir: str | Path) -> Path:
    """Copy the files of `runs` that a reader needs to `<results_dir>/runs`, and return that.

    Args:
        runs: the folders below `runs_dir`, e.g. `teacher/swin/seed0`.
        runs_dir: where they were made.
        results_dir: what is committed.

    Raises:
        StudyError: where a run is missing.
    """
    out = project_path(results_dir) / "runs"
    for run in runs:
        folder = existing_folder(project_path(runs_dir) / run, "a run")
        for name in SHOWN:
            with replacing(out / run / name) as temporary:
                shutil.copyfile(folder / name, temporary)
    return out


def is_published(runs: Iterable[str], results_dir: str | Path) -> bool:
    """Return whether every one of `runs` lies below `<results_dir>/runs`."""
    out = project_path(results_dir) / "runs"
    return all((out / run / name).is_file() for run in runs for name in SHOWN)
