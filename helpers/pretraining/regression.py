"""A start for those without ImageNet: every backbone regresses facial actions on rendered faces.

The people are in no pair of the study, and the targets are the weights of single facial actions,
neither pain nor PSPI. All backbones see the same faces, views and recipe, a Transformer without
a convolution's bias for longer. The result is what `init: faces` loads.

A Transformer from scratch stays on the plateau of saying the mean: its head first sees an average
over all places, which says nothing of where. So each backbone has further heads for as long as it
is pretrained, linear in the features of every place at the end of each of its last three stages (of
the only one that a DeiT has), and the views begin as the plain faces and reach the protocol's
augmentations half way.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from helpers.devices import autocast, pick_device, precision, set_determinism
from helpers.files import (
    project_path,
    replacing,
    sha256,
    write_csv,
    write_json,
)
from helpers.networks.models import choose_attention
from helpers.networks.weights import FACES_WEIGHTS
from helpers.pretraining.actions import read_actions
from helpers.pretraining.regressors import create_regressor, earlier_stages
from helpers.pretraining.rendered import crop_pretraining_faces
from helpers.training.augment import augment, draw_views, plain_view
from helpers.training.faces import load_faces

BACKBONES = ("deit_tiny", "swin", "resnet50")
IMAGE_SIZE = 112  # pixels, as in the study on the stand-in
EPOCHS = {"deit_tiny": 24, "swin": 9, "resnet50": 9}  # until the held-out error settles
BATCH_SIZE = 32
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.02
CLIP_NORM = 1.0
_WARM_UP = 0.1
_EVALUATION_BATCH = 128


class Pretraining:
    """One backbone's pretraining at one image size, resumed after every epoch.

    All randomness of an epoch is drawn from (seed, epoch), as in the study's own training.
    """

    def __init__(
        self,
        backbone: str,
        crops_dir: str | Path,
        attributes: str | Path,
        folder: Path,
        image_size: int,
        epochs: int,
        start: Path | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        """Read the faces and build the backbone, from the weights `start` where given."""
        self.backbone, self.folder, self.image_size = backbone, folder, image_size
        self.epochs, self.seed, self.device = epochs, seed, pick_device(device)
        set_determinism(seed, True)
        self.faces = load_faces(crops_dir, image_size)
        self.actions = read_actions(attributes, list(self.faces.table["image_id"]))
        model = create_regressor(backbone, image_size, len(self.actions.names), start)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.local_heads = nn.ModuleList(
            nn.Linear(features.shape[1], len(self.actions.names)) for features in self._look()
        ).to(self.device)
        for head in self.local_heads:
            nn.init.normal_(head.weight, std=1e-3)
        self.dtype = precision(self.device, True)
        choose_attention(self.model, self.device, self.dtype)
        self.steps = len(self.actions.train) // BATCH_SIZE
        self.optimizer = torch.optim.AdamW(
            self._parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            LEARNING_RATE,
            epochs * self.steps,
            pct_start=_WARM_UP,
            cycle_momentum=False,
        )
        self.history: list[dict] = []
        self.identity = {
            "backbone": backbone,
            "image_size": image_size,
            "epochs": epochs,
            "seed": seed,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "crops_sha256": self.faces.manifest_sha256,
            "start_sha256": sha256(start) if start else None,
        }

    @property
    def checkpoint(self) -> Path:
        """The file from which this stage goes on."""
        return self.folder / f"checkpoint-{self.image_size}.pt"

    @property
    def weights(self) -> Path:
        """The file of this stage's last weights, in float32 with the head."""
        return self.folder / f"weights-{self.image_size}.safetensors"

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.local_heads.parameters()]

    def _look(self) -> list[torch.Tensor]:
        """The features that the local heads see, of one empty picture, (1, -1) each."""
        self._seen: list[torch.Tensor] = []
        for stage in earlier_stages(self.model):
            stage.register_forward_hook(lambda _, __, features: self._seen.append(features))
        side = self.image_size
        with torch.inference_mode():
            image = torch.zeros(1, 3, side, side, device=self.device)
            return self._places(self.model.eval().forward_features(image))

    def _places(self, last: torch.Tensor) -> list[torch.Tensor]:
        """The features of every place, without a DeiT's prefix tokens, stage by stage: (N, -1)."""
        last = last[:, getattr(self.model, "num_prefix_tokens", 0) :]
        found = [features.flatten(1) for features in (*self._seen, last)]
        self._seen.clear()
        return found

    def fit(self) -> pd.DataFrame:
        """Train to the last epoch and return the history, one row an epoch."""
        self._resume()
        first = len(self.history)
        total = self.epochs * self.steps
        with tqdm(
            total=total, initial=first * self.steps, desc=self.backbone, unit="step", mininterval=5
        ) as bar:
            for epoch in range(first + 1, self.epochs + 1):
                self.history.append(self._train_epoch(epoch, bar))
                bar.set_postfix(held_out=f"{self.history[-1]['held_out_loss']:.3f}")
                self._save()
        return pd.DataFrame(self.history)

    def errors(self) -> pd.Series:
        """Return the mean squared error of each action on the held-out people, by name.

        Targets are standardised, so 1 is what always saying the mean gives, and 1 minus the error
        is about the explained variance.
        """
        rows = self.actions.held_out
        self.model.eval()
        found = []
        with torch.inference_mode():
            for part in np.array_split(rows, -(-len(rows) // _EVALUATION_BATCH)):
                images = plain_view(self.faces.images[part].to(self.device), self.image_size)
                with autocast(self.device, self.dtype):
                    found.append(self.model(images).float().cpu())
                self._seen.clear()
        error = (torch.cat(found) - self.actions.values[rows]).square().mean(0)
        return pd.Series(error.numpy(), index=self.actions.names)

    def _train_epoch(self, epoch: int, bar: tqdm) -> dict:
        torch.manual_seed(self.seed * 100_003 + epoch)
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(self.actions.train)
        strength = min(1.0, 2 * (epoch - 1) / self.epochs)
        views = draw_views(len(self.faces.table), self.seed, epoch).weakened(strength)
        self.model.train()
        total = torch.zeros((), device=self.device)
        for step in range(self.steps):
            rows = order[step * BATCH_SIZE :][:BATCH_SIZE]
            seen = views[rows]
            images = augment(
                self.faces.images[rows].to(self.device), seen.to(self.device), self.image_size
            )
            targets = self.actions.seen(rows, seen.flip).to(self.device)
            with autocast(self.device, self.dtype):
                features = self.model.forward_features(images)
                found = self.model.forward_head(features)
                places = self._places(features)
                local = [head(x) for head, x in zip(self.local_heads, places, strict=True)]
            loss = nn.functional.mse_loss(found.float(), targets)
            total_loss = loss + sum(nn.functional.mse_loss(x.float(), targets) for x in local)
            self.optimizer.zero_grad(set_to_none=True)
            total_loss.backward()
            nn.utils.clip_grad_norm_(self._parameters(), CLIP_NORM)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
            bar.update()
        return {
            "backbone": self.backbone,
            "image_size": self.image_size,
            "epoch": epoch,
            "train_loss": (total / self.steps).item(),
            "held_out_loss": float(self.errors().mean()),
        }

    def _save(self) -> None:
        state = {
            "identity": self.identity,
            "history": self.history,
            "model": self.model.state_dict(),
            "local_heads": self.local_heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        weights = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        with replacing(self.weights) as temporary:
            save_file(weights, temporary)
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["identity"] != self.identity:
            return
        self.history = state["history"]
        self.model.load_state_dict(state["model"])
        self.local_heads.load_state_dict(state["local_heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def pretrain(
    backbone: str,
    crops_dir: str | Path,
    attributes: str | Path,
    work_dir: str | Path,
    out_dir: str | Path = FACES_WEIGHTS,
    stages: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict:
    """Pretrain one backbone through all stages and write its weights for `init: faces`.

    Args:
        backbone: a teacher or student of the study; a student without its distillation token.
        crops_dir: crops of the pretraining faces, see `crop_pretraining_faces`.
        attributes: the renderer's `attributes.csv`.
        work_dir: for checkpoints; a call that was broken off goes on there.
        out_dir: for `<timm architecture>.safetensors` (16 bits, no head) and a `.json` beside it.
        stages: image size and epochs of each; `IMAGE_SIZE` and `EPOCHS` without.
        seed: of everything that is drawn.
        device: `auto`, `cpu` or `cuda`.

    Returns what the `.json` holds: recipe, held-out errors before and after rounding to 16 bits.
    """
    stages = stages or ((IMAGE_SIZE, EPOCHS[backbone]),)
    start, histories = None, []
    for image_size, epochs in stages:
        stage = Pretraining(
            backbone,
            crops_dir,
            attributes,
            project_path(work_dir) / backbone,
            image_size,
            epochs,
            start,
            seed,
            device,
        )
        histories.append(stage.fit())
        start = stage.weights
    errors = stage.errors()
    head = stage.model.pretrained_cfg["classifier"] + "."
    state = load_file(stage.weights)
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    stage.model.load_state_dict({k: v.float() for k, v in halved.items()})
    rounded = stage.errors()
    name = stage.model.pretrained_cfg["architecture"]
    path = project_path(out_dir) / f"{name}.safetensors"
    with replacing(path) as temporary:
        save_file({k: v for k, v in halved.items() if not k.startswith(head)}, temporary)
    card = {
        "backbone": backbone,
        "architecture": name,
        "stages": [list(stage) for stage in stages],
        "recipe": {
            "optimizer": "adamw",
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "schedule": "one_cycle",
            "clip_norm": CLIP_NORM,
            "seed": seed,
            "precision": str(stage.dtype).removeprefix("torch."),
            "device": str(stage.device),
            "threads": torch.get_num_threads(),
        },
        "faces": {"train": len(stage.actions.train), "held_out": len(stage.actions.held_out)},
        "crops_sha256": stage.faces.manifest_sha256,
        "sha256": sha256(path),
        "held_out_error": round(float(errors.mean()), 5),
        "held_out_error_16_bit": round(float(rounded.mean()), 5),
        "held_out_errors": {k: round(float(v), 4) for k, v in errors.items()},
    }
    write_csv(path.with_suffix(".csv"), pd.concat(histories).round(5))
    write_json(path.with_suffix(".json"), card)
    return card


def main() -> None:
    """Crop the pretraining faces, pretrain each backbone, write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.pretraining", description="Weights for init: faces."
    )
    parser.add_argument("--faces", default="data/raw/pretrain", help="faces/ and attributes.csv")
    parser.add_argument("--crops", default="data/crops/pretrain")
    parser.add_argument("--work", default="runs/pretrain", help="checkpoints")
    parser.add_argument("--out", default=str(FACES_WEIGHTS))
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    options = parser.parse_args()
    crops = crop_pretraining_faces(options.faces, options.crops)
    attributes = project_path(options.faces) / "attributes.csv"
    for backbone in options.backbones:
        card = pretrain(backbone, crops, attributes, options.work, options.out)
        print(f"{backbone}: held-out error {card['held_out_error']} (1 is saying the mean)")
