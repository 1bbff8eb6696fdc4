"""The ways to spend an epoch of hard distillation that `distillation_epoch.py` compares.

A DeiT-Ti learns from a ResNet-50. Every way sees the same crops, in batches of the same size, with
the same augmentations, and takes Adam's step of `config/synpain.yaml`. Weights are random, on which
the time does not depend. Each measurement is a process of its own, which trains one epoch to warm
up and then one with the clock running:

    python benchmarks/distillation_variants.py VARIANT SETTING.json RESULT.json
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.task import TokenDistillationTask
from torch import nn
from torchvision import transforms

from helpers.devices import autocast, pick_device, precision
from helpers.files import project_path, write_csv, write_json
from helpers.parameters import read_config
from helpers.training import engine
from helpers.training.augment import (
    CROP_RATIO,
    CROP_SCALE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    JITTER,
    ROTATION_DEGREES,
)
from helpers.training.experiments import distil_student, train_teacher
from helpers.training.faces import read_manifest
from helpers.training.feed import Feed
from helpers.training.replay import record_answers

STUDENT, TEACHER = "deit_tiny_distilled_patch16_224", "resnet50"
# Epoch 1 warms up, epoch 2 is timed.
_EPOCHS = 2
_LEARNING_RATE = 1e-5
_TRIAL_STEPS = 2
_EVALUATED = 8


@dataclass
class Setting:
    """What all variants share.

    Attributes:
        crops_dir: crops with a manifest, of which the rows of `train` make the epoch.
        teacher_dir: the run folder of a ResNet-50.
        device: `cpu` or `cuda`.
        image_size: side of the networks' input in pixels.
        batch_size: images a step.
        threads: of torch, and worker processes of a loader.
        precision: of timm's variants, e.g. `bfloat16`; None: try which is faster.
    """

    crops_dir: str
    teacher_dir: str
    device: str
    image_size: int
    batch_size: int
    threads: int
    precision: str | None = None


class Pictures(torch.utils.data.Dataset):
    """The training crops from their files, transformed one by one, with labels 0 and 1."""

    def __init__(self, crops_dir: str, transform: Callable | None = None) -> None:
        table = read_manifest(crops_dir)
        table = table[table["split"] == "train"]
        self.paths = [str(project_path(crops_dir) / path) for path in table["path"]]
        self.labels = (table["label"] == "Pain").astype(int).tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple:
        with Image.open(self.paths[row]) as image:
            image = image.convert("RGB")
        return self.transform(image), self.labels[row]


def reference(setting: Setting) -> dict:
    """Measure the plain design: PIL, torchvision, float32, a live teacher, `.item()` at each step.

    Its student has one logit a head and the protocol's loss, like ours.
    """
    device = pick_device(setting.device)
    dataset = Pictures(
        setting.crops_dir,
        transforms.Compose(
            [
                transforms.RandomResizedCrop(setting.image_size, CROP_SCALE, CROP_RATIO),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(ROTATION_DEGREES, transforms.InterpolationMode.BILINEAR),
                transforms.ColorJitter(JITTER, JITTER, JITTER),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        ),
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        setting.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=setting.threads,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    student, teacher = _networks(setting, device, classes=1)
    student.set_distilled_training(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE)
    loss_of = nn.BCEWithLogitsLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        images, labels = images.to(device), labels.to(device).float()
        by_class, by_distillation = student(images)
        with torch.no_grad():
            target = (teacher(images)[:, 0] > 0).float()
        loss = loss_of(by_class[:, 0], labels) + loss_of(by_distillation[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"seconds": _time_epoch(loader, step, device), "precision": "float32"}


def timm_task(setting: Setting, memory_format: torch.memory_format) -> dict:
    """Measure timm's `TokenDistillationTask` with timm's loader, as its training script runs it.

    Two classes, because with one timm's hard label is always 0. The rotation, which timm's
    transforms lack, is put among them.
    """
    device = pick_device(setting.device)
    loader = create_loader(
        Pictures(setting.crops_dir),
        (3, setting.image_size, setting.image_size),
        setting.batch_size,
        is_training=True,
        scale=CROP_SCALE,
        ratio=CROP_RATIO,
        hflip=0.5,
        color_jitter=(JITTER, JITTER, JITTER),
        interpolation="bilinear",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        num_workers=setting.threads,
        pin_memory=device.type == "cuda",
        device=device,
        use_prefetcher=True,
    )
    rotation = transforms.RandomRotation(ROTATION_DEGREES, transforms.InterpolationMode.BILINEAR)
    loader.dataset.transform.transforms.insert(2, rotation)
    student, teacher = _networks(setting, device, classes=2)
    task = TokenDistillationTask(
        student, teacher, criterion=nn.CrossEntropyLoss(), distill_type="hard", device=device,
        verbose=False,
    )  # fmt: skip
    task.to(device=device, memory_format=memory_format).train()
    optimizer = create_optimizer_v2(student, opt="adam", lr=_LEARNING_RATE)
    low = precision(device, amp=True)
    scaler = torch.amp.GradScaler(device.type, enabled=low == torch.float16)

    def step(dtype: torch.dtype, images: torch.Tensor, labels: torch.Tensor) -> None:
        images = images.contiguous(memory_format=memory_format)
        with autocast(device, dtype):
            loss = task(images, labels)["loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    dtype = getattr(torch, setting.precision or "float32")
    if setting.precision is None:
        dtype = _faster([torch.float32, low], step, setting, device)
    seconds = _time_epoch(loader, partial(step, dtype), device)
    return {"seconds": seconds, "precision": str(dtype).removeprefix("torch.")}


def ours(setting: Setting, teacher_labels: str, ready: bool = False) -> dict:
    """Measure this project's training, through the function that notebook 04 calls.

    With `ready` all batches of an epoch lie augmented on the device before its clock starts, so
    that only the networks' steps are left.
    """
    parameters = study_parameters(setting, teacher_labels)
    if teacher_labels == "replayed":
        record_answers(parameters)
    if ready:
        engine.Feed = ReadyFeed
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = distil_student(parameters, folder)
    finally:
        engine.Feed = Feed
    arithmetic = run.params["teachers"][0]["arithmetic"]["precision"]
    result = {"seconds": run.history["seconds"].iloc[-1], "precision": run.params["precision"]}
    return result | {"teacher_precision": arithmetic if teacher_labels == "online" else ""}


class ReadyFeed(Feed):
    """A feed of which every epoch has the timed one's batches, made before the training starts."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._ready = list(super().batches(_EPOCHS))

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of the timed epoch, whatever `epoch`."""
        return super().order(_EPOCHS)

    def batches(self, epoch: int, start: int = 0):
        """Yield the batches of the timed epoch, whatever `epoch`, from step `start` on."""
        yield from self._ready[start:]


VARIANTS = {
    "reference": reference,
    "timm": partial(timm_task, memory_format=torch.contiguous_format),
    "timm_channels_last": partial(timm_task, memory_format=torch.channels_last),
    "live": partial(ours, teacher_labels="online"),
    "replayed": partial(ours, teacher_labels="replayed"),
    "live_ready": partial(ours, teacher_labels="online", ready=True),
    "replayed_ready": partial(ours, teacher_labels="replayed", ready=True),
}


def study_parameters(setting: Setting, teacher_labels: str = "online") -> SimpleNamespace:
    """Return the parameters of notebooks 03 and 04: `config/synpain.yaml` at this setting."""
    chosen = read_config("config/synpain.yaml") | {
        "crops_dir": setting.crops_dir,
        "teacher": "resnet50",
        "teacher_dir": setting.teacher_dir,
        "student": "deit_tiny",
        "init": "scratch",
        "image_size": setting.image_size,
        "batch_size": setting.batch_size,
        "device": setting.device,
        "teacher_labels": teacher_labels,
        "allow_weak_teacher": True,
        "teacher_epochs": 1,
        "student_epochs": _EPOCHS,
        "seed": 0,
    }
    return SimpleNamespace(**chosen)


def take_crops(crops_dir: str | Path, folder: Path, count: int) -> int:
    """Write a manifest of `count` training crops and a few others, and return how many there are.

    The crops stay where they are; the manifest in `folder` points to them. With fewer training
    crops than `count` all are taken.
    """
    source, table = project_path(crops_dir), read_manifest(crops_dir)
    parts = []
    for split, most in (("train", count), ("validation", _EVALUATED), ("test", _EVALUATED)):
        rows = table[table["split"] == split]
        parts.append(rows.sample(min(most, len(rows)), random_state=0))
    taken = pd.concat(parts)
    folder.mkdir(parents=True, exist_ok=True)
    taken["path"] = [os.path.relpath(source / path, folder.resolve()) for path in taken["path"]]
    write_csv(folder / "manifest.csv", taken)
    return len(parts[0])


def make_teacher(setting: Setting) -> None:
    """Write the run folder of a ResNet-50 that was trained for one step and is sure of itself.

    It calls every face a face in pain, by far, so that low precision changes none of its labels.
    """
    with tempfile.TemporaryDirectory() as folder:
        take_crops(setting.crops_dir, Path(folder), _EVALUATED)
        parameters = study_parameters(setting)
        parameters.crops_dir, parameters.batch_size = folder, _EVALUATED
        run = train_teacher(parameters, setting.teacher_dir)
    weights = load_file(run.folder / "model.safetensors")
    weights["fc.bias"] = torch.full_like(weights["fc.bias"], 100.0)
    save_file(weights, run.folder / "model.safetensors")


def _networks(setting: Setting, device: torch.device, classes: int) -> tuple[nn.Module, nn.Module]:
    student = timm.create_model(STUDENT, num_classes=classes, img_size=setting.image_size)
    teacher = timm.create_model(TEACHER, num_classes=classes)
    return student.to(device).train(), teacher.to(device).eval().requires_grad_(False)


def _time_epoch(loader: object, step: Callable, device: torch.device) -> float:
    """Return the seconds of the last of `_EPOCHS` epochs."""
    for _ in range(_EPOCHS):
        begin = time.perf_counter()
        for images, labels in loader:
            step(images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    return seconds


def _faster(
    choices: list[torch.dtype], step: Callable, setting: Setting, device: torch.device
) -> torch.dtype:
    """Return the type in which a step is fastest, each tried in turn after a step to warm up."""
    images = torch.zeros(setting.batch_size, 3, setting.image_size, setting.image_size)
    labels = torch.zeros(setting.batch_size, dtype=torch.long, device=device)
    images, best = images.to(device), dict.fromkeys(choices, float("inf"))
    for attempt in range(1 + _TRIAL_STEPS):
        for dtype in best:
            begin = time.perf_counter()
            step(dtype, images, labels)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if attempt:
                best[dtype] = min(best[dtype], time.perf_counter() - begin)
    return min(best, key=best.get)


def measure(variant: str, setting: Setting) -> dict:
    """Measure one of `VARIANTS`: `seconds` an epoch, `precision`, `gpu_memory_mb` at its peak."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    result = VARIANTS[variant](setting)
    if setting.device == "cuda":
        result["gpu_memory_mb"] = torch.cuda.max_memory_reserved() / 2**20
    return result


if __name__ == "__main__":
    name, setting_file, result_file = sys.argv[1:]
    write_json(result_file, measure(name, Setting(**json.loads(Path(setting_file).read_text()))))
