"""What a config costs on this machine: runs, hours, disk; from rates measured here.

    python benchmarks/study_cost.py --config config/synpain.yaml --pairs 5355
    python benchmarks/study_cost.py --published benchmarks/timm_rtx3090.csv

Takes some pairs of the stand-in at SynPAIN's size through chapters 1 to 4 with the config's image
size, batch size and precision, one epoch a run, and multiplies. Hours are of the device: GPU-hours
where it is run on a GPU. Weights are random, which costs the same as any. With `--published` the
rates are somebody else's, of a GPU that is not at hand, and only what needs a GPU is counted: a
lower bound, as nothing but the networks was timed. Writes
`results/benchmarks/study_cost_<config>.csv`, where rows of another machine stay, and for `synpain`
the table in README.
"""

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from crop_halves import prepare_standin
from tqdm import tqdm

from helpers.cropping.crops import crop_faces
from helpers.devices import pick_device, precision
from helpers.errors import StudyError
from helpers.files import project_path, read_csv, write_between, write_csv
from helpers.inheritance.corruptions import conditions
from helpers.networks.models import choose_attention
from helpers.parameters import read_config
from helpers.prose import markdown_table
from helpers.training.experiments import distil_student, train_teacher
from helpers.training.faces import load_faces
from helpers.training.inference import predict
from helpers.training.runs import Run, provenance
from helpers.training.trained import trained_model

START, END = "<!-- cost, by benchmarks/study_cost.py -->", "<!-- end of cost -->"
GB, HOUR = 1e9, 3600
HERE = "measured here"
_EPOCHS = {"teacher": "teacher_epochs", "student": "student_epochs"}


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
        rates = read_csv(project_path(given.published))
        rows, device = published(rates, config), rates["device"].iloc[0]
        source = f"by {rates['source'].iloc[0]}"
    else:
        with tempfile.TemporaryDirectory() as work:
            rows = measure(Path(work), config, given.sample)
        device, source = provenance(pick_device(config["device"]))["device"], HERE
    table = pd.DataFrame(costs(rows, config, given.pairs, given.sample))
    table = table.assign(device=device, source=source)
    path = project_path("results/benchmarks") / f"study_cost_{Path(given.config).stem}.csv"
    if path.is_file():
        before = read_csv(path)
        table = pd.concat([before[before["device"] != device], table], ignore_index=True)
    write_csv(path, table)
    print(planning_table(path))
    if Path(given.config).stem == "synpain":
        write_between("README.md", START, END, planning_table(path))


def planning_table(path: Path) -> str:
    """Return the table at `path` as Markdown, machine by machine."""
    parts = []
    for device, rows in read_csv(path).groupby("device", sort=False):
        total = rows[rows["stage"] == "all"].iloc[0]
        if total["source"] == HERE:
            parts.append(
                f"{total['runs']} runs and chapters, {total['hours']:.0f} hours and "
                f"{total['gb']:.0f} GB beside the data, at the rates measured on {device}:"
            )
        else:
            parts.append(
                f"At least {total['hours']:.1f} GPU-hours for what needs a GPU, at the rates "
                f"published {total['source']} for {device}. Nothing but the networks was timed "
                "there, in batches of hundreds of pictures made up on the GPU, and we have "
                "measured no GPU:"
            )
        parts.append(markdown_table(readable(rows)))
    return "\n\n".join(parts)


def published(rates: pd.DataFrame, config: dict) -> list[dict]:
    """Return a row an arm, as `measure` does, from published rates of the networks.

    `rates`: `model`, `training_rate`, `scoring_rate` (pictures a second). A pupil is trained at its
    own rate while its teacher scores the same pictures. Raises `StudyError` for a network that has
    no rates, and for another image size than the rates are of.
    """
    known = rates.set_index("model")
    wanted = [*config["teachers"], *config["students"]]
    if missing := [name for name in wanted if name not in known.index]:
        raise StudyError(f"There are no published rates of {', '.join(missing)}.")
    if (sizes := set(rates["image_size"])) != {config["image_size"]}:
        raise StudyError(f"The rates are of {sizes} pixels, not {config['image_size']}.")
    training, scoring = known["training_rate"], known["scoring_rate"]
    unknown = {"bytes": float("nan"), "prediction_bytes": float("nan")}
    rows = [
        {"stage": "teacher", "name": name, "training_rate": training[name]}
        | {"scoring_rate": scoring[name]}
        for name in config["teachers"]
    ]
    for student in config["students"]:
        for teacher in ["none", *config["teachers"]]:
            rate = 1 / training[student] + (1 / scoring[teacher] if teacher != "none" else 0)
            rows.append({"stage": "student", "name": f"{student}-{teacher}"})
            rows[-1] |= {"training_rate": 1 / rate, "scoring_rate": scoring[student]}
    return [row | unknown for row in rows]


