import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.errors import StudyError
from helpers.networks.models import build_student, build_teacher
from helpers.pretraining import regression as pretraining
from helpers.pretraining.actions import mirrored, read_actions
from helpers.pretraining.regression import Pretraining, pretrain

PEOPLE, EACH = 40, 3


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Crops of 40 people whose brow is a bar: its height tells `jawOpen`, its sides the squints."""
    folder = tmp_path_factory.mktemp("pretrain")
    rng = np.random.default_rng(0)
    rows = []
    for person in range(PEOPLE):
        for number in range(EACH):
            left, right, jaw = rng.uniform(0, 1, 3)
            pixels = np.full((40, 40, 3), 90, np.uint8)
            pixels[4:14, :18] = 90 + 160 * left
            pixels[4:14, 22:] = 90 + 160 * right
            pixels[24 : 24 + round(14 * jaw), 8:32] = 250
            image_id = f"p{person:05d}_{number:02d}"
            Image.fromarray(pixels).save(folder / f"{image_id}.png")
            rows.append(
                {
                    "image_id": image_id,
                    "identity": f"p{person:05d}",
                    "path": f"{image_id}.png",
                    "side": "right",
                    "label": "NoPain",
                    "split": "train",
                    "gender": "Man",
                    "age": "Old",
                    "ethnicity": "Asian",
                    "AU4": 0.0,
                    "pspi": 1.0,
                    "eyeSquintLeft": left,
                    "eyeSquintRight": right,
                    "jawOpen": jaw,
                    "mouthPucker": 0.0,
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(folder / "manifest.csv", index=False)
    table.to_csv(folder / "attributes.csv", index=False)
    return folder


def train(rendered, folder, epochs=2, backbone="resnet50", **options):
    folder.mkdir(exist_ok=True)
    return Pretraining(
        backbone, rendered, rendered / "attributes.csv", folder, 32, epochs, device="cpu", **options
    )


def test_targets_are_the_actions_that_vary_and_no_judgement(rendered):
    ids = list(pd.read_csv(rendered / "manifest.csv")["image_id"])
    actions = read_actions(rendered / "attributes.csv", ids)
    assert actions.names == ["eyeSquintLeft", "eyeSquintRight", "jawOpen"]
    train = actions.values[actions.train]
    assert torch.allclose(train.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(3), atol=1e-5)


def test_nobody_is_trained_on_and_held_out(rendered):
    table = pd.read_csv(rendered / "manifest.csv")
    actions = read_actions(rendered / "attributes.csv", list(table["image_id"]))
    people = table["identity"].to_numpy()
    assert not set(people[actions.train]) & set(people[actions.held_out])
    assert len(set(people[actions.held_out])) == PEOPLE // 10
    assert len(actions.train) + len(actions.held_out) == PEOPLE * EACH


def test_a_mirrored_face_shows_the_other_sides_action(rendered):
    ids = list(pd.read_csv(rendered / "manifest.csv")["image_id"])
    actions = read_actions(rendered / "attributes.csv", ids)
    plain, flipped = actions.seen(np.array([5, 5]), torch.tensor([1.0, -1.0]))
    assert torch.equal(flipped, plain[[1, 0, 2]])
    assert not torch.equal(flipped, plain)
    assert mirrored("mouthSmileLeft") == "mouthSmileRight"
    assert mirrored("mouthSmileRight") == "mouthSmileLeft"
    assert mirrored("jawOpen") == "jawOpen"


def test_a_face_without_targets_or_too_few_people_is_an_error(rendered):
    with pytest.raises(StudyError, match="lacks stranger"):
        read_actions(rendered / "attributes.csv", ["stranger"])
    with pytest.raises(StudyError, match="at least 20 people"):
        read_actions(rendered / "attributes.csv", ["p00000_00", "p00001_00"])


def test_the_loss_on_other_people_falls_below_saying_the_mean(rendered, tmp_path):
    history = train(rendered, tmp_path / "long", epochs=15).fit()
    assert history["held_out_loss"].iloc[-1] < 0.6


def test_a_run_that_was_cut_off_ends_as_the_undisturbed_one(rendered, tmp_path, monkeypatch):
    whole = train(rendered, tmp_path / "whole")
    whole.fit()
    cut = train(rendered, tmp_path / "cut")
    save = Pretraining._save

    def save_and_stop(self):
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pretraining, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    monkeypatch.undo()
    again = train(rendered, tmp_path / "cut")
    again.fit()
    assert len(again.history) == 2
    one, other = load_file(whole.weights), load_file(again.weights)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("backbone", ["resnet50", "swin", "deit_tiny"])
def test_the_weights_start_teachers_and_students(rendered, tmp_path, monkeypatch, backbone):
    card = pretrain(
        backbone,
        rendered,
        rendered / "attributes.csv",
        tmp_path / "work",
        tmp_path / "out",
        stages=((32, 1), (64, 1)),
        device="cpu",
    )
    path = tmp_path / "out" / f"{card['architecture']}.safetensors"
    stored = load_file(path)
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    assert json.loads(path.with_suffix(".json").read_text()) == card
    assert card["held_out_error_16_bit"] == pytest.approx(card["held_out_error"], abs=0.01)
    assert list(pd.read_csv(path.with_suffix(".csv"))["image_size"]) == [32, 64]
    build = build_student if backbone == "deit_tiny" else build_teacher
    model, start = build(backbone, str(path), 64)
    state = model.state_dict()
    copied = [key for key in stored if key in state and state[key].shape == stored[key].shape]
    assert len(copied) > 0.9 * len(stored)
    different = [key for key in copied if not torch.equal(state[key].float(), stored[key].float())]
    assert not different
    assert not any("head" in key or key.startswith("fc.") for key in stored)
    assert start["sha256"] == card["sha256"]


def test_all_backbones_share_one_recipe():
    assert set(pretraining.BACKBONES) == {"resnet50", "swin", "deit_tiny"}
