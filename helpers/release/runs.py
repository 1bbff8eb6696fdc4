"""What has to hold of a release's runs, before they are packed and after they were unpacked.

A check returns sentences, one for each fault, and an empty list where all is well.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError

from helpers.dataset.pictures import read_rgb
from helpers.devices import precision
from helpers.errors import StudyError
from helpers.evaluation.ablations import FOLDER as ABLATIONS
from helpers.evaluation.compare import check_run, check_together
from helpers.files import RUN_FILES, project_path, sha256
from helpers.parameters import RECIPE
from helpers.predict.face_spec import DETECTOR, KEY, FaceSpec
from helpers.predict.faces import see_cropped
from helpers.predict.in_torch import spec_of_run, torch_predictor
from helpers.predict.loading import FOLDER as EXPORT
from helpers.training.faces import read_manifest
from helpers.training.runs import Run, provenance, read_run
from helpers.training.trained import trained_model

WEIGHTS = RUN_FILES[-1]
EXACT, NEAR = 1e-5, 0.02  # in P(pain): on the run's kind of device; elsewhere, see `in_torch`
# What a file from elsewhere can make its reader raise.
DAMAGE = (StudyError, SafetensorError, OSError, RuntimeError, ValueError, TypeError, LookupError)
DAMAGE += (AttributeError,)


@dataclass(frozen=True)
class Release:
    """The runs of a config, with their weights, and what was made of them.

    `name`: of the config. `root`: the folder that holds `runs/<name>`, `results/<name>` and
    `figures/<name>`. `config`: the study's parameters. `departures`: those of each ablation, by
    its name. `runs`: by their folders below `runs/<name>`, those of the study first.
    """

    name: str
    root: Path
    config: Mapping
    departures: Mapping[str, Mapping]
    runs: Mapping[str, Run]

    @property
    def results(self) -> Path:
        """The folder of the tables."""
        return self.root / "results" / self.name

    @property
    def study(self) -> dict[str, Run]:
        """The runs of the study itself, without the ablations'."""
        return {key: run for key, run in self.runs.items() if not ablation_of(key)}


def planned_runs(config: Mapping) -> list[str]:
    """Return the folders of the study's runs, teachers first, as the Snakefile lays them."""
    arms = [f"teacher/{teacher}" for teacher in config["teachers"]]
    for student in config["students"]:
        arms += [f"student/{student}-{teacher}" for teacher in ("none", *config["teachers"])]
    return [f"{arm}/seed{seed}" for arm in arms for seed in config["seeds"]]


def ablation_of(key: str) -> str:
    """Return the ablation that a run's folder belongs to, or nothing for the study's own."""
    return key.split("/")[1] if key.startswith(f"{ABLATIONS}/") else ""


def read_runs(root: Path, keys: Iterable[str]) -> tuple[dict[str, Run], list[str]]:
    """Return the runs `keys` below `root`, and a fault for each that cannot be read as a run."""
    runs, faults = {}, []
    for key in keys:
        try:
            run = check_run(read_run(root / key))
            stage, name, seed = key.split("/")[-3:]
            if (run.stage, run.name, f"seed{run.seed}") != (stage, name, seed):
                raise StudyError(f"It holds the {run.stage} {run.name}, seed {run.seed}.")
            if not (root / key / WEIGHTS).is_file():
                raise StudyError(f"It lacks {WEIGHTS}.")
            runs[key] = run
        except DAMAGE as error:
            faults.append(f"{key} is no finished run: {first_line(error)}")
    return runs, faults


def config_faults(release: Release) -> list[str]:
    """Name the runs that were made by another config, on other crops, or have no config."""
    faults = []
    for key, run in release.runs.items():
        ablation = ablation_of(key)
        if ablation and ablation not in release.departures:
            faults.append(f"{key} is of an ablation that has no config.")
            continue
        config = {**release.config, **release.departures.get(ablation, {})}
        chosen = run.params["parameters"]
        for name, value in _expected(run, config).items():
            if name in chosen and chosen[name] != value:
                faults.append(f"{key} was made with {name} {chosen[name]}, not {value}.")
    try:
        check_together(list(release.runs.values()))
    except StudyError as error:
        faults.append(str(error))
    return faults


def _expected(run: Run, config: Mapping) -> dict:
    expected = {name: config[name] for name in RECIPE if name != "device"}
    expected["epochs"] = config[f"{run.stage}_epochs"]
    if run.stage == "student":
        alone = run.name.endswith("-none")
        expected["distillation"] = "none" if alone else config["distillation"]
        expected |= {name: config[name] for name in ("teacher_labels", "temperature")}
    return expected


