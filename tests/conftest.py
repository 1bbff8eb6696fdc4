"""Small made-up faces and a teacher of them, so that a training takes seconds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers.parameters import read_config

# The parameters of notebooks 03 and 04, for a training of seconds.
QUICK = read_config("config/quick.yaml") | {"seed": 0, "teacher": "resnet50", "teacher_dir": ""}
QUICK |= {"student": "deit_tiny", "batch_size": 8, "learning_rate": 1e-3, "image_size": 32}
QUICK |= {"init": "scratch", "schedule": "step", "lr_step": 10, "amp": False, "device": "cpu"}
QUICK |= {"allow_weak_teacher": True}  # four people are too few for the gate's interval


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from more, and some machines have many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def crops_dir(tmp_path_factory):
    """Crops of 24 people, 16 to train on: pain is a bright bar on the right half of every other."""
    folder, rng, rows = tmp_path_factory.mktemp("crops"), np.random.default_rng(0), []
    for person in range(24):
        identity = f"1{1 - person % 2}000{person:05d}"
        split = ("train", "train", "train", "train", "validation", "test")[person // 4]
        for side in ("left", "right"):
            pain, name = person % 2 == 0 and side == "right", f"{identity}_{side}"
            pixels = rng.integers(60, 120, (40, 40, 3), dtype=np.uint8)
            pixels[14:26] = 250 if pain else pixels[14:26]
            Image.fromarray(pixels).save(folder / f"{name}.png")
            label = "Pain" if pain else "NoPain"
            rows.append((name, f"{name}.png", identity, side, label, split, 40, 40))
    columns = "image_id path identity side label split width height".split()
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture
def quick(crops_dir):
    """The parameters of notebook 04 (and of 03, but for `student`)."""
    return SimpleNamespace(**QUICK, crops_dir=str(crops_dir))


@pytest.fixture(scope="session")
def teacher_run(crops_dir, tmp_path_factory):
    """A ResNet-50 that has been trained for one epoch."""
    from helpers.train import train_teacher

    torch.set_num_threads(1)
    p = SimpleNamespace(**QUICK | {"teacher_epochs": 1}, crops_dir=str(crops_dir))
    del p.student
    return train_teacher(p, tmp_path_factory.mktemp("teacher") / "run")
