"""What a config costs on this machine, in hours; from rates measured here.

    python benchmarks/study_cost.py [--config config/synpain.yaml] [--pairs 5355]
    python benchmarks/study_cost.py --published benchmarks/results/timm_rtx3090.csv

Takes some pairs of the stand-in at SynPAIN's size through chapters 1 and 2, trains each network on
them for one epoch with the config's image size, batch size and precision, and multiplies. Hours are
of the device: GPU-hours where it is run on a GPU. Weights are random, which costs the same as any.
With `--published` the rates are somebody else's, of a GPU that is not at hand: a lower bound, as
nothing but the networks was timed. Writes `benchmarks/results/study_cost_<config>.csv`, where rows
of another device stay.
"""

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from PIL import Image
from tqdm import tqdm

from helpers.crops import crop_faces
from helpers.devices import pick_device, precision
from helpers.faces import load_faces
from helpers.files import ROOT, project_path, read_csv, write_csv
from helpers.models import ready
from helpers.parameters import read_config
from helpers.prepare import prepare_dataset
from helpers.robustness import CONDITIONS
from helpers.runs import provenance
from helpers.train import distil_student, predict, train_teacher

PAIR_SIZE = (1312, 736)  # of SynPAIN, in pixels


def measure(work: Path, config: dict, sample: int) -> pd.DataFrame:
    """Return `training` and `scoring`, faces a second, of chapters 1 and 2 and of each network."""
    (work / "raw").mkdir()
    bundled = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    for path in bundled[:: len(bundled) // sample][:sample]:
        with Image.open(path) as pair:
            pair.resize(PAIR_SIZE, Image.Resampling.LANCZOS).save(work / "raw" / path.name)
    begin = time.perf_counter()
    prepare_dataset(work / "raw", work / "prepared", None, [0.7, 0.15, 0.15], 0)
    middle = time.perf_counter()
    settings = (config[name] for name in ("crop_size", "margin", "min_face_size", "device"))
    crop_faces(work / "prepared", work / "crops", *settings)
    seconds = {"01 prepare": middle - begin, "02 crop": time.perf_counter() - middle}
    rows = [{"model": name, "training": 2 * sample / s} for name, s in seconds.items()]
    recipe = config | {"seed": 0, "init": "scratch", "crops_dir": str(work / "crops")}
    recipe |= {"teacher_epochs": 1, "student_epochs": 1, "teacher_dir": ""}
    images = load_faces(work / "crops", config["image_size"]).images
    device = pick_device(config["device"])
    for name in tqdm([*config["teachers"], *config["students"]], "Training", unit="run"):
        teaches = name in config["teachers"]
        own = {"teacher": name} if teaches else {"student": name, "teacher": "none"}
        train = train_teacher if teaches else distil_student
        run = train(SimpleNamespace(**recipe, **own), work / name)
        model, begin = ready(run, device), time.perf_counter()
        predict(model, images, config["image_size"], precision(device, config["amp"]))
        row = {"model": name, "training": run.history["images_per_second"][0]}
        rows.append(row | {"scoring": len(images) / (time.perf_counter() - begin)})
    return pd.DataFrame(rows)


def costs(rates: pd.DataFrame, config: dict, pairs: int) -> pd.DataFrame:
    """Return `runs`, `faces_per_second`, `hours_a_run` and `hours` of each arm, and their sum.

    `rates`: see `measure`. A run trains its epochs, validates after each, and scores all faces at
    its end; a pupil is trained while its teacher scores the same views. Chapter 6 scores the test
    faces under every condition.
    """
    rates = rates.set_index("model")
    training, scoring = rates["training"], rates["scoring"]
    faces, seeds = 2 * pairs, len(config["seeds"])
    train, validation, test = (faces * share for share in config["split_ratios"])
    rows = [
        {"arm": name, "runs": 1, "faces_per_second": rate, "hours_a_run": faces / rate / 3600}
        for name, rate in training[scoring.isna()].items()
    ]
    arms = [("teacher", name, name, 0.0) for name in config["teachers"]]
    for student in config["students"]:
        arms.append(("student", f"{student}-none", student, 0.0))
        arms += [("student", f"{student}-{t}", student, 1 / scoring[t]) for t in config["teachers"]]
    disturbed = 0.0
    for stage, arm, network, answer in arms:
        rate = 1 / (1 / training[network] + answer)
        epochs = config[f"{stage}_epochs"]
        seconds = epochs * train / rate + (epochs * validation + faces) / scoring[network]
        rows.append({"arm": arm, "runs": seeds, "faces_per_second": rate})
        rows[-1]["hours_a_run"] = seconds / 3600
        disturbed += len(CONDITIONS) * test * seeds / scoring[network] / 3600
    rows.append({"arm": "06 what is inherited", "runs": 1, "hours_a_run": disturbed})
    table = pd.DataFrame(rows)
    table["hours"] = table["runs"] * table["hours_a_run"]
    total = {"arm": "all", "runs": table["runs"].sum(), "hours": table["hours"].sum()}
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)


def main() -> None:
    """Measure, multiply, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="config/synpain.yaml")
    parser.add_argument("--pairs", type=int, default=5355, help="of the whole study")
    parser.add_argument("--sample", type=int, default=184, help="pairs that are measured on")
    parser.add_argument("--published", help="a file of rates: then nothing is measured")
    given = parser.parse_args()
    config = read_config(given.config)
    if given.published:
        rates = read_csv(given.published)
        device, source = rates.loc[0, ["device", "source"]]
    else:
        with tempfile.TemporaryDirectory() as work:
            rates = measure(Path(work), config, given.sample)
        device, source = provenance(pick_device(config["device"]))["device"], "measured here"
    table = costs(rates, config, given.pairs).round(3).assign(device=device, source=source)
    print(table.drop(columns=["device", "source"]).fillna("").to_markdown(index=False))
    path = project_path("benchmarks/results") / f"study_cost_{Path(given.config).stem}.csv"
    if path.is_file():
        before = read_csv(path)
        table = pd.concat([before[before["device"] != device], table], ignore_index=True)
    write_csv(path, table)


if __name__ == "__main__":
    main()
