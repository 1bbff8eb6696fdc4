"""The start `faces`: every backbone regresses facial actions on rendered faces.

    python data/standin/pretrain.py [--backbones resnet50 swin deit_tiny]

reads what `python -m render --pretrain` made (`make faces` calls both) and writes
`data/weights/faces`: the weights that `init: faces` loads, what was measured, and its card.

The people are in no pair of the study, and the targets are the weights of single facial actions,
neither pain nor PSPI. All backbones see the same faces, views and recipe, a Transformer without
a convolution's bias for longer. A Transformer from scratch stays on the plateau of saying the mean:
its head first sees an average over all places, which says nothing of where. So each backbone has
further heads for as long as it is pretrained, linear in the features of every place at the end of
each of its last three stages (of the only one that a DeiT has), and the views begin as the plain
faces and reach the protocol's augmentations half way.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import timm
import torch
from safetensors.torch import save_file
from timm.layers import build_sincos2d_pos_embed
from torch import nn
from tqdm import tqdm

from helpers import files
from helpers.devices import autocast, pick_device, precision, set_determinism
from helpers.faces import Views, augment, draw_views, load_faces, plain_view
from helpers.files import StudyError, project_path, read_csv, replacing, sha256
from helpers.models import STUDENTS, TEACHERS, choose_attention
from helpers.plots import MUTED, colour_of, save_fig, use_style
from helpers.text import name_of, number

OUT = "data/weights/faces"
# Until the held-out error settles.
EPOCHS = {"resnet50": 9, "swin": 9, "deit_tiny": 24, "deit_small": 24}
RECIPE = {
    "optimizer": "adamw",
    "batch_size": 32,
    "learning_rate": 3e-4,
    "weight_decay": 0.02,
    "schedule": "one_cycle",
    "clip_norm": 1.0,
    "seed": 0,
}
BATCH = RECIPE["batch_size"]
HELD_OUT = 10  # every tenth person


@dataclass(frozen=True)
class Actions:
    """The targets of N faces.

    Attributes:
        names: the A facial actions.
        values: (N, A) float32, standardised by the training faces.
        mirror: (A,), where each action is found in the mirrored face: left and right change places.
        train: rows to train on.
        held_out: rows of other people.
    """

    names: list[str]
    values: torch.Tensor
    mirror: torch.Tensor
    train: np.ndarray
    held_out: np.ndarray

    def seen(self, rows: np.ndarray, flip: torch.Tensor) -> torch.Tensor:
        """Return the targets (rows, A) of views; those with `flip` < 0, (rows,), are mirrored."""
        values = self.values[rows]
        return torch.where(flip[:, None] < 0, values[:, self.mirror], values)


def read_actions(attributes: Path, faces: pd.DataFrame) -> Actions:
    """Read the facial actions of `faces` (`image_id`) from the renderer's `attributes.csv`.

    Every column of numbers that begins with a small letter and varies is an action's weight: action
    units begin with a capital, and `pspi` is a judgement of pain. Raises `StudyError` for a face
    that the table lacks, or too few people.
    """
    table = read_csv(attributes).set_index("image_id")
    if missing := sorted(set(faces["image_id"]) - set(table.index)):
        raise StudyError(
            f"{files.short_path(attributes)} lacks {missing[0]}: render the faces again."
        )
    table = table.loc[faces["image_id"]]
    person = pd.factorize(table["identity"], sort=True)[0]
    if person.max() + 1 < 2 * HELD_OUT:
        raise StudyError(f"Pretraining needs the faces of at least {2 * HELD_OUT} people.")
    held_out = person % HELD_OUT == HELD_OUT - 1
    numbers = table.select_dtypes("number").drop(columns="pspi")
    numbers = numbers[[name for name in numbers if name[0].islower()]]
    train = numbers[~held_out]
    numbers = numbers.loc[:, train.std() > 0]
    names = list(numbers)
    values = ((numbers - train[names].mean()) / train[names].std(ddof=0)).to_numpy(np.float32)
    return Actions(
        names=names,
        values=torch.from_numpy(values),
        mirror=torch.tensor([names.index(mirrored(name)) for name in names]),
        train=np.flatnonzero(~held_out),
        held_out=np.flatnonzero(held_out),
    )


def mirrored(action: str) -> str:
    """Return the action that a mirrored face shows in place of `action`."""
    if action.endswith("Left"):
        return action.removesuffix("Left") + "Right"
    return action.removesuffix("Right") + "Left" if action.endswith("Right") else action


def weakened(views: Views, strength: float) -> Views:
    """Return views between the plain picture (`strength` 0) and `views` (1), flipped as these."""
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return views._replace(
        crop=torch.lerp(whole, views.crop, strength),
        angle=strength * views.angle,
        colour=1 + strength * (views.colour - 1),
    )


class Regressor(nn.Module):
    """A timm backbone with a linear output for each action, and the heads that help it to begin.

    The position embeddings of a plain Transformer begin as sines and cosines of the place (Vaswani
    et al. 2017, in two dimensions).
    """

    def __init__(self, backbone: str, image_size: int, outputs: int) -> None:
        super().__init__()
        self.architecture = (TEACHERS | STUDENTS)[backbone].split(".")[0]
        size = {} if "resnet" in self.architecture else {"img_size": image_size}
        self.body = timm.create_model(self.architecture, num_classes=outputs, **size)
        self.stages = 1 if "deit" in self.architecture else 3
        if "deit" in self.architecture:
            size, width = self.body.patch_embed.grid_size, self.body.embed_dim
            grid = build_sincos2d_pos_embed(size, width, interleave_sin_cos=False)
            with torch.no_grad():
                self.body.pos_embed[0, 1:] = grid
        with torch.inference_mode():
            _, places = self.eval().features(torch.zeros(1, 3, image_size, image_size))
        self.local_heads = nn.ModuleList(nn.Linear(x.shape[1], outputs) for x in places)
        for head in self.local_heads:
            nn.init.normal_(head.weight, std=1e-3)

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last features, and those of every place, stage by stage, (N, -1) each."""
        last, stages = self.body.forward_intermediates(images, indices=self.stages)
        patches = last[:, getattr(self.body, "num_prefix_tokens", 0) :]
        return last, [x.flatten(1) for x in (*stages[:-1], patches)]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return what every head says, (N, outputs) float32 each; the first one is the backbone's.

        The others are there while it is trained.
        """
        last, places = self.features(images)
        found = [self.body.forward_head(last)]
        if self.training:
            found += [head(x) for head, x in zip(self.local_heads, places, strict=True)]
        return [x.float() for x in found]


class Pretraining:
    """One backbone's pretraining, which goes on after its last epoch where it was broken off.

    All randomness of an epoch is drawn from (seed, epoch), as in the study's own training.
    """

    def __init__(
        self,
        backbone: str,
        crops_dir: str | Path,
        attributes: Path,
        work_dir: str | Path,
        image_size: int = 112,
        epochs: int | None = None,
        device: str = "auto",
    ) -> None:
        self.image_size, self.epochs = image_size, epochs or EPOCHS[backbone]
        self.device = pick_device(device)
        set_determinism(RECIPE["seed"], True)
        self.faces = load_faces(crops_dir, image_size)
        self.actions = read_actions(attributes, self.faces.table)
        net = Regressor(backbone, image_size, len(self.actions.names))
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.dtype = precision(self.device, True)
        choose_attention(self.net, self.device, self.dtype)
        self.steps = len(self.actions.train) // BATCH
        rate = RECIPE["learning_rate"]
        decay = RECIPE["weight_decay"]
        self.optimizer = torch.optim.AdamW(self.net.parameters(), rate, weight_decay=decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, self.epochs * self.steps, pct_start=0.1, cycle_momentum=False
        )
        self.history: list[dict] = []
        self.identity = {
            "backbone": backbone,
            "image_size": image_size,
            "epochs": self.epochs,
            "crops_sha256": sha256(project_path(crops_dir) / "manifest.csv"),
        } | RECIPE
        self.checkpoint = project_path(work_dir) / f"{backbone}.pt"

    def fit(self) -> None:
        """Train to the last epoch, with a checkpoint after each."""
        parts = {"net": self.net, "optimizer": self.optimizer, "schedule": self.schedule}
        if self.checkpoint.is_file():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            if state["identity"] == self.identity:
                self.history = state["history"]
                for name, part in parts.items():
                    part.load_state_dict(state[name])
        backbone = self.identity["backbone"]
        done, total = len(self.history) * self.steps, self.epochs * self.steps
        with tqdm(total=total, initial=done, desc=backbone, unit="step", mininterval=5) as bar:
            for epoch in range(len(self.history) + 1, self.epochs + 1):
                loss = self.train_epoch(epoch, bar)
                held_out = float(self.errors().mean())
                bar.set_postfix(held_out=f"{held_out:.3f}")
                row = {"backbone": backbone, "image_size": self.image_size, "epoch": epoch}
                self.history.append(row | {"train_loss": loss, "held_out_loss": held_out})
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"identity": self.identity, "history": self.history}
                with replacing(self.checkpoint) as temporary:
                    torch.save(state, temporary)

    def train_epoch(self, epoch: int, bar: tqdm) -> float:
        """Train for one epoch and return the mean loss of the backbone's own head."""
        seed = RECIPE["seed"]
        torch.manual_seed(seed * 100_003 + epoch)
        order = np.random.default_rng([seed, epoch, 0]).permutation(self.actions.train)
        strength = min(1.0, 2 * (epoch - 1) / self.epochs)
        self.net.train()
        total = torch.zeros((), device=self.device)
        for step in range(self.steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            views = weakened(draw_views(BATCH, seed, epoch * self.steps + step), strength)
            targets = self.actions.seen(rows, views.flip).to(self.device)
            images = self.faces.images[rows].to(self.device)
            views = Views(*(part.to(self.device) for part in views))
            images = augment(images, views, self.image_size)
            with autocast(self.device, self.dtype):
                found = self.net(images)
            own, *local = (nn.functional.mse_loss(x, targets) for x in found)
            self.optimizer.zero_grad(set_to_none=True)
            (own + sum(local)).backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), RECIPE["clip_norm"])
            self.optimizer.step()
            self.schedule.step()
            total += own.detach()
            bar.update()
        return (total / self.steps).item()

    def errors(self) -> pd.Series:
        """Return the mean squared error of each action on the held-out people, by name.

        Targets are standardised, so 1 is what always saying the mean gives, and 1 minus the error
        is about the explained variance.
        """
        rows, found = self.actions.held_out, []
        self.net.eval()
        with torch.inference_mode():
            for part in np.array_split(rows, -(-len(rows) // 128)):
                images = plain_view(self.faces.images[part].to(self.device), self.image_size)
                with autocast(self.device, self.dtype):
                    found.append(self.net(images)[0].cpu())
        error = (torch.cat(found) - self.actions.values[rows]).square().mean(0)
        return pd.Series(error.numpy(), index=self.actions.names)

    def write(self, out_dir: str | Path) -> dict:
        """Write the weights (16 bits, no head), what was measured, and return that.

        `<timm architecture>.safetensors`, `.csv` (epochs) and `.json` in `out_dir`.
        """
        errors, body = self.errors(), self.net.body
        half = {
            key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in body.state_dict().items()
        }
        body.load_state_dict(half)
        rounded = self.errors()
        head = body.pretrained_cfg["classifier"] + "."
        path = project_path(out_dir) / f"{self.net.architecture}.safetensors"
        with replacing(path) as temporary:
            save_file({k: v for k, v in half.items() if not k.startswith(head)}, temporary)
        circumstances = {"precision": str(self.dtype).removeprefix("torch.")}
        circumstances |= {"device": str(self.device), "threads": torch.get_num_threads()}
        about = {
            "backbone": self.identity["backbone"],
            "architecture": self.net.architecture,
            "stages": [[self.image_size, self.epochs]],
            "recipe": RECIPE | circumstances,
            "faces": {"train": len(self.actions.train), "held_out": len(self.actions.held_out)},
            "crops_sha256": self.identity["crops_sha256"],
            "sha256": sha256(path),
            "held_out_error": round(float(errors.mean()), 5),
            "held_out_error_16_bit": round(float(rounded.mean()), 5),
            "held_out_errors": {k: round(float(v), 4) for k, v in errors.items()},
        }
        files.write_csv(path.with_suffix(".csv"), pd.DataFrame(self.history).round(5))
        files.write_json(path.with_suffix(".json"), about)
        return about


def crop_rendered(folder: str | Path, out_dir: str | Path) -> None:
    """Crop the rendered faces in `folder` (`faces/`, `attributes.csv`) as chapter 2 crops.

    Crops that are there are kept.
    """
    from helpers.crops import crop_faces  # here: training needs no face detector

    folder = project_path(folder)
    faces = read_csv(folder / "attributes.csv")
    paths = "faces/" + faces["image_id"] + ".jpg"
    hashes = [sha256(folder / path) for path in tqdm(paths, "Hashing", unit="face")]
    same = {"side": "right", "label": "NoPain", "split": "train", "width": 328, "height": 368}
    table = faces[["image_id", "identity", "gender", "age", "ethnicity"]]
    table = table.assign(path=paths, expression="NoPain", sha256=hashes, **same)
    files.write_csv(folder / "manifest.csv", table)
    crop_faces(folder, out_dir, 256, 0.2, 80, "auto")


def card(folder: str | Path = OUT) -> str:
    """Return the weights' card as Markdown: recipe, held-out errors, the effect of 16 bits.

    Raises `StudyError` where `folder` holds no weights.
    """
    measured = [files.read_json(path) for path in sorted(project_path(folder).glob("*.json"))]
    if not measured:
        raise StudyError(f"The folder {files.short_path(folder)} holds no weights: make faces.")
    rows = []
    for each in measured:
        errors = pd.Series(each["held_out_errors"])
        ends = (f"{name} {number(errors[name])}" for name in (errors.idxmin(), errors.idxmax()))
        row = {"backbone": name_of(each["backbone"]), "epochs": each["stages"][-1][1]}
        row |= {"held-out error": number(each["held_out_error"], 4)}
        row |= {"in 16 bits": number(each["held_out_error_16_bit"], 4)}
        rows.append(row | {"best, worst action": ", ".join(ends), "sha256": each["sha256"][:12]})
    first, recipe = measured[0], measured[0]["recipe"]
    size = f"{first['stages'][-1][0]} pixels, seed {recipe['seed']}, {recipe['precision']}"
    return f"""# Weights to start from

Made by `data/standin/pretrain.py` (`make faces`); [data/README.md](../../README.md) says how.

- {first["faces"]["train"]:,} faces to train on, {first["faces"]["held_out"]:,} of others held out
- {len(first["held_out_errors"])} facial actions, standardised: an error of 1 is saying the mean
- {recipe["optimizer"]}, {recipe["schedule"]}, learning rate {recipe["learning_rate"]}
- batches of {recipe["batch_size"]}, {size}

{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}

![Held-out error by epoch](curves.png)
"""


def curves(folder: str | Path = OUT) -> plt.Figure:
    """Draw the held-out error of each backbone by epoch; the dotted line is saying the mean."""
    tables = [read_csv(path) for path in sorted(project_path(folder).glob("*.csv"))]
    history = pd.concat(tables, ignore_index=True)
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.axhline(1, color=MUTED, linewidth=1, linestyle=":")
    colours = [colour_of(name) for name in history["backbone"].unique()]
    history["backbone"] = history["backbone"].map(name_of)
    look = {"hue": "backbone", "palette": colours, "marker": "o"}
    sns.lineplot(history, x="epoch", y="held_out_loss", ax=ax, **look)
    ax.set(ylabel="held-out error of the actions", ylim=(0, None))
    return fig


def main() -> None:
    """Crop the rendered faces, pretrain each backbone, write weights, card and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", default="data/raw/pretrain", help="faces/ and attributes.csv")
    parser.add_argument("--crops", default="data/crops/pretrain")
    parser.add_argument("--work", default="runs/pretrain", help="checkpoints")
    parser.add_argument("--out", default=OUT)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "swin", "deit_tiny"],
                        choices=[*TEACHERS, *STUDENTS])  # fmt: skip
    given = parser.parse_args()
    crop_rendered(given.faces, given.crops)
    attributes = project_path(given.faces) / "attributes.csv"
    for backbone in given.backbones:
        pretraining = Pretraining(backbone, given.crops, attributes, given.work)
        pretraining.fit()
        error = pretraining.write(given.out)["held_out_error"]
        print(f"{backbone}: held-out error {error} (1 is saying the mean)")
    use_style()
    save_fig(curves(given.out), given.out, "curves")
    files.write_text(project_path(given.out) / "README.md", card(given.out))


if __name__ == "__main__":
    try:
        main()
    except StudyError as error:
        sys.exit(str(error))
