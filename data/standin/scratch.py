"""What can be learned from such faces, asked of scratch people who are in no part of the study.

    make scratch       renders and crops 1,400 of them, and asks (hours; goes on where it broke off)

    python data/standin/scratch.py crop scratch|control|cues    (`make cues`, `make control`)
    python data/standin/scratch.py ask [--workers 2]

Of the scratch people 400 are site A, 400 site B, 40 for validation and 560 for test, dealt as
chapter 1 deals. `ask` writes what a line through each start's frozen features tells (`probes.csv`
beside the weights), the recipes that were tried (`audit/recipes.csv`), and the difficulty card: the
learning curve of the untaught student and each teacher on A (`audit/curve.csv`,
`audit/teachers.csv`). All is on expressive halves, Pain against NoPain, with seeds from 100 on.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from helpers import distil, files, pairs, runs, splits, stats
from helpers.devices import set_determinism
from helpers.faces import FaceStore, load_faces, plain_view
from helpers.files import ROOT, StudyError, project_path
from helpers.models import BUILD, FACES_WEIGHTS
from helpers.train import Trainer

RAW, CROPS, RUNS = "data/raw/{}", "data/crops/{}", ROOT / "runs/scratch"
CUES, AUDIT = ROOT / "data/standin/cues", ROOT / "data/standin/audit"
MARGIN, FACE = 0.2, 80  # as the study's configs
FOLDS, PLACES = (400, 400, 40), ("A", "B", "validation", "test")
NETWORKS = ("deit_tiny", "resnet50", "swin")
FIRST_SEED, SEEDS = 100, 10
IMAGE_SIZE = 112


def crop(name: str) -> pd.DataFrame:
    """Crop the faces in `data/raw/<name>`; return their manifest.

    Of `scratch` and `control` as chapter 2 crops, people dealt to sites and splits. Of `cues` all
    pictures of a person by the box of the neutral one, so that nothing but the face moves.
    """
    folder = project_path(RAW.format(name))
    if not (folder / "attributes.csv").is_file():
        raise StudyError(f"{files.short_path(folder)} holds no rendered faces: make {name}.")
    table = files.read_csv(folder / "attributes.csv")
    table["path"] = "faces/" + table["image_id"] + ".jpg"
    if name == "cues":
        return _crop_cues(folder, table)
    from helpers.crops import crop_faces  # here: training needs no face detector

    pain = table["pain"] if name == "scratch" else table["geometry"]
    table["label"] = table["expression"] = np.where(pain == 1, "Pain", "NoPain")
    counts = [*FOLDS, len(table) - sum(FOLDS)]
    place = table["identity"].map(splits.draw(table, np.divide(counts, len(table)), 0))
    place = place.map(dict(enumerate(PLACES)))
    table["site"] = place.where(place.isin(splits.SITES), "")
    table["split"] = place.where(~place.isin(splits.SITES), "train")
    table["sha256"] = [files.sha256(folder / path) for path in tqdm(table["path"], "Hashing")]
    files.write_csv(folder / "manifest.csv", table.assign(side="right", width=328, height=368))
    return crop_faces(folder, CROPS.format(name), 256, MARGIN, FACE, "auto")


def _crop_cues(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    from helpers.crops import align_crop, detect, make_detector

    detector, size = make_detector(FACE), 256
    for _, rows in tqdm(table.groupby("identity"), "Cropping cues", unit="person"):
        shown = {row.image_id: Image.fromarray(pairs.read_rgb(folder / row.path)) for row in
                 rows.itertuples()}  # fmt: skip
        [face] = detect(detector, [shown[f"{rows['identity'].iloc[0]}_neutral"]])
        for image_id, picture in shown.items():
            with files.replacing(CUES / f"{image_id}.jpg") as temporary:
                cropped = align_crop(picture, face, size, MARGIN)[0]
                cropped.save(temporary, "JPEG", quality=90)  # 17 MB for all; 95 would be 23
    table = table.assign(path=table["image_id"] + ".jpg", width=size, height=size)
    files.write_csv(CUES / "manifest.csv", table)
    return table


@dataclass(frozen=True)
class Try:
    """One training: of which network, on how many labelled people of a site, by which recipe.

    `site`: A, B or AB. `teacher`: the folder name of the try that teaches, k = 0; or none.
    """

    network: str
    site: str
    labelled: int
    seed: int = FIRST_SEED
    head_steps: int = 150
    learning_rate: float = 3e-5
    steps: int = 250
    teacher: str = ""

    @property
    def name(self) -> str:
        """The name of its folder: all that decides it."""
        return "-".join(f"{value:g}" if isinstance(value, float) else str(value)
                        for value in asdict(self).values() if value != "")  # fmt: skip


def home(seed: int) -> str:
    """Return the site whose people a student sees: odd seeds swap the sites, as in the study."""
    return "BA"[seed % 2]


def away(seed: int) -> str:
    """Return the site whose people a teacher is trained on."""
    return "AB"[seed % 2]


@cache
def scratch_faces() -> FaceStore:
    """Return the scratch people's crops."""
    return load_faces(CROPS.format("scratch"), IMAGE_SIZE)


