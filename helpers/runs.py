"""The folder of a run: what it holds, what makes two runs the same, and many of them together.

`<runs_dir>/<stage>/<name>/seed<k>/` holds `RUN_FILES`. A run is decided by its parameters, the list
of faces with their labels and splits, the teacher's weights and the code of `DECISIVE_CODE`; all
four are in `params.json`. A *published* run is one without its weights: it is shown and never
trained again.
"""

import ast
import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import files, parameters
from helpers.files import ROOT, StudyError, project_path, read_json, short_path

WEIGHTS = "model.safetensors"
PUBLISHED_FILES = ("params.json", "history.csv", "predictions.csv", "metrics.json")
RUN_FILES = (*PUBLISHED_FILES, WEIGHTS)
FACE_COLUMNS = ["image_id", "identity", "side", "split", "label"]
HEADS = {"probability": "decision", "probability_class": "class head"}
HEADS |= {"probability_distillation": "distillation head"}
DECISIVE_CODE = ("models", "faces", "distil", "train")
_DECISIVE = {"name": "the arm", "teacher_sha256": "the teacher's weights"}
_DECISIVE |= {"faces_hash": "the faces", "code_hash": "the training code"}
_HISTORY = "epoch seconds images_per_second train_loss teacher_disagreement".split()
_HISTORY += "validation_loss validation_accuracy validation_auroc".split()
_METRICS = "epochs train_seconds images_per_second parameters macs image_size".split()
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas")


@dataclass
class Run:
    """A finished run, as read from its folder.

    `params`: what was run, with what versions and on what device. `history`: one row an epoch.
    `predictions`: one row a face. `metrics`: accuracy, AUROC and cost. `stage`: `teacher` or
    `student`. `name`: the arm, `resnet50` or `deit_tiny-resnet50`. `seed`: of the run.
    """

    folder: Path
    params: dict
    history: pd.DataFrame
    predictions: pd.DataFrame
    metrics: dict

    def __post_init__(self) -> None:
        self.stage, self.name = self.params["stage"], self.params["name"]
        self.seed = self.params["parameters"]["seed"]

    @property
    def published(self) -> bool:
        """Whether it is here without its weights."""
        return not (self.folder / WEIGHTS).is_file()


def read_run(folder: str | Path) -> Run:
    """Read a run; raise `StudyError` naming the folder, the file or the entry that is missing."""
    folder = files.existing_folder(folder, "a finished run")
    params, metrics = (read_json(folder / name) for name in ("params.json", "metrics.json"))
    history, predictions = (files.read_csv(folder / name) for name in PUBLISHED_FILES[1:3])
    for key in ("stage", "name", "parameters"):
        if key not in params:
            raise StudyError(f"The file {short_path(folder)}/params.json lacks '{key}'.")
    return Run(folder, params, history, predictions, metrics)


def write_run(
    folder: Path, params: dict, history: pd.DataFrame, predictions: pd.DataFrame, metrics: dict
) -> Run:
    """Write all but the weights, which are there, `metrics.json` last: where it is, the rest is."""
    files.write_csv(folder / "history.csv", history)
    files.write_csv(folder / "predictions.csv", predictions)
    files.write_json(folder / "params.json", params)
    files.write_json(folder / "metrics.json", metrics)
    return read_run(folder)


def weights_of(run: Run) -> Path:
    """Return the path of a run's weights; raise `StudyError` where they are missing."""
    if run.published:
        where = short_path(run.folder)
        raise StudyError(f"The run in {where} has no {WEIGHTS}: train it into another folder.")
    return run.folder / WEIGHTS


