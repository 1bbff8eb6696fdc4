"""What notebooks 03 and 04 do: train a teacher, distil a student; also without Jupyter."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.devices import autocast, pick_device, precision, set_determinism
from helpers.engine import Trainer, auroc, predict
from helpers.errors import StudyError
from helpers.faces import FaceStore, load_faces
from helpers.files import project_path, sha256, short_path
from helpers.models import (
    CLASS,
    DISTILLATION,
    build_student,
    build_teacher,
    count_macs,
    count_parameters,
    decision_logits,
    head_logits,
)
from helpers.parameters import RECIPE
from helpers.runs import Run, finished_run, provenance, read_run, write_run

FOLDS = 3
_LATENCY_PASSES = 20


def train_teacher(parameters: SimpleNamespace, run_dir: str | Path) -> Run:
    """Fine-tune a teacher and write its run folder; a finished one is read instead.

    Args:
        parameters: those of notebook 03 (`crops_dir`, `teacher`, `seed`, `teacher_epochs`, the
            recipe).
        run_dir: the run folder, resumed from its last checkpoint where it holds one.

    Raises:
        StudyError: for an unknown teacher, crops that are not there, weights that cannot be had.
    """
    return _train_teacher(parameters, run_dir, fold=None)


def _train_teacher(parameters: SimpleNamespace, run_dir: str | Path, fold: int | None) -> Run:
    faces = load_faces(parameters.crops_dir, parameters.image_size)
    chosen = _chosen(parameters, "teacher", epochs=parameters.teacher_epochs)
    if fold is not None:
        chosen |= {"fold": fold, "folds": FOLDS}
    name = parameters.teacher
    params = {"stage": "teacher", "name": name, "parameters": chosen}
    params |= {"crops_dir": parameters.crops_dir, "crops_sha256": faces.manifest_sha256}
    if run := finished_run(run_dir, params):
        return run
    rows = faces.rows("train")
    if fold is not None:
        rows = rows[fold_of(faces)[rows] != fold]
    device = _begin(parameters)
    model, start = build_teacher(name, parameters.init, parameters.image_size)
    params["initialisation"] = start
    return _run(model, faces, chosen, run_dir, params, device, train_rows=rows)


def distil_student(parameters: SimpleNamespace, run_dir: str | Path) -> Run:
    """Distil a student from a finished teacher, or train it alone, and write its run folder.

    With `teacher` = `none`, or `distillation` = `none`, it is the same student by the same code
    and no teacher is read. A finished run with the same parameters is read instead.

    Args:
        parameters: those of notebook 04.
        run_dir: the run folder, resumed from its last checkpoint where it holds one.

    Raises:
        StudyError: for an unknown student, or a teacher's folder that holds no such teacher.
    """
    faces = load_faces(parameters.crops_dir, parameters.image_size)
    chosen = _chosen(
        parameters, "student", "teacher", "teacher_labels", epochs=parameters.student_epochs
    )
    alone = "none" in (parameters.teacher, parameters.distillation)
    chosen["distillation"] = "none" if alone else parameters.distillation
    name = f"{parameters.student}-{parameters.teacher}"
    params = {"stage": "student", "name": name, "parameters": chosen}
    params |= {"crops_dir": parameters.crops_dir, "crops_sha256": faces.manifest_sha256}
    if not alone:
        teacher_run = read_teacher(parameters)
        params["teacher_dir"] = short_path(teacher_run.folder)
        params["teacher_sha256"] = sha256(teacher_run.folder / "model.safetensors")
    if run := finished_run(run_dir, params):
        return run
    teacher = None
    if not alone and parameters.teacher_labels == "online":
        teacher = FrozenTeacher(teacher_run, pick_device(parameters.device))
    elif not alone:
        teacher = out_of_fold_teacher(parameters, teacher_run, faces)
    device = _begin(parameters)
    model, start = build_student(parameters.student, parameters.init, parameters.image_size)
    params["initialisation"] = start
    return _run(model, faces, chosen, run_dir, params, device, teacher=teacher)


def read_teacher(parameters: SimpleNamespace) -> Run:
    """Read the run in `teacher_dir`; raise `StudyError` where it is not that teacher's."""
    run = read_run(parameters.teacher_dir)
    folder = short_path(run.folder)
    if (run.stage, run.name) != ("teacher", parameters.teacher):
        raise StudyError(
            f"The run folder {folder} holds the {run.stage} {run.name}, not the teacher "
            f"{parameters.teacher}."
        )
    if not (run.folder / "model.safetensors").is_file():
        raise StudyError(f"The run folder {folder} lacks model.safetensors.")
    trained_at = run.params["parameters"]["image_size"]
    if trained_at != parameters.image_size:
        raise StudyError(
            f"The teacher in {folder} was trained at {trained_at} pixels and the student's "
            f"image_size is {parameters.image_size}: both must see the same view."
        )
    return run


class FrozenTeacher:
    """A trained teacher that never changes: evaluation mode, no gradients.

    Args:
        run: its finished run.
        device: where it answers.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        chosen = run.params["parameters"]
        self.model, _ = build_teacher(run.name, "scratch", chosen["image_size"])
        self.model.load_state_dict(load_file(run.folder / "model.safetensors"))
        self.model.to(device).eval().requires_grad_(False)
        self.device, self.dtype = device, precision(device, chosen["amp"])

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views; `rows` is not needed here."""
        with torch.no_grad(), autocast(self.device, self.dtype):
            return head_logits(self.model, images)[:, 0].float()


