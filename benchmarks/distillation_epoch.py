"""How long one epoch of hard distillation takes, ours against what a reader would write or pick.

    python benchmarks/distillation_epoch.py [--settings 224x32 112x32] [--repeats 3]

A DeiT-Ti learns from a ResNet-50, on the same crops, in batches of the same size, with the same
augmentations and Adam's step of `config/synpain.yaml`, in four ways (`VARIANTS`). Weights are
random, on which the time does not depend. Each measurement is a process of its own with all cores,
which trains one epoch to warm up and then one with the clock running; repetitions are interleaved,
so that what else the machine does falls on all variants alike, and ratios are taken within a
repetition. Prints them and writes `benchmarks/results/distillation_epoch.csv`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import timm
import torch
from timm.data import create_loader
from timm.task import TokenDistillationTask
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from helpers import faces
from helpers.devices import autocast, precision
from helpers.files import project_path, write_csv
from helpers.parameters import read_config
from helpers.train import distil_student, train_teacher

MEAN, STD = faces.IMAGENET_MEAN, faces.IMAGENET_STD
# not by the house's pick_device, which has glibc keep freed memory: a reader's program would not
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS = 2  # the first one warms up, the second one is timed
OTHERS = 8  # crops for validation and test, and of the teacher's one step


def plain(work: Path, size: int, batch: int) -> float:
    """Time the plain design: PIL, torchvision, float32, a live teacher, `.item()` at each step."""
    steps = [
        transforms.RandomResizedCrop(size, faces.CROP_SCALE, faces.CROP_RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(faces.ROTATION_DEGREES, transforms.InterpolationMode.BILINEAR),
        transforms.ColorJitter(faces.JITTER, faces.JITTER, faces.JITTER),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    dataset = ImageFolder(work / "crops/train", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(
        dataset, batch, shuffle=True, drop_last=True, num_workers=os.cpu_count(),
        persistent_workers=True, pin_memory=DEVICE.type == "cuda",
    )  # fmt: skip
    student, teacher = networks(size, classes=1)
    student.set_distilled_training(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-5)
    loss_of = nn.BCEWithLogitsLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        images, labels = images.to(DEVICE), labels.to(DEVICE).float()
        by_class, by_distillation = student(images)
        with torch.no_grad():
            target = (teacher(images)[:, 0] > 0).float()
        loss = loss_of(by_class[:, 0], labels) + loss_of(by_distillation[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return time_epoch(loader, step)


def timm_task(work: Path, size: int, batch: int, layout=torch.contiguous_format) -> float:
    """Time timm's `TokenDistillationTask` with timm's loader, in low precision.

    Two classes, because with one timm's hard label is always 0. The rotation, which timm's
    transforms lack, is put among them.
    """
    loader = create_loader(
        ImageFolder(work / "crops/train"), (3, size, size), batch, is_training=True, hflip=0.5,
        scale=faces.CROP_SCALE, ratio=faces.CROP_RATIO, color_jitter=(faces.JITTER,) * 3,
        interpolation="bilinear", mean=MEAN, std=STD, num_workers=os.cpu_count(),
        pin_memory=DEVICE.type == "cuda", device=DEVICE,
    )  # fmt: skip
    degrees, bilinear = faces.ROTATION_DEGREES, transforms.InterpolationMode.BILINEAR
    loader.dataset.transform.transforms.insert(2, transforms.RandomRotation(degrees, bilinear))
    student, teacher = networks(size, classes=2)
    loss_of = nn.CrossEntropyLoss()
    task = TokenDistillationTask(
        student, teacher, criterion=loss_of, distill_type="hard", device=DEVICE, verbose=False
    )
    task.to(device=DEVICE, memory_format=layout).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-5)
    dtype = precision(DEVICE, amp=True)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=dtype == torch.float16)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        images = images.contiguous(memory_format=layout)
        with autocast(DEVICE, dtype):
            loss = task(images, labels)["loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return time_epoch(loader, step)


def ours(work: Path, size: int, batch: int) -> float:
    """Time this project's training, through the function that chapter 4 calls."""
    own = {"student": "deit_tiny", "teacher_dir": str(work / "teacher")}
    parameters = study_parameters(work / "crops", size, batch, **own)
    with tempfile.TemporaryDirectory() as folder:
        return float(distil_student(parameters, folder).history["seconds"].iloc[-1])


