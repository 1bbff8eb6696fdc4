"""What notebooks 03 and 04 do: train a teacher, distil a student; also without Jupyter."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.devices import pick_device, set_determinism
from helpers.files import project_path, sha256, short_path
from helpers.networks.models import (
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
from helpers.training.engine import Trainer, auroc, predict
from helpers.training.faces import FaceStore, load_faces
from helpers.training.gate import pass_gate, reading
from helpers.training.losses import TEMPERATURE
from helpers.training.low_precision import settle_precision
from helpers.training.replay import recorded_teacher
from helpers.training.runs import Run, finished_run, provenance, write_run
from helpers.training.teachers import (
    FOLDS,
    FoldTeachers,
    FrozenTeacher,
    ShuffledTeacher,
    Teacher,
    fold_of,
    read_teacher,
)

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
        StudyError: for an unknown student, a teacher's folder that holds no such teacher, or a
            teacher that is not shown to beat chance on validation (see `gate`; unless
            `allow_weak_teacher`).
    """
    faces = load_faces(parameters.crops_dir, parameters.image_size)
    chosen = _chosen(
        parameters, "student", "teacher", "teacher_labels", epochs=parameters.student_epochs
    )
    alone = "none" in (parameters.teacher, parameters.distillation)
    chosen["distillation"] = "none" if alone else parameters.distillation
    if chosen["distillation"] == "soft":
        chosen["temperature"] = parameters.temperature
    name = f"{parameters.student}-{parameters.teacher}"
    params = {"stage": "student", "name": name, "parameters": chosen}
    params |= {"crops_dir": parameters.crops_dir, "crops_sha256": faces.manifest_sha256}
    if not alone:
        teacher_run = read_teacher(parameters)
        pass_gate(teacher_run, parameters.allow_weak_teacher)
        params["teacher_dir"] = short_path(teacher_run.folder)
        params["teacher_sha256"] = sha256(teacher_run.folder / "model.safetensors")
    if run := finished_run(run_dir, params):
        return run
    teacher = None
    if not alone:
        teacher, readings = make_teacher(parameters, teacher_run, faces)
        params |= {"allow_weak_teacher": parameters.allow_weak_teacher, "teachers": readings}
    device = _begin(parameters)
    model, start = build_student(parameters.student, parameters.init, parameters.image_size)
    params["initialisation"] = start
    return _run(model, faces, chosen, run_dir, params, device, teacher=teacher)


def make_teacher(
    parameters: SimpleNamespace, teacher_run: Run, faces: FaceStore
) -> tuple[Teacher, list[dict]]:
    """Return who answers for the teacher, by `teacher_labels`, and the gate's reading of each.

    Raises `StudyError` where one of them does not pass the gate.
    """
    device = pick_device(parameters.device)
    runs = [teacher_run]
    if parameters.teacher_labels == "out_of_fold":
        runs = train_fold_teachers(parameters, teacher_run)
    readings = [pass_gate(run, parameters.allow_weak_teacher) for run in runs]
    if parameters.teacher_labels in ("online", "replayed"):
        replay = parameters.teacher_labels == "replayed"
        teacher, report = recorded_teacher(teacher_run, faces, parameters, device, replay)
        return teacher, [readings[0] | {"arithmetic": report}]
    frozen = []
    for place, run in enumerate(runs):
        dtype, report = settle_precision(run, faces, device)
        frozen.append(FrozenTeacher(run, device).use(dtype, report["margin"]))
        readings[place] = readings[place] | {"arithmetic": report}
    if parameters.teacher_labels == "out_of_fold":
        return FoldTeachers(frozen, fold_of(faces)), readings
    return ShuffledTeacher(frozen[0], parameters.seed), readings


def train_fold_teachers(parameters: SimpleNamespace, teacher_run: Run) -> list[Run]:
    """Train `FOLDS` teachers by the teacher's recipe, each without one fold of the training set.

    A teacher that has fitted its training set hands back the labels; with these every training
    face is labelled by one that never saw the person. They lie beside the teacher, in `fold<k>/`.
    """
    recipe = dict(teacher_run.params["parameters"])
    recipe |= {"teacher_epochs": recipe["epochs"], "crops_dir": parameters.crops_dir}
    recipe |= {"device": parameters.device}
    return [
        _train_teacher(SimpleNamespace(**recipe), teacher_run.folder / f"fold{fold}", fold)
        for fold in range(FOLDS)
    ]


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
        temperature=chosen.get("temperature", TEMPERATURE),
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
        "weights_sha256": sha256(folder / "model.safetensors"),
    }
    for split in ("validation", "test"):
        rows = np.flatnonzero(faces.table["split"] == split)
        labels, scores = faces.labels[rows], decision[rows]
        accuracy = ((scores > 0).float() == labels).float().mean().item()
        metrics[split] = {"accuracy": accuracy, "auroc": auroc(labels, scores)}
    metrics["validation"] = reading(predictions) | metrics["validation"]
    if "teachers" in params:
        metrics["validation"]["teachers"] = params["teachers"]
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
