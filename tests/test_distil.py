"""The losses against float64 and the frozen ones; who teaches; the gate."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK

from helpers import distil
from helpers.distil import FoldTeachers, ShuffledTeacher
from helpers.faces import Batch, FaceStore
from helpers.files import ROOT, StudyError
from helpers.models import build_student
from helpers.train import Trainer

STEPS = json.loads((ROOT / "tests/golden/engine.json").read_text())["steps"]
LOSSES = {"hard": distil.hard_distillation_loss, "soft": distil.soft_distillation_loss}


@pytest.mark.parametrize("temperature", [None, 1.0, 3.0])
def test_loss_and_gradient_equal_float64(temperature):
    """`temperature`: None for the hard loss."""
    logits, teacher = 4 * torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    options, loss = ((), "hard") if temperature is None else ((temperature,), "soft")
    found = LOSSES[loss](logits, teacher, *options)
    found.backward()
    scale = temperature or 1.0
    p, q = (1 / (1 + np.exp(-x.detach().double().numpy() / scale)) for x in (logits, teacher))
    q = (q > 0.5).astype(float) if temperature is None else q
    entropy = np.where(q % 1 == 0, 0, q * np.log(q + 1e-300) + (1 - q) * np.log(1 - q + 1e-300))
    by_hand = scale**2 * np.mean(entropy - q * np.log(p) - (1 - q) * np.log1p(-p))
    assert found.item() == pytest.approx(by_hand, rel=1e-5)
    # d BCE / dz = p - q; the soft one has T² in front and z / T inside
    np.testing.assert_allclose(logits.grad, (p - q) * scale / 64, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("way", STEPS)
def test_three_steps_of_each_way_of_teaching_are_the_frozen_ones(tmp_path, way):
    """By the code before: loss, its parts and the teacher's disagreement, on fixed views."""
    table = pd.DataFrame({"split": ["train"] * 21 + ["validation"] * 9})
    images = torch.zeros(30, 3, 37, 37, dtype=torch.uint8)
    faces = FaceStore(table, images, (torch.arange(30) % 3 == 0).float(), "")
    generator = torch.Generator().manual_seed(7)
    views = torch.randn(3, 8, 3, 32, 32, generator=generator)
    said = 2 * torch.randn(30, generator=generator)

    def says(more=0):
        return lambda images, rows: said[torch.from_numpy(rows)] + more

    teachers = {"none": None, "shuffled": ShuffledTeacher(says(), 5)}
    teachers["out_of_fold"] = FoldTeachers([says(more) for more in (-1, 0, 1)], np.arange(30) % 3)
    torch.manual_seed(5)
    model, _ = build_student("deit_tiny", "scratch", 32)
    recipe = QUICK | {"learning_rate": 1e-4, "epochs": 2, "lr_step": 1, "distillation": way}
    params = {"parameters": recipe | {"seed": 5}}
    teacher = teachers.get(way, says())
    trainer = Trainer(model.train(), faces, np.arange(21), tmp_path, params, teacher)
    for number, golden in enumerate(STEPS[way]):
        rows = (np.arange(8) + 8 * number) % 21
        batch = Batch(rows, views[number], faces.labels[rows], *trainer.feed.parts)
        found = trainer._step(batch)[0].nan_to_num().tolist()
        assert found == pytest.approx(golden, rel=1e-3, abs=1e-6)


def test_the_step_teaches_each_token_by_its_own_and_only_its_part():
    torch.manual_seed(0)
    student = build_student("deit_tiny", "scratch", 32)[0].double()
    images, labels = torch.randn(4, 3, 32, 32).double(), torch.tensor([1.0, 0, 0, 1])
    batch, asked = Batch(np.arange(4), images, labels, slice(2), slice(2, None)), []

    def teacher(views, rows):
        asked.append(rows.tolist())
        return torch.tensor([3.0, -2.0])

    found = distil.distillation_step(student, teacher, batch, LOSSES["hard"])
    p = found[2].sigmoid()
    assert asked == [[2, 3]]
    assert found[0].item() == pytest.approx(-(p[0, 0].log() + (1 - p[1, 0]).log()).item() / 2)
    assert found[1].item() == pytest.approx(-(p[2, 1].log() + (1 - p[3, 1]).log()).item() / 2)


def test_shuffled_answers_are_the_batchs_own_and_hold_nothing_of_the_face():
    """With k of n faces in pain, a shuffled truth is wrong for 2 k (n - k) / n² of them."""
    labels, rng, surplus = np.arange(64) % 4 == 0, np.random.default_rng(0), []
    teacher = ShuffledTeacher(lambda images, rows: torch.from_numpy(labels[rows]), 0)
    for _ in range(500):
        rows = rng.permutation(64)[:16]
        said, again = (teacher(None, rows).tolist() for _ in range(2))
        assert said == again
        assert sorted(said) == sorted(labels[rows])
        share = labels[rows].mean()
        surplus.append((said != labels[rows]).mean() - 2 * share * (1 - share))
    assert np.mean(surplus) == pytest.approx(0, abs=0.02)


def predictions(people, skill):
    """Faces of as many validation identities, every other one in pain, scored with some skill."""
    table = pd.DataFrame({"identity": np.repeat(np.arange(people), 2).astype(str)})
    table["side"] = ["left", "right"] * people
    pain = (table.index % 4 == 1) + 0.0
    score = skill * pain + np.random.default_rng(2).normal(size=2 * people)
    table = table.assign(label=np.where(pain, "Pain", "NoPain"), split="validation")
    table["probability"] = 1 / (1 + np.exp(-score))
    table["image_id"] = table["identity"] + "_" + table["side"]
    return table.assign(probability_class=np.nan, probability_distillation=np.nan)


@pytest.mark.parametrize(("people", "skill"), [(40, 3.0), (40, 0.0), (40, -3.0), (8, 9.0)])
def test_only_a_teacher_whose_interval_lies_above_one_half_passes(people, skill):
    run = SimpleNamespace(folder=ROOT / "here", predictions=predictions(people, skill))
    found = distil.reading(run.predictions)
    assert found["beats_chance"] is ((people, skill) == (40, 3.0))
    assert distil.pass_gate(run, allow_weak=True) == found
    if not found["beats_chance"]:
        with pytest.raises(StudyError, match=r"here may not teach, .* \(AUROC \d.*\): train"):
            distil.pass_gate(run, allow_weak=False)
    assert (found["auroc_low"] is None) == (people == 8)  # no interval of four people in pain