def labelled_people(site: str, count: int, seed: int) -> np.ndarray:
    """Return the rows of `count` people of `site`, half of them in pain; nested within a seed."""
    faces = scratch_faces()
    rows = np.flatnonzero(faces.table["site"].isin([*site]))
    if count >= len(rows):
        return rows
    rng, labels = np.random.default_rng([seed, 11]), faces.labels[rows].numpy()
    parts = [rng.permutation(rows[labels == label])[: count // 2] for label in (0, 1)]
    return np.sort(np.concatenate(parts))


def train(one: Try) -> dict:
    """Train, or read what was trained; return the try and what it does on the test people.

    Of one on all of a site: sensitivity and specificity on the other, where it would teach.
    """
    torch.set_num_threads(1)
    folder, faces, device = RUNS / one.name, scratch_faces(), torch.device("cpu")
    if not (folder / "metrics.json").is_file():
        stage = "student" if one.network.startswith("deit") else "teacher"
        recipe = {"batch_size": 32, "optimizer": "adam", "weight_decay": 0.0, "clip_norm": 1.0}
        recipe |= {"schedule": "one_cycle", "image_size": IMAGE_SIZE, "init": "faces", "amp": True}
        recipe |= {"epochs": 1, "head_learning_rate": 1e-2, stage: one.network} | asdict(one)
        set_determinism(one.seed, True)
        rows, teacher = labelled_people(one.site, one.labelled, one.seed), None
        if one.teacher:
            teacher = distil.FrozenTeacher(runs.read_run(RUNS / one.teacher), device)
            recipe["distillation"] = "hard"
        torch.manual_seed(one.seed)
        model, _ = BUILD[stage](one.network, "faces", IMAGE_SIZE)
        model.to(memory_format=torch.channels_last)
        params = {"stage": stage, "name": one.name, "parameters": recipe}
        unlabelled = np.zeros(len(rows), bool) if one.teacher else None
        Trainer(model, faces, rows, folder, params, teacher, unlabelled, one.steps).run()
        (folder / "checkpoint.pt").unlink()
    run = runs.read_run(folder)
    found = asdict(one) | {"auroc": run.metrics["test"]["auroc"]}
    if one.labelled == 400:
        other = (faces.table["site"] == {"A": "B", "B": "A"}[one.site]).to_numpy()
        said = run.predictions["probability"].to_numpy()[other] > 0.5
        pain = faces.labels.numpy()[other] > 0
        found |= {"sensitivity": said[pain].mean(), "specificity": 1 - said[~pain].mean()}
    return found


def probe_start(network: str) -> list[dict]:
    """Ask a line through a start's frozen features, with 16, 64, 400 and 800 labelled people.

    Ten draws of the small ones, of either site in turn; 400 are all of a site. The features are
    what its head would see: of a DeiT the class token and the mean of the places.
    """
    faces = scratch_faces()
    stage = "student" if network.startswith("deit") else "teacher"
    model = BUILD[stage](network, "faces", IMAGE_SIZE)[0].eval()
    features = []
    with torch.inference_mode():
        for images in tqdm(faces.images.split(100), f"Features of {network}"):
            last = model.forward_features(plain_view(images, IMAGE_SIZE))
            if last.ndim == 3:  # the class token, one for distillation, the places
                features.append(torch.cat([last[:, 0], last[:, 2:].mean(1)], 1))
            else:
                features.append(model.forward_head(last, pre_logits=True))
    seen, pain = torch.cat(features).numpy(), faces.labels.numpy() > 0
    test, rows = faces.rows("test"), []
    for count, draws in {16: SEEDS, 64: SEEDS, 400: 2, 800: 1}.items():
        for seed in range(FIRST_SEED, FIRST_SEED + draws):
            known = labelled_people("AB" if count == 800 else home(seed), count, seed)
            line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
            told = line.fit(seen[known], pain[known]).decision_function(seen[test])
            area = stats.measure_auroc(pain[test], told)["auroc"].item()
            rows.append({"backbone": network, "labelled": count, "seed": seed, "auroc": area})
    return rows


# The same few tries for each network: one thing changed at a time, then the two that helped.
TRIES = [
    {},
    {"head_steps": 0},
    {"learning_rate": 1e-4},
    {"head_steps": 0, "learning_rate": 1e-4},
    {"steps": 500},
]


def tries() -> list[Try]:
    """Return what is trained to choose recipes: students with few, more and all labels, teachers.

    The student's first two seeds at 16 people, where draws differ most.
    """
    found = []
    for network, recipe in product(NETWORKS, TRIES):
        if network == "deit_tiny":
            sizes = [(16, 100), (16, 101), (64, 100), (400, 100)]
            found += [Try(network, home(seed), k, seed, **recipe) for k, seed in sizes]
        found.append(Try(network, away(FIRST_SEED), 400, **recipe))
    return found


# What `tries` led to, for all networks alike.
CHOSEN = {}


def difficulty() -> list[Try]:
    """Return what the difficulty card stands on: the untaught student and the teachers.

    Ten draws of 16 and 64 people alone; 400 are all of a site, which is what truth would teach.
    """
    draws = {16: SEEDS, 64: SEEDS, 128: 4, 256: 4, 400: 4, 800: 4}
    found = []
    for count, seeds in draws.items():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            site = "AB" if count == 800 else home(seed)
            found.append(Try("deit_tiny", site, count, seed, **CHOSEN))
    at = range(FIRST_SEED, FIRST_SEED + 2)
    return found + [Try(n, away(seed), 400, seed, **CHOSEN) for n in NETWORKS for seed in at]


def train_all(wanted: list[Try], workers: int) -> pd.DataFrame:
    """Train what is not there yet, side by side with one thread each; return a row a try."""
    rows, bar = [], tqdm(total=len(wanted), desc="Training", unit="run")
    context = multiprocessing.get_context("spawn")
    with bar, ProcessPoolExecutor(workers, mp_context=context) as pool:
        for row in pool.map(train, wanted):
            rows.append(row)
            bar.update()
    return pd.DataFrame(rows)


def ask(workers: int) -> None:
    """Probe the starts, try the recipes, measure the difficulty; write the tables."""
    table = pd.DataFrame([row for name in NETWORKS for row in probe_start(name)])
    files.write_csv(ROOT / FACES_WEIGHTS / "probes.csv", table.round(4))
    files.write_csv(AUDIT / "recipes.csv", train_all(tries(), workers).round(4))
    found = train_all(difficulty(), workers).drop(columns="teacher").round(4)
    files.write_csv(AUDIT / "teachers.csv", found[found["site"] == found["seed"].map(away)])
    rates = ["sensitivity", "specificity"]
    files.write_csv(
        AUDIT / "curve.csv", found[found["site"] != found["seed"].map(away)].drop(columns=rates)
    )


def main() -> None:
    """Run the command line."""
    with files.command("scratch", __doc__) as parser:
        parser.add_argument("what", choices=["crop", "ask"])
        parser.add_argument("name", nargs="?", choices=["scratch", "control", "cues"])
        parser.add_argument("--workers", type=int, default=2)
        given = parser.parse_args()
        if given.what == "ask":
            return ask(given.workers)
        table = crop(given.name or "scratch")
        print(f"{len(table)} faces of {table['identity'].nunique()} people")


if __name__ == "__main__":
    main()