timm_last = partial(timm_task, layout=torch.channels_last)
VARIANTS = {"plain": plain, "timm": timm_task, "timm, channels last": timm_last, "ours": ours}


def networks(size: int, classes: int) -> tuple[nn.Module, nn.Module]:
    """Return a DeiT-Ti that is trained and a frozen ResNet-50."""
    student = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=classes, img_size=size
    )
    teacher = timm.create_model("resnet50", num_classes=classes)
    return student.to(DEVICE).train(), teacher.to(DEVICE).eval().requires_grad_(False)


def time_epoch(loader: object, step: Callable) -> float:
    """Return the seconds of the last of `EPOCHS` epochs."""
    for _ in range(EPOCHS):
        begin = time.perf_counter()
        for images, labels in loader:
            step(images, labels)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - begin


def study_parameters(crops: Path, size: int, batch: int, **own: object) -> SimpleNamespace:
    """Return the parameters of notebook 03 or 04: `config/synpain.yaml` at this setting."""
    chosen = read_config("config/synpain.yaml") | {"crops_dir": str(crops), "seed": 0}
    chosen |= {"teacher": "resnet50", "init": "scratch", "image_size": size, "batch_size": batch}
    epochs = {"teacher_epochs": 1, "student_epochs": EPOCHS}
    return SimpleNamespace(**chosen | epochs | {"allow_weak_teacher": True} | own)


def take_crops(source: Path, folder: Path, count: int) -> None:
    """Copy `count` training crops and a few others to `folder`/<split>/<label>/."""
    table = faces.read_manifest(source)
    most = {"train": count, "validation": OTHERS, "test": OTHERS}
    taken = pd.concat([table[table["split"] == split][:n] for split, n in most.items()])
    paths = taken["split"] + "/" + taken["label"] + "/" + taken["path"].map(lambda x: Path(x).name)
    for old, new in zip(taken["path"], paths, strict=True):
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / old, folder / new)
    write_csv(folder / "manifest.csv", taken.assign(path=paths))


def measure(source: Path, size: int, batch: int, images: int, repeats: int) -> pd.DataFrame:
    """Return the images a second of each variant, a row a repetition and a column a variant."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        take_crops(source, work / "crops", images // batch * batch)
        take_crops(source, work / "few", OTHERS)
        train_teacher(study_parameters(work / "few", size, OTHERS), work / "teacher")
        for repeat in tqdm(range(repeats), f"{size} px, batch {batch}", unit="repetition"):
            shift = repeat % len(VARIANTS)
            row = {}
            for variant in [*VARIANTS][shift:] + [*VARIANTS][:shift]:
                command = [sys.executable, __file__, "--child", variant, name, str(size)]
                done = subprocess.run([*command, str(batch)], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"The variant {variant} failed:\n{done.stderr[-2000:]}")
                row[variant] = images // batch * batch / json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
    return pd.DataFrame(rows)


def summarise(speed: pd.DataFrame) -> pd.DataFrame:
    """Return median, least and most of each variant's speed and of ours over it.

    `speed`: see `measure`; ratios are taken within its rows.
    """
    rows = []
    for name, mine in speed.items():
        row = {"variant": name}
        for column, x in (("images_per_second", mine), ("ours_over_it", speed["ours"] / mine)):
            row |= {column: x.median(), f"{column}_least": x.min(), f"{column}_most": x.max()}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Measure by the command line's arguments, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops-dir", default="data/crops/standin")
    parser.add_argument("--settings", nargs="+", default=["224x32", "112x32"], help="size x batch")
    parser.add_argument("--images", type=int, default=256, help="training crops an epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        variant, work, size, batch = given.child
        print(json.dumps(VARIANTS[variant](Path(work), int(size), int(batch))))
        return
    tables = []
    for setting in given.settings:
        size, batch = (int(part) for part in setting.split("x"))
        speed = measure(project_path(given.crops_dir), size, batch, given.images, given.repeats)
        about = {"device": DEVICE.type, "threads": torch.get_num_threads(), "image_size": size}
        tables.append(summarise(speed).assign(batch_size=batch, repeats=given.repeats, **about))
    table = pd.concat(tables).round(3)
    print(table.to_string(index=False))
    write_csv(project_path("benchmarks/results/distillation_epoch.csv"), table)


if __name__ == "__main__":
    main()
