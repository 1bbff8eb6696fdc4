"""Audit the bundled pairs: shortcuts, difficulty, pain as a dose.

    python data/standin/audit.py [--crops data/crops/standin]

reads `data/standin` and its crops, which chapters 1 and 2 make, and writes tables, figure and what
they say to `data/standin/audit/`. It takes a quarter of an hour on one core, most of it for the
network that is trained once for each of five folds.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from tqdm import tqdm

from helpers import files, plots, probes, stats
from helpers.devices import autocast, precision
from helpers.faces import augment, draw_views, load_faces, plain_view
from helpers.naming import parse_name

STANDIN = files.ROOT / "data/standin"
OUT = STANDIN / "audit"
CPU, BATCH, RATE = torch.device("cpu"), 32, 2e-3
PSPI_EDGES = (0, 3, 5, 7, 9, 11, 13, 16.1)
CELL = ["gender", "age", "ethnicity"]


def read_pairs(folder: Path = STANDIN / "pairs") -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return a row a pair (`parse_name`, `cell`, `bytes`), the left halves and the right ones.

    Halves are (pairs, 92, 80, 3) uint8, without the columns about the middle, where the seam is.
    """
    paths = sorted(folder.iterdir())

    def read(path: Path) -> list[np.ndarray]:
        with Image.open(path) as pair:
            pair.draft("RGB", (pair.width // 2, pair.height // 2))
            inner = round(0.48 * pair.width)
            boxes = ((x, 0, x + inner, pair.height) for x in (0, pair.width - inner))
            return [np.asarray(pair.resize((80, 92), Image.Resampling.BOX, box)) for box in boxes]

    halves = np.stack(list(files.side_by_side(read, paths, "Reading pairs", "pair")))
    table = pd.DataFrame([parse_name(path.name) for path in paths])
    table["cell"] = table[CELL].agg(" ".join, axis=1)
    table["bytes"] = [path.stat().st_size for path in paths]
    return table, halves[:, 0], halves[:, 1]


def thumbnails(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (N, H, W, 3) uint8 pictures brought to `size` (width, height)."""
    return np.stack([Image.fromarray(x).resize(size, Image.Resampling.BOX) for x in images])


def colour_statistics(images: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation and quartiles of each channel, (N, 15)."""
    pixels = images.reshape(len(images), -1, 3).astype(np.float32)
    quartiles = np.quantile(pixels, [0.25, 0.5, 0.75], axis=1)
    return np.concatenate([pixels.mean(1), pixels.std(1), *quartiles], axis=1)


def shortcuts(
    pairs: pd.DataFrame, left: np.ndarray, right: np.ndarray, epochs: int = 8
) -> pd.DataFrame:
    """Probe for the expression of a pair what should not tell it, on people not trained on.

    Nothing in how the pairs were made may link it to Pain or NoPain, so each AUROC should be 0.5.
    `pairs`, `left`, `right`: see `read_pairs`. `epochs`: of the small network, which is asked too
    where they are not 0. Returns `probe`, `pairs`, `estimate`, `low`, `high`.
    """
    pain = (pairs["expression"] == "Pain").to_numpy()
    folds = probes.folds_of(pain, pairs["identity"], pairs["cell"])
    weights = stats.identity_weights(pairs["identity"], 2000, 0)
    walls = np.concatenate([right[:, :29, :12], right[:, :29, -12:]], axis=2)  # upper corners
    seen = {
        "neutral half": thumbnails(left, (20, 23)),
        "background": thumbnails(walls, (4, 15)),
        "colour statistics": colour_statistics(right[:, ::2, ::2]),
        "file size": np.stack([pairs["bytes"], np.log(pairs["bytes"])], axis=1),
        "demographic cell": pd.get_dummies(pairs["cell"]).to_numpy(),
    }
    found = {name: probes.probe(x, pain, folds, weights) for name, x in seen.items()}
    for name, images in {"neutral half": left, "background": walls}.items() if epochs else ():
        squares = torch.from_numpy(thumbnails(images, (64, 64))).permute(0, 3, 1, 2)
        told = out_of_fold(squares, pain, folds, 56, epochs)
        tables = [[stats.measure_auroc(pain, told, drawn)] for drawn in (None, weights)]
        found[f"{name}, by a network"] = stats.estimates(*tables)["auroc"]
    rows = [{"probe": name, "pairs": len(pain)} | each.row() for name, each in found.items()]
    return pd.DataFrame(rows)


def out_of_fold(
    images: torch.Tensor, positive: np.ndarray, folds: list, size: int, epochs: int
) -> np.ndarray:
    """Return P(positive) of every picture by a small network that never saw its person, (N,).

    `images`: (N, 3, S, S) uint8, seen at `size` pixels. `positive`: bool, (N,).
    """
    labels = torch.from_numpy(positive.astype(np.float32))
    told, dtype = np.empty(len(labels)), precision(CPU, amp=True)
    for train, test in tqdm(folds, "Folds", unit="fold"):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=1).train()
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02)
        total = epochs * (len(train) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total)
        for step in range(total):
            if step % (total // epochs) == 0:
                batches = iter(torch.randperm(len(train)).split(BATCH))
            rows = train[next(batches)]
            views = augment(images[rows], draw_views(len(rows), 0, step), size)
            with autocast(CPU, dtype):
                logits = net(views)[:, 0].float()
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, labels[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.inference_mode(), autocast(CPU, dtype):
            view = plain_view(images[test], size)
            logits = net.eval()(view).float() + net(view.flip(3)).float()
        told[test] = torch.sigmoid(logits[:, 0] / 2).numpy()
    return told


def difficulty(crops_dir: str, epochs: int = 12) -> dict[str, pd.DataFrame]:
    """Return how hard the faces are, and whether pain is a dose, by a small network's P(pain).

    `facts`; `difficulty`: means by kind of expression; `dose`: mean P(pain) of expressive halves by
    PSPI, Pain and NoPain apart.
    """
    store = load_faces(crops_dir, 96)
    made = files.read_csv(STANDIN / "attributes.csv")[["image_id", "kind", "pspi"]]
    faces = store.table.merge(made, on="image_id", validate="one_to_one")
    pain = stats.is_pain(faces)
    cells = faces[["expression", *CELL]].agg(" ".join, axis=1)
    folds = probes.folds_of(pain, faces["identity"], cells)
    told = out_of_fold(store.images, pain, folds, 96, epochs)
    faces = faces.assign(probability=told, accuracy=(told > 0.5) == pain)
    right = faces[faces["side"] == "right"]
    area = stats.measure_auroc(stats.is_pain(right), right["probability"])
    facts = {"faces": len(faces), "faces found by MTCNN": int(faces["detected"].sum())}
    facts |= {"accuracy, expressive halves": right["accuracy"].mean()}
    facts |= {"AUROC, expressive halves": area["auroc"].item()}
    for name, rows in (("expressive", right), ("Pain", right[right["label"] == "Pain"])):
        rank = rows["probability"].corr(rows["pspi"], "spearman")
        facts[f"rank correlation of P(pain) and PSPI, {name} halves"] = rank
    by_kind = faces.groupby("kind")[["accuracy", "probability", "pspi"]].mean()
    pspi = pd.cut(right["pspi"], PSPI_EDGES, right=False, labels=PSPI_EDGES[:-1])
    by_dose = right.groupby(["label", pspi], observed=True)["probability"]
    return {
        "facts": pd.DataFrame({"fact": facts.keys(), "value": facts.values()}),
        "difficulty": by_kind.sort_values("accuracy").reset_index(),
        "dose": by_dose.agg(faces="size", probability="mean").reset_index(),
    }


def card(folder: Path = OUT) -> str:
    """Return what the tables in `folder` say, as Markdown."""
    text = {}
    for name in ("shortcuts", "facts", "difficulty", "dose"):
        table = files.read_csv(folder / f"{name}.csv")
        text[name] = table.to_markdown(index=False, floatfmt=".4g")
    return f"""# The audit of the stand-in

Written by `data/standin/audit.py`. What should not tell a Pain pair from a NoPain pair, tested on
people that the probe was not trained on (AUROC, 95 % interval):

{text["shortcuts"]}

![AUROC of the probes](shortcuts.png)

How hard the faces are, asked of a network of 0.4 million parameters that has learnt from other
people's crops:

{text["facts"]}

{text["difficulty"]}

Whether its P(pain) of the expressive halves rises with PSPI (from the value on):

{text["dose"]}
"""


def main() -> None:
    """Run the audit; write its tables, the figure and the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", default="data/crops/standin")
    tables = {"shortcuts": shortcuts(*read_pairs())} | difficulty(parser.parse_args().crops)
    for name, table in tables.items():
        files.write_csv(OUT / f"{name}.csv", table.round(4))
    plots.use_style()
    plots.save_fig(plots.forest(tables["shortcuts"], y="probe", chance=0.5), OUT, "shortcuts")
    files.write_text(OUT / "README.md", card())


if __name__ == "__main__":
    main()
