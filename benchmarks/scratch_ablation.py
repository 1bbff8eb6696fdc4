"""What decides whether a Transformer from scratch leaves the base-rate plateau: one change a run.

DeiT-Ti without a teacher and Swin-T start from random weights with the recipe of a config file, and
again with one thing changed: batch, step size, warm-up, clipping, normalisation or augmentation.
The number of epochs stays, so another batch size means another number of steps.

    python benchmarks/scratch_ablation.py --epochs 20 --seeds 0 1

A call that was broken off is taken up where it was; finished runs are read, not repeated.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import torch
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.files import project_path, write_csv
from helpers.parameters import read_config
from helpers.training import augment, feed
from helpers.training.experiments import distil_student, train_teacher
from helpers.training.faces import FaceStore, load_faces
from helpers.training.runs import Run

MODELS = ("deit_tiny", "swin")
# The validation AUROC that a model at the base rate does not reach by luck.
OFF_PLATEAU = 0.7
_WHOLE = {
    "CROP_SCALE": (1.0, 1.0),
    "CROP_RATIO": (1.0, 1.0),
    "ROTATION_DEGREES": 0.0,
    "JITTER": 0.0,
}
# torchvision's defaults for the crop, and the jitter of most ImageNet recipes.
_STRONG = {"CROP_SCALE": (0.08, 1.0), "CROP_RATIO": (3 / 4, 4 / 3), "JITTER": 0.4}
AUGMENTATIONS = {"none": _WHOLE, "flip": _WHOLE, "strong": _STRONG}


@dataclass(frozen=True)
class Change:
    """One departure from the recipe.

    Attributes:
        factor: what is changed; `none` for the recipe as it is.
        value: to what.
        recipe: the parameters that say so; empty where it is no parameter.
    """

    factor: str
    value: str
    recipe: tuple[tuple[str, object], ...] = ()


def changes(config: dict, epochs: int) -> list[Change]:
    """Return the recipe as it is, and every single departure from it.

    `config`: the recipe, as a config file holds it.
    """
    batch, rate = config["batch_size"], config["learning_rate"]
    # A constant step size: the first fall of the schedule `step` comes after the last epoch.
    constant = (("schedule", "step"), ("lr_step", epochs + 1))
    return [
        Change("none", "the recipe"),
        *(
            Change("batch_size", str(size), (("batch_size", size),))
            for size in (batch // 2, 2 * batch, 4 * batch)
        ),
        *(
            Change("learning_rate", f"{value:.3g}", (("learning_rate", value),))
            for value in (rate / 10, rate / 3, 3 * rate)
        ),
        Change("warm_up", "none, constant step", constant),
        Change("clip_norm", "none", (("clip_norm", None),)),
        Change("normalisation", "training set"),
        *(Change("augmentation", name) for name in AUGMENTATIONS),
    ]


@contextlib.contextmanager
def applied(change: Change, faces: FaceStore) -> Iterator[None]:
    """Apply what a change means that is no parameter: other normalisation, other augmentation."""
    with contextlib.ExitStack() as stack:
        if change.factor == "normalisation":
            mean, std = channel_statistics(faces)
            stack.enter_context(patch.multiple(augment, IMAGENET_MEAN=mean, IMAGENET_STD=std))
        if change.factor == "augmentation":
            stack.enter_context(patch.multiple(augment, **AUGMENTATIONS[change.value]))
            if change.value == "none":
                stack.enter_context(patch.object(feed, "draw_views", unflipped_views))
        yield


def unflipped_views(count: int, seed: int, epoch: int) -> augment.Views:
    """Return `augment.draw_views` of which none is mirrored."""
    views = augment.draw_views(count, seed, epoch)
    views.flip.fill_(1)
    return views


def channel_statistics(faces: FaceStore) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over the training faces, in 0..1."""
    sums, squares, count = torch.zeros(3, dtype=torch.float64), 0.0, 0
    for rows in torch.from_numpy(faces.rows("train")).split(64):
        pixels = faces.images[rows].double() / 255
        sums = sums + pixels.sum((0, 2, 3))
        squares = squares + pixels.square().sum((0, 2, 3))
        count += pixels[:, 0].numel()
    mean = sums / count
    return tuple(mean.tolist()), tuple((squares / count - mean.square()).sqrt().tolist())


def train(
    model: str, change: Change, seed: int, recipe: dict, faces: FaceStore, folder: Path
) -> Run:
    """Train `model` from scratch with one change; a finished run in `folder` is read instead.

    `recipe`: the parameters of notebooks 03 and 04 with `crops_dir`.
    """
    parameters = SimpleNamespace(**(recipe | dict(change.recipe)), seed=seed, init="scratch")
    with applied(change, faces):
        if model == "swin":
            parameters.teacher = model
            return train_teacher(parameters, folder)
        parameters.teacher, parameters.teacher_dir, parameters.student = "none", "", model
        return distil_student(parameters, folder)


def as_row(model: str, change: Change, seed: int, run: Run) -> dict:
    """Return what a run came to, as a row of the table.

    `off_plateau_epoch`: the first with a validation AUROC of `OFF_PLATEAU` or more, empty where
    there is none.
    """
    history = run.history
    off = history.loc[history["validation_auroc"] >= OFF_PLATEAU, "epoch"]
    return {
        "model": model,
        "factor": change.factor,
        "value": change.value,
        "seed": seed,
        "epochs": len(history),
        "validation_auroc": run.metrics["validation"]["auroc"],
        "test_auroc": run.metrics["test"]["auroc"],
        "off_plateau_epoch": off.iloc[0] if len(off) else None,
        "train_loss": history["train_loss"].iloc[-1],
        "seconds": run.metrics["train_seconds"],
    }


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train by the command line's arguments, write the table after every run, and return it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="config/standin.yaml", help="whose recipe")
    parser.add_argument("--crops-dir", default="data/crops/quick")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--factors", nargs="+", help="of those in the table; all without it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image-size", type=int, help="in pixels; the config's without it")
    parser.add_argument("--runs-dir", default="runs/scratch_ablation")
    parser.add_argument("--results-dir", default="results/benchmarks")
    given = parser.parse_args(arguments)
    config = read_config(given.config)
    recipe = config | {"crops_dir": given.crops_dir, "allow_weak_teacher": True}
    recipe |= {"teacher_epochs": given.epochs, "student_epochs": given.epochs}
    recipe["image_size"] = given.image_size or config["image_size"]
    del recipe["init"]
    wanted = changes(config, given.epochs)
    known = {change.factor for change in wanted}
    if unknown := set(given.factors or []) - known:
        raise StudyError(
            f"Unknown factor '{sorted(unknown)[0]}': choose from {', '.join(sorted(known))}."
        )
    if given.factors:
        wanted = [change for change in wanted if change.factor in {"none", *given.factors}]
    faces = load_faces(given.crops_dir, recipe["image_size"])
    rows = []
    jobs = [
        (seed, model, change) for seed in given.seeds for model in given.models for change in wanted
    ]
    for seed, model, change in tqdm(jobs, desc="Runs"):
        folder = project_path(given.runs_dir) / model / change.factor
        folder = folder / change.value.replace(" ", "_").replace(",", "") / f"seed{seed}"
        run = train(model, change, seed, recipe, faces, folder)
        rows.append(as_row(model, change, seed, run))
        write_csv(project_path(given.results_dir) / "scratch_ablation.csv", pd.DataFrame(rows))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    return table


if __name__ == "__main__":
    try:
        main()
    except StudyError as error:
        sys.exit(str(error))
