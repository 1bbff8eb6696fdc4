"""Small made-up faces, so that a training takes seconds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

RECIPE = {
    "seed": 0,
    "batch_size": 8,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "step",
    "lr_step": 1,
    "lr_gamma": 0.5,
    "clip_norm": 1.0,
    "image_size": 32,
    "init": "scratch",
    "amp": False,
    "deterministic": True,
    "device": "cpu",
}


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
    """Crops of 24 people: pain is a bright bar, so that even a tiny network can learn it."""
    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(0)
    rows = []
    for person in range(24):
        pain_pair = person % 2 == 0
        identity = f"1{int(pain_pair)}000{person:05d}"
        split = "train" if person < 16 else "validation" if person < 20 else "test"
        for side in ("left", "right"):
            pain = pain_pair and side == "right"
            pixels = rng.integers(60, 120, (40, 40, 3), dtype=np.uint8)
            if pain:
                pixels[14:26] = 250
            image_id = f"{identity}_{side}"
            Image.fromarray(pixels).save(folder / f"{image_id}.png")
            rows.append(
                {
                    "image_id": image_id,
                    "path": f"{image_id}.png",
                    "identity": identity,
                    "side": side,
                    "label": "Pain" if pain else "NoPain",
                    "split": split,
                    "width": 40,
                    "height": 40,
                }
            )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture
def teacher_parameters(crops_dir):
    """Those of notebook 03, for a training of seconds."""
    return SimpleNamespace(**RECIPE, crops_dir=str(crops_dir), teacher="resnet50", teacher_epochs=2)


@pytest.fixture
def student_parameters(crops_dir):
    """Those of notebook 04 without a teacher, for a training of seconds."""
    return SimpleNamespace(
        **RECIPE,
        crops_dir=str(crops_dir),
        teacher="none",
        teacher_dir="",
        student="deit_tiny",
        distillation="hard",
        temperature=3.0,
        teacher_labels="online",
        # four people are too few for an interval
        allow_weak_teacher=True,
        student_epochs=2,
    )


@pytest.fixture(scope="session")
def teacher_run(crops_dir, tmp_path_factory):
    """The run folder of a teacher that has been trained for one epoch."""
    from helpers.training.experiments import train_teacher

    torch.set_num_threads(1)
    parameters = SimpleNamespace(
        **RECIPE, crops_dir=str(crops_dir), teacher="resnet50", teacher_epochs=1
    )
    return train_teacher(parameters, tmp_path_factory.mktemp("teacher")).folder
