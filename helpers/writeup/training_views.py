"""Pictures around a training: what the network sees, and where it errs."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from helpers.figures import COLOURS, colour_of, image_grid
from helpers.files import project_path
from helpers.prose import markdown_table, percent
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD, augment, draw_views
from helpers.training.faces import read_manifest
from helpers.training.runs import Run

_SPLITS = ("train", "validation", "test")


def describe_splits(crops_dir: str | Path) -> str:
    """Return a Markdown table: people, faces and pain faces of each split."""
    table = read_manifest(crops_dir)
    rows = table.groupby("split", sort=False).agg(
        people=("identity", "nunique"),
        faces=("image_id", "size"),
        pain=("label", lambda label: int((label == "Pain").sum())),
    )
    rows = rows.reindex([split for split in _SPLITS if split in rows.index])
    rows["share of pain"] = (rows["pain"] / rows["faces"]).map(percent)
    return markdown_table(rows.reset_index())


def show_views(
    crops_dir: str | Path, image_size: int, seed: int, people: int = 3, views: int = 6
) -> plt.Figure:
    """Show a few training faces, each as it is and in several augmented views."""
    table = read_manifest(crops_dir)
    train = table[(table["split"] == "train") & (table["side"] == "right")]
    chosen = train.sample(min(people, len(train)), random_state=seed)
    images, titles = [], []
    for row, path in enumerate(chosen["path"]):
        with Image.open(project_path(crops_dir) / path) as opened:
            crop = opened.convert("RGB").resize((image_size, image_size))
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1).repeat(views, 1, 1, 1)
        seen = augment(pixels, draw_views(views, seed, epoch=row + 1), image_size)
        images += [crop, *_to_uint8(seen)]
        titles += ["crop", *[f"view {view + 1}" for view in range(views)]]
    return image_grid(images, titles, columns=views + 1, width=1.25)


def show_errors(run: Run, split: str = "test", count: int = 6) -> plt.Figure:
    """Show the faces of a split on which a run errs with most confidence, both kinds of error.

    An empty figure says so where the run makes no error, or the crops are not at hand.
    """
    faces = run.predictions[run.predictions["split"] == split]
    pain, called = faces["label"] == "Pain", faces["probability"] > 0.5
    missed = faces[pain & ~called].nsmallest(count, "probability")
    raised = faces[~pain & called].nlargest(count, "probability")
    folder = project_path(run.params["crops_dir"])
    if not (folder / "manifest.csv").is_file():
        return image_grid([])
    paths = read_manifest(folder).set_index("image_id")["path"]
    images, titles, colours = [], [], []
    for kind, rows in (("missed pain", missed), ("false alarm", raised)):
        for image_id, probability in zip(rows["image_id"], rows["probability"], strict=True):
            if (path := folder / paths.get(image_id, "")).is_file():
                images.append(Image.open(path).convert("RGB").resize((160, 160)))
                titles.append(f"{kind}\nP(pain) = {probability:.2f}")
                colours.append(colour_of(run.name) if kind == "missed pain" else COLOURS["none"])
    return image_grid(images, titles, columns=count, width=1.45, colours=colours)


def _to_uint8(seen: torch.Tensor) -> list[np.ndarray]:
    """(N, 3, H, W) normalised views as N arrays (H, W, 3) of uint8."""
    mean = torch.tensor(IMAGENET_MEAN)[None, :, None, None]
    std = torch.tensor(IMAGENET_STD)[None, :, None, None]
    pixels = ((seen * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).numpy())
