"""A training of milliseconds, with everything in it that a resumed run could get wrong."""

import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.training.engine import Trainer

EPOCHS, STEPS = 3, 4
_TIMES = ["seconds", "images_per_second"]


class Noisy(nn.Module):
    """Two heads, a buffer that moves with every batch, and noise from every generator there is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4)
        self.head, self.head_dist = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward_features(self, images):
        features = self.norm(self.conv(images)).relu()
        if self.training:
            noise = np.random.normal() + random.gauss(0, 1)  # noqa: NPY002
            features = nn.functional.dropout(features, 0.3) + 0.01 * noise
        return features.mean((2, 3))[:, None].expand(-1, 2, -1)


def a_teacher(images, rows):
    return images.mean((1, 2, 3)) + torch.from_numpy(rows % 3 - 1.0).float()


def tiny_trainer(faces, folder, teacher=a_teacher, **changes) -> Trainer:
    """Return a training of `EPOCHS` by `STEPS` steps, every random generator set to its start."""
    recipe = {"seed": 0, "batch_size": 8, "optimizer": "adamw", "learning_rate": 1e-2}
    recipe |= {"weight_decay": 0.1, "schedule": "one_cycle", "clip_norm": 1.0}
    recipe |= {"image_size": 32, "amp": False, "epochs": EPOCHS} | changes
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    folder.mkdir(exist_ok=True)
    return Trainer(
        model=Noisy(),
        faces=faces,
        recipe=SimpleNamespace(**recipe),
        epochs=EPOCHS,
        folder=folder,
        params={"stage": "student", "parameters": recipe},
        teacher=teacher,
        distillation="soft",  # in which every bit of the teacher's answers matters
    )


def do_in_step(monkeypatch, number, act):
    """Have `act()` happen in the step `number` of the training, counted from 1 over all epochs."""
    step, done = Trainer._step, []

    def stepping(trainer, *arguments):
        done.append(1)
        if len(done) == number:
            act()
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_step", stepping)
    return done


def same(first, second) -> bool:
    """Whether two trainers ended in the same history, weights, buffers and optimiser state."""
    histories = [pd.DataFrame(trainer.history).drop(columns=_TIMES) for trainer in (first, second)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert (first.folder / "model.safetensors").read_bytes() == (
        second.folder / "model.safetensors"
    ).read_bytes()
    ends = [trainer.optimizer.state_dict()["state"] for trainer in (first, second)]
    return all(
        torch.equal(ends[0][place][name], ends[1][place][name])
        for place in ends[0]
        for name in ends[0][place]
    )