class FoldTeachers:
    """Teachers of which each answers for the faces that it was not trained on."""

    def __init__(self, teachers: list[FrozenTeacher], folds: np.ndarray) -> None:
        self.teachers, self.folds = teachers, folds

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`."""
        logits = torch.empty(len(rows), device=images.device)
        for fold, teacher in enumerate(self.teachers):
            mine = torch.from_numpy(self.folds[rows] == fold).to(images.device)
            if mine.any():
                logits[mine] = teacher(images[mine], rows)
        return logits


def out_of_fold_teacher(
    parameters: SimpleNamespace, teacher_run: Run, faces: FaceStore
) -> FoldTeachers:
    """Train `FOLDS` teachers by the teacher's recipe, each without one fold of the training set.

    A teacher that has fitted its training set hands back the labels; here every training face is
    labelled by a teacher that never saw the person. They lie beside the teacher, in `fold<k>/`.
    """
    recipe = dict(teacher_run.params["parameters"])
    recipe |= {"teacher_epochs": recipe["epochs"], "crops_dir": parameters.crops_dir}
    recipe |= {"device": parameters.device}
    runs = [
        _train_teacher(SimpleNamespace(**recipe), teacher_run.folder / f"fold{fold}", fold)
        for fold in range(FOLDS)
    ]
    device = pick_device(parameters.device)
    return FoldTeachers([FrozenTeacher(run, device) for run in runs], fold_of(faces))


def fold_of(faces: FaceStore) -> np.ndarray:
    """Return the fold of every face, (N,): training identities dealt out in turn, others -1."""
    train = (faces.table["split"] == "train").to_numpy()
    folds = np.full(len(faces.table), -1)
    folds[train] = pd.factorize(faces.table.loc[train, "identity"], sort=True)[0] % FOLDS
    return folds


def _chosen(parameters: SimpleNamespace, *names: str, epochs: int) -> dict:
    """The parameters that decide a run's result; folders and the device do not."""
    recipe = [name for name in RECIPE if name != "device"]
    return {name: getattr(parameters, name) for name in (*names, "seed", *recipe)} | {
        "epochs": epochs
    }


def _begin(parameters: SimpleNamespace) -> torch.device:
    set_determinism(parameters.seed, parameters.deterministic)
    return pick_device(parameters.device)


def _run(
    model: nn.Module,
    faces: FaceStore,
    chosen: dict,
    run_dir: str | Path,
    params: dict,
    device: torch.device,
    **options: object,
) -> Run:
    folder = project_path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # An old result must not stand beside a run that is under way.
    (folder / "metrics.json").unlink(missing_ok=True)
    model.to(device, memory_format=torch.channels_last)
    trainer = Trainer(
        model=model,
        faces=faces,
        recipe=SimpleNamespace(**chosen),
        epochs=chosen["epochs"],
        folder=folder,
        params=params,
        distillation=chosen.get("distillation", "hard"),
        **options,
    )
    params |= {"precision": str(trainer.dtype).removeprefix("torch.")} | provenance(device)
    history = trainer.fit()
    logits = predict(model, faces.images, chosen["image_size"], trainer.dtype)
    distilled = trainer.teacher is not None
    predictions = tabulate_predictions(faces, logits, distilled)
    decision = decision_logits(logits, distilled)
    metrics = {
        "best_epoch": trainer.best_epoch,
        "epochs": len(history),
        "train_seconds": float(history["seconds"].sum()),
        "images_per_second": float(history["images_per_second"].median()),
        "parameters": count_parameters(model),
        "macs": count_macs(model, chosen["image_size"]),
        "latency_ms": latency(model, chosen["image_size"]),
        "image_size": chosen["image_size"],
    }
    for split in ("validation", "test"):
        rows = np.flatnonzero(faces.table["split"] == split)
        labels, scores = faces.labels[rows], decision[rows]
        accuracy = ((scores > 0).float() == labels).float().mean().item()
        metrics[split] = {"accuracy": accuracy, "auroc": auroc(labels, scores)}
    return write_run(folder, params, history, predictions, metrics)


def tabulate_predictions(faces: FaceStore, logits: torch.Tensor, distilled: bool) -> pd.DataFrame:
    """Return P(pain) of every face by the decision and by each trained head.

    `logits` is (N, heads). A teacher's one head is the decision itself; the distillation head of
    a student without a teacher was never trained, so its column stays empty.
    """
    table = faces.table[["image_id", "identity", "side", "split", "label"]].copy()
    table["probability"] = decision_logits(logits, distilled).sigmoid().numpy()
    student = logits.shape[1] == 2
    table["probability_class"] = logits[:, CLASS].sigmoid().numpy() if student else np.nan
    table["probability_distillation"] = (
        logits[:, DISTILLATION].sigmoid().numpy() if distilled else np.nan
    )
    return table


def latency(model: nn.Module, image_size: int) -> float:
    """Return the median time in milliseconds of one image's forward pass in float32."""
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    times = []
    model.eval()
    with torch.inference_mode():
        for _ in range(_LATENCY_PASSES + 3):
            begin = time.perf_counter()
            head_logits(model, image)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return float(np.median(times[3:]) * 1000)