def measure(work: Path, config: dict, sample: int) -> list[dict]:
    """Return a row a stage: seconds and bytes of `sample` pairs, rates of training and scoring."""
    begin = time.perf_counter()
    prepare_standin(work, sample)
    rows = [_step("01 prepare", begin, work / "standin")]
    begin = time.perf_counter()
    settings = (config[name] for name in ("crop_size", "margin", "min_face_size", "device"))
    crop_faces(work / "standin", work / "crops", *settings)
    rows.append(_step("02 crop", begin, work / "crops"))
    arms = [("teacher", name, "") for name in config["teachers"]]
    arms += [("student", s, t) for s in config["students"] for t in ["none", *config["teachers"]]]
    for stage, name, teacher in tqdm(arms, desc="Training", unit="run"):
        parameters = SimpleNamespace(**_recipe(config), crops_dir=str(work / "crops"))
        folder = work / f"{stage}-{name}-{teacher}"
        if stage == "teacher":
            parameters.teacher = name
            run = train_teacher(parameters, folder)
        else:
            parameters.student, parameters.teacher = name, teacher
            parameters.teacher_dir = str(work / f"teacher-{teacher}-")
            run = distil_student(parameters, folder)
        rows.append({"stage": stage} | _rates(run, parameters))
    return rows


def _recipe(config: dict) -> dict:
    one = dict.fromkeys(_EPOCHS.values(), 1)
    return config | one | {"seed": 0, "init": "scratch", "allow_weak_teacher": True}


def _step(stage: str, begin: float, folder: Path) -> dict:
    seconds = time.perf_counter() - begin
    return {"stage": stage, "name": "", "seconds": seconds, "bytes": _bytes(folder)}


def _rates(run: Run, parameters: SimpleNamespace) -> dict:
    """Return faces a second in training and in scoring, and the bytes of the run folder."""
    device = pick_device(parameters.device)
    model = trained_model(run, device)
    dtype = precision(device, parameters.amp)
    choose_attention(model, device, dtype)
    images = load_faces(parameters.crops_dir, parameters.image_size).images
    begin = time.perf_counter()
    predict(model, images, parameters.image_size, dtype)
    seconds = time.perf_counter() - begin
    return {
        "name": run.name,
        "training_rate": run.history["images_per_second"].iloc[0],
        "scoring_rate": len(images) / seconds,
        "bytes": _bytes(run.folder),
        "prediction_bytes": (run.folder / "predictions.csv").stat().st_size / len(images),
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def costs(rows: list[dict], config: dict, pairs: int, sample: int) -> list[dict]:
    """Return the study's cost, one row a stage or arm and a last one with the sums.

    Args:
        rows: see `measure`.
        config: the study's parameters; `split_ratios` are shares.
        pairs: of the study.
        sample: pairs that were measured on.
    """
    seeds, faces = len(config["seeds"]), 2 * pairs
    train, validation, test = (faces * share for share in config["split_ratios"])
    found = []
    for row in rows:
        cost = {"stage": row["stage"], "arm": row["name"]}
        if "seconds" in row:
            hours = row["seconds"] / sample * pairs / HOUR
            cost |= {"runs": 1, "faces_per_second": 2 * sample / row["seconds"]}
            found.append(cost | {"hours_a_run": hours, "gb": row["bytes"] / sample * pairs / GB})
            continue
        epochs = config[_EPOCHS[row["stage"]]]
        seconds = epochs * train / row["training_rate"]
        seconds += (epochs * validation + faces) / row["scoring_rate"]
        bytes_each = row["bytes"] + (faces - 2 * sample) * row["prediction_bytes"]
        cost |= {"runs": seeds, "faces_per_second": row["training_rate"]}
        found.append(cost | {"hours_a_run": seconds / HOUR, "gb": seeds * bytes_each / GB})
    scored = len(conditions()) * test * seeds
    hours = sum(scored / row["scoring_rate"] for row in rows if "scoring_rate" in row) / HOUR
    compare = {"stage": "05 compare", "arm": "", "runs": 1, "hours_a_run": hours, "gb": 0.0}
    found.append(compare | {"faces_per_second": scored / hours / HOUR})
    for cost in found:
        cost["hours"] = cost["runs"] * cost["hours_a_run"]
    sums = {name: sum(cost[name] for cost in found) for name in ("runs", "hours", "gb")}
    return [*found, {"stage": "all", "arm": ""} | sums]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one machine for a reader."""
    return pd.DataFrame(
        {
            "stage": row.stage,
            "arm": "" if pd.isna(row.arm) else row.arm,
            "runs": row.runs,
            "faces a second": _shown(row.faces_per_second, 1),
            "hours a run": _shown(row.hours_a_run, 2),
            "hours": _shown(row.hours, 1),
            "GB": _shown(row.gb, 1),
        }
        for row in table.itertuples()
    )


def _shown(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