def params_of(given: Mapping) -> dict:
    """Return `stage`, `name` and the deciding `parameters` of a run.

    `given`: the parameters of notebook 03, or of 04 (with a `student`). Folders and the device
    decide nothing, nor do the words on a teacher that a student does not have.
    """
    names = ["teacher", "seed", *(name for name in parameters.RECIPE if name != "device")]
    chosen = {name: given[name] for name in names if name in given}  # an older run knows fewer
    if "student" not in given:
        chosen["epochs"] = given["teacher_epochs"]
        return {"stage": "teacher", "name": given["teacher"], "parameters": chosen}
    kind = "none" if given["teacher"] == "none" else given["distillation"]
    chosen |= {"student": given["student"], "epochs": given["student_epochs"], "distillation": kind}
    if kind != "none":
        chosen["teacher_labels"] = given["teacher_labels"]
    if kind == "soft":
        chosen["temperature"] = given["temperature"]
    name = f"{given['student']}-{given['teacher']}"
    return {"stage": "student", "name": name, "parameters": chosen}


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Return what decides a run and differs between two `params`, in words.

    "learning_rate 0.0001 → 0.001", "the faces". A parameter that one side does not know does not
    count, nor does an entry that `new` lacks.
    """
    before, after = old["parameters"], new["parameters"]
    changed = [key for key in after if key in before and before[key] != after[key]]
    found = [f"{key} {before[key]} → {after[key]}" for key in changed]
    decisive = [key for key in _DECISIVE if key in new and old.get(key) != new[key]]
    return found + [_DECISIVE[key] for key in decisive]


def finished_run(folder: str | Path, params: Mapping) -> Run | None:
    """Return the run in `folder` that was made with these `params`, None where there is none yet.

    A published run is shown whatever faces and code are here today. Raises `StudyError` where the
    run was made otherwise, see `differences`; with `FRESH=1` in the environment one that is not
    published is moved aside instead, to `<folder>.before-1`, and the answer is None. Crops that are
    the same faces in other bytes, as another processor makes them, are told of in a sentence.
    """
    folder = project_path(folder)
    if not (folder / "params.json").is_file():  # written last but one
        return None
    old, where = read_json(folder / "params.json"), short_path(folder)
    published = not (folder / WEIGHTS).is_file()
    known = {key: params[key] for key in ("name", "parameters")} if published else params
    if found := differences(old, known):
        names = (folder.with_name(f"{folder.name}.before-{number}") for number in count(1))
        aside = next(name for name in names if not name.exists())
        if published or os.environ.get("FRESH", "0") in ("", "0"):
            way = "" if published else f", or set FRESH=1, which moves it aside to {aside.name}"
            said = f"The run in {where} was made otherwise ({'; '.join(found)})"
            raise StudyError(f"{said}, and nothing is overwritten: give another out_dir{way}.")
        folder.rename(aside)
        return tqdm.write(f"The run in {where} was moved aside to {aside.name}.")
    crops = old.get("crops_sha256")
    if not published and crops != params.get("crops_sha256", crops):
        tqdm.write(f"The run in {where} was made on other bytes of the same crops.")
    return read_run(folder) if published or (folder / "metrics.json").is_file() else None


def refuse_other(folder: str | Path, given: Mapping) -> None:
    """Raise `StudyError`, or move the run aside, as `finished_run` would: before a job is planned.

    `given`: the parameters of notebook 03 or 04. Faces and teacher are not known yet.
    """
    finished_run(folder, params_of(given) | {"code_hash": code_hash()})


def faces_hash(table: pd.DataFrame) -> str:
    """Return a hash of the list of faces: `image_id`, `label` and `split`, in their order."""
    text = table[["image_id", "label", "split"]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def code_hash() -> str:
    """Return a hash of the code that decides a training; comments and docstrings do not count."""
    digest = hashlib.sha256()
    for name in DECISIVE_CODE:
        tree = ast.parse((ROOT / "helpers" / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if documented and ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()


def provenance(device: Any) -> dict:
    """Return what a reader needs to know of the machine (`device`: torch's), versions and code.

    The commit has a `+` where tracked files differ from it.
    """
    import torch

    words, commit = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"], ""
    if (ROOT / ".git").exists():  # else git would speak of a repository around this copy
        with suppress(OSError):  # no git here
            found = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
            commit = found.stdout.strip()
    name = f"{processor()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else name
    versions = {"python": platform.python_version()} | {one: version(one) for one in _PACKAGES}
    device = f"{device.type} ({name})"
    return {"device": device, "versions": versions, "git_commit": commit or "unknown"}


def processor() -> str:
    """Return the processor's name where Linux tells it; bits differ between Intel and AMD."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def arm_order() -> list[str]:
    """Return every possible arm: teachers, then each student alone and under each teacher."""
    teachers, students = get_args(parameters.Teacher), get_args(parameters.Student)
    return [*teachers, *(f"{s}-{t}" for s in students for t in ("none", *teachers))]


def load_runs(runs_dir: str | Path) -> list[Run]:
    """Read every run below `runs_dir` (`<stage>/<name>/seed<k>/`), in the order of the arms.

    Raises `StudyError` for a missing or empty folder, a folder without a run, a run folder that
    lacks a file, a file that lacks a column or holds an impossible value, and runs whose faces,
    labels or splits differ.
    """
    root = files.existing_folder(runs_dir, "run folders")
    found = (root.glob(f"{stage}/*/seed*") for stage in ("student", "teacher"))
    folders = sorted(folder for folder in chain(*found) if folder.name[4:].isdigit())
    runs = [check_run(read_run(folder)) for folder in folders]
    if not runs:
        raise StudyError(f"The folder {short_path(root)} holds no run (teacher/<name>/seed<k>/).")
    faces = [run.predictions[FACE_COLUMNS].sort_values("image_id").to_numpy() for run in runs]
    for run, seen in zip(runs, faces, strict=True):
        if not np.array_equal(seen, faces[0]):
            pair = f"{short_path(runs[0].folder)} and {short_path(run.folder)}"
            raise StudyError(f"The runs {pair} were made on different faces, labels or splits.")
    order = {name: place for place, name in enumerate(arm_order())}
    return sorted(runs, key=lambda run: (order.get(run.name, len(order)), run.name, run.seed))


def check_run(run: Run) -> Run:
    """Return `run`, or raise `StudyError` naming the file that lacks or misstates something."""
    where, faces = short_path(run.folder), run.predictions
    expected = [("metrics.json", run.metrics, _METRICS), ("history.csv", run.history, _HISTORY)]
    expected.append(("predictions.csv", faces, [*FACE_COLUMNS, *HEADS]))
    for name, content, keys in expected:
        if missing := [key for key in keys if key not in content]:
            raise StudyError(f"The file {where}/{name} lacks '{missing[0]}'.")
    wrong = {
        "no rows": faces.empty or run.history.empty,
        "a probability that is not in 0..1": not faces["probability"].between(0, 1).all(),
        "a label that is not Pain or NoPain": not faces["label"].isin(["Pain", "NoPain"]).all(),
        "a face twice": faces["image_id"].duplicated().any(),
        "an identity in two splits": (faces.groupby("identity")["split"].nunique() > 1).any(),
    }
    if found := [what for what, there in wrong.items() if there]:
        raise StudyError(f"The file {where}/predictions.csv holds {found[0]}.")
    return run


def kept(
    path: str | Path, runs: Sequence[Run], make: Callable | None, version: int | None = None
) -> pd.DataFrame | None:
    """Return the table at `path` where it was made from `runs`, else what `make` returns.

    So what only weights can tell is made once, and can be shown where the weights are not. A
    `.json` beside it names the runs with the hashes of their predictions, and the `version` of the
    way in which it is made. What is made is written and read back, so that it is the same to the
    digit now and later. None where it would have to be made and a run lacks its weights, or `make`
    is None.
    """
    path = project_path(path)
    about = path.with_name(path.name.partition(".")[0] + ".json")
    key = {f"{r.name}/seed{r.seed}": files.sha256(r.folder / "predictions.csv") for r in runs}
    key |= {} if version is None else {"version": version}
    if not (path.is_file() and about.is_file() and read_json(about) == key):
        if make is None or any(run.published for run in runs):
            return None
        files.write_csv(path, make())
        files.write_json(about, key)
    return files.read_csv(path)
