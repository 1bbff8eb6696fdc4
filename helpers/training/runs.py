"""The folder of a run: what it holds, how it is written, when it counts as finished."""

import json
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from helpers.errors import StudyError
from helpers.files import ROOT, RUN_FILES, project_path, read_csv, short_path, write_csv, write_json
from helpers.training.checkpoints import durable, sync_folder

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "scikit-learn")


@dataclass
class Run:
    """A finished run, as read from its folder.

    Attributes:
        folder: where it lies.
        params: what was run, with what versions and on what device.
        history: one row an epoch.
        predictions: one row a face.
        metrics: accuracy, AUROC and cost.
    """

    folder: Path
    params: dict
    history: pd.DataFrame
    predictions: pd.DataFrame
    metrics: dict

    @property
    def stage(self) -> str:
        """`teacher` or `student`."""
        return self.params["stage"]

    @property
    def name(self) -> str:
        """The arm: `resnet50`, or `deit_tiny-resnet50`."""
        return self.params["name"]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.params["parameters"]["seed"]


def read_run(folder: str | Path) -> Run:
    """Read a finished run; raise `StudyError` naming the folder or the file that is missing."""
    folder = project_path(folder)
    if not folder.is_dir():
        raise StudyError(f"The run folder {short_path(folder)} does not exist.")
    for name in RUN_FILES[:-1]:
        if not (folder / name).is_file():
            raise StudyError(f"The run folder {short_path(folder)} lacks {name}.")
    return Run(
        folder=folder,
        params=_read_json(folder / "params.json"),
        history=pd.read_csv(folder / "history.csv"),
        predictions=read_csv(folder / "predictions.csv"),
        metrics=_read_json(folder / "metrics.json"),
    )


def finished_run(folder: str | Path, params: dict) -> Run | None:
    """Return the run in `folder` if it is complete and was made with the same `params`.

    Compared are the entries of `params` that decide the result (see `identity_of`), not the
    machine, the versions or the commit.
    """
    folder = project_path(folder)
    if not all((folder / name).is_file() for name in RUN_FILES):
        return None
    run = read_run(folder)
    return run if identity_of(run.params) == identity_of(params) else None


def identity_of(params: dict) -> dict:
    """Return the entries of a run's params that decide its result, as they read back from JSON."""
    decisive = ("stage", "name", "parameters", "crops_sha256", "teacher_sha256")
    return json.loads(json.dumps({key: params.get(key) for key in decisive}))


def write_run(
    folder: Path, params: dict, history: pd.DataFrame, predictions: pd.DataFrame, metrics: dict
) -> Run:
    """Write all but the weights, `metrics.json` last: where it is, the rest is.

    Raises `StudyError` where the disk is full.
    """
    _write(folder / "params.json", params)
    _write(folder / "history.csv", history)
    _write(folder / "predictions.csv", predictions)
    _write(folder / "metrics.json", metrics)
    sync_folder(folder)
    return read_run(folder)


def _write(path: Path, content: dict | pd.DataFrame) -> None:
    with durable(path) as temporary:
        if isinstance(content, dict):
            write_json(temporary, content)
        else:
            write_csv(temporary, content)


def provenance(device: torch.device) -> dict:
    """Return what a reader needs to know of the machine, the versions and the code."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": f"{device.type} ({name}, {torch.get_num_threads()} threads)",
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "git_commit": git_commit(),
    }


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_commit() -> str:
    """Return the checked-out commit, with `+` where the helpers differ from it, or `unknown`."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "helpers") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"The file {short_path(path)} is not JSON: {error}.") from error