def recorded_weights(release: Release) -> dict[str, dict[str, str]]:
    """Return for each run who recorded the SHA-256 of its weights, and which it was.

    These are the run's own metrics, the students that it taught, and its export to ONNX.
    """
    found: dict[str, dict[str, str]] = {key: {} for key in release.runs}
    for key, run in release.runs.items():
        if digest := run.metrics.get("weights_sha256"):
            found[key]["metrics.json"] = digest
        taught = run.params.get("teacher_sha256")
        teacher = _teacher_of(key, release.runs) if taught else None
        if teacher:
            found[teacher][key] = taught
        for path in exported_files(run):
            if path.stem in DETECTOR:
                continue
            found[key][f"{EXPORT}/{path.name}"] = _digest_in(path)
    return found


def _teacher_of(key: str, runs: Mapping[str, Run]) -> str | None:
    """Return the run that taught `key`: the ablation's own where it has one, or the study's."""
    *part, _, arm, seed = key.split("/")
    own = "/".join([*part, "teacher", arm.rpartition("-")[2], seed])
    studys = "/".join(own.split("/")[-3:])
    return next((teacher for teacher in (own, studys) if teacher in runs), None)


def exported_files(run: Run) -> list[Path]:
    """Return the run's ONNX files, networks and detector; see `export`."""
    return [path for path in sorted((run.folder / EXPORT).glob("*.onnx")) if path.name[0] != "."]


def _digest_in(path: Path) -> str:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        props = {entry.key: entry.value for entry in model.metadata_props}
        return FaceSpec.from_json(props[KEY]).weights_sha256
    except Exception:  # protobuf has errors of its own; whatever it is, it vouches for nothing
        return "unreadable"


def weights_faults(release: Release, digests: Mapping[str, str]) -> list[str]:
    """Name each run whose weights, by their SHA-256 in `digests`, are not those recorded."""
    return [
        f"{key}/{WEIGHTS} is not the file that {who} was made with."
        if who != "metrics.json"
        else f"{key}/{WEIGHTS} is not the file that its {who} records."
        for key, records in recorded_weights(release).items()
        for who, digest in records.items()
        if digest != digests[key]
    ]


def loading_fault(key: str, run: Run) -> str | None:
    """Return why a run's weights do not load into its architecture, name by name, or None."""
    try:
        trained_model(run, torch.device("cpu"))
    except DAMAGE as error:
        return f"{key}/{WEIGHTS} does not load: {first_line(error)}"
    return None


@dataclass(frozen=True)
class Rescored:
    """Faces that a run's weights were asked about once more.

    `difference`: the largest from `predictions.csv`, in P(pain); `limit`: what it may be; `note`:
    on what it was compared.
    """

    faces: int
    difference: float
    limit: float
    note: str

    @property
    def holds(self) -> bool:
        """Whether the weights are those that predicted."""
        return self.difference <= self.limit


def rescore(run: Run, crops_dir: str | Path, count: int) -> Rescored:
    """Score `count` test faces of `crops_dir` by a run's weights, in torch as the run did.

    Raises `StudyError` where the crops are not those of the run, or a file is missing.
    """
    folder = project_path(crops_dir)
    paths = read_manifest(folder).set_index("image_id")["path"]
    if sha256(folder / "manifest.csv") != run.params["crops_sha256"]:
        raise StudyError(f"{folder.name} does not hold the crops that the run was made on.")
    spec = spec_of_run(run, folder)
    cuda = run.params["device"].startswith("cuda") and torch.cuda.is_available()
    predictor = torch_predictor(run.folder, "cuda" if cuda else "cpu")
    rows = _spread(run.predictions, count)
    images = [see_cropped(read_rgb(folder / paths[i]), spec).image for i in rows["image_id"]]
    said = predictor.score(np.stack(images))
    difference = float(np.abs(said - rows[list(spec.heads)].to_numpy()).max())
    where = torch.device("cuda" if cuda else "cpu")
    used = str(precision(where, run.params["parameters"]["amp"])).removeprefix("torch.")
    here = (used, _kind(provenance(where)["device"]))
    same = here == (run.params["precision"], _kind(run.params["device"]))
    return Rescored(len(rows), difference, EXACT if same else NEAR, predictor.note)


def _spread(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` test faces from all over the test set.

    Those of the run's last, smaller batch are left out: in bfloat16 it rounds otherwise.
    """
    whole = predictions.iloc[: len(predictions) // 64 * 64]
    rows = whole[whole["split"] == "test"]
    rows = rows if len(rows) else predictions[predictions["split"] == "test"]
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return rows.iloc[places]


def _kind(device: str) -> str:
    return re.sub(r", \d+ threads\)$", ")", device)


def first_line(error: Exception) -> str:
    """Return what went wrong in one sentence; errors of libraries can run over many lines."""
    if isinstance(error, StudyError):
        return str(error)
    text = str(error).strip().split("\n")[0].rstrip(" :.")
    return f"{type(error).__name__}, {text}."
