"""A release: the trained networks of a config with all that a reader needs to judge them.

python -m helpers.release pack CONFIG [--out FILE]
python -m helpers.release verify FILE [--faces N --crops FOLDER]

The first writes one archive, `dist/<project>-<version>-<config>.tar.gz`: the runs with their
weights, the students' ONNX files where there are any, the config, the tables, the figures,
MODEL_CARD.md, CITATION.cff, licences, release.json and SHA256SUMS. The same runs give the same
bytes. The second unpacks it where it can harm nothing, and checks all of it.
"""

import argparse
import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.evaluation.ablations import FOLDER as ABLATIONS
from helpers.evaluation.ablations import read_ablations
from helpers.evaluation.compare import arm_order
from helpers.evaluation.tables import Study, evaluate
from helpers.files import ROOT, RUN_FILES, project_path, read_csv, sha256, short_path
from helpers.parameters import read_config
from helpers.prose import plural
from helpers.release.archive import write_archive
from helpers.release.card import data_licences, release_card
from helpers.release.results import results_faults
from helpers.release.runs import (
    WEIGHTS,
    Release,
    config_faults,
    exported_files,
    planned_runs,
    read_runs,
    recorded_weights,
    rescore,
    weights_faults,
)
from helpers.release.verify import MANIFEST, verify
from helpers.training.runs import git_commit

_PACKAGES = ("torch", "timm", "safetensors", "numpy", "pandas", "scikit-learn")
_COPIED = ("CITATION.cff", "LICENSE", "requirements.txt")
_FACES = 8  # that weights without a record are asked about


def pack(config: str | Path, out: str | Path | None = None, root: Path = ROOT) -> Path:
    """Write the release of a config as one archive, and return its path.

    Args:
        config: a config file; its name is that of the folders of runs, tables and figures.
        out: the archive; None: `dist/<project>-<version>-<config>.tar.gz` below `root`.
        root: holds `runs/`, `results/` and `figures/`.

    Raises:
        StudyError: where a run is missing or unfinished, was made by another config or on other
            crops, or has other weights than were recorded of it; where the tables are not of
            these runs; where the archive cannot be written.
    """
    release = gather(config, root)
    digests = {
        key: sha256(run.folder / WEIGHTS)
        for key, run in tqdm(release.runs.items(), desc="Hashing weights", unit="run")
    }
    _raise(weights_faults(release, digests))
    _check_unrecorded(release)
    study = _evaluated(release)
    top = f"{_project()['name']}-{_project()['version']}-{release.name}"
    files = _files(release, study, digests, top)
    path = root / "dist" / f"{top}.tar.gz" if out is None else Path(out).absolute()
    return write_archive(files, top, path)


def gather(config: str | Path, root: Path = ROOT) -> Release:
    """Return the finished runs of a config and of its ablations; raises as `pack` does."""
    path = project_path(config)
    chosen = read_config(path)
    runs_dir = root / "runs" / path.stem
    for key in planned_runs(chosen):
        if not (runs_dir / key / "metrics.json").is_file():
            raise StudyError(
                f"The run {short_path(runs_dir / key)} is missing or unfinished: "
                f"make report CONFIG={path.stem}."
            )
    ablated = sorted(
        found.parent.relative_to(runs_dir).as_posix()
        for found in runs_dir.glob(f"{ABLATIONS}/*/*/*/seed*/metrics.json")
    )
    runs, faults = read_runs(runs_dir, [*planned_runs(chosen), *ablated])
    ablations = read_ablations(path.parent / "ablations", chosen)
    departures = {ablation.name: ablation.departures for ablation in ablations}
    release = Release(path.stem, root, chosen, departures, runs)
    _raise(faults or config_faults(release) or results_faults(release))
    _raise(_published_faults(release))
    return release


def _raise(faults: list[str]) -> None:
    if faults:
        more = f" (One of {plural(len(faults), 'fault')}.)" if len(faults) > 1 else ""
        raise StudyError(faults[0] + more)


def _published_faults(release: Release) -> list[str]:
    """Name the runs that are committed with other predictions; see `published`."""
    found = []
    for key, run in release.runs.items():
        committed = release.results / "runs" / key / "predictions.csv"
        if committed.is_file() and sha256(committed) != sha256(run.folder / "predictions.csv"):
            found.append(f"{short_path(committed)} is of another run than {key}: make publish.")
    return found


def _check_unrecorded(release: Release) -> None:
    """Ask weights that nobody recorded about a few faces, where the crops are here."""
    records = recorded_weights(release)
    due = {key: run for key, run in release.runs.items() if not records[key]}
    if not due:
        return
    crops = project_path(next(iter(due.values())).params["crops_dir"])
    manifest = crops / "manifest.csv"
    made_on = next(iter(due.values())).params["crops_sha256"]
    if not manifest.is_file() or sha256(manifest) != made_on:
        tqdm.write(
            f"The weights of {plural(len(due), 'run')} are recorded nowhere, and their crops are "
            "not here to compare them with their predictions."
        )
        return
    for key, run in tqdm(due.items(), desc="Comparing weights", unit="run"):
        said = rescore(run, crops, _FACES)
        if not said.holds:
            raise StudyError(
                f"{key}/{WEIGHTS} is not what predicted: P(pain) of {plural(said.faces, 'face')} "
                f"differs by up to {said.difference:.2g}."
            )


def _evaluated(release: Release) -> Study:
    """Evaluate the study's runs; raise `StudyError` where the intervals in the tables differ."""
    order = {arm: place for place, arm in enumerate(arm_order())}
    runs = sorted(release.study.values(), key=lambda run: (order[run.name], run.seed))
    config = release.config
    study = evaluate(runs, config["bootstrap_samples"], config["bootstrap_seed"])
    for name in ("metrics", "differences", "subgroup_gaps"):
        if not _same(study.tables[name], read_csv(release.results / f"{name}.csv")):
            raise StudyError(
                f"{short_path(release.results / name)}.csv is not what these runs give: "
                f"make report CONFIG={release.name}."
            )
    return study


def _same(made: pd.DataFrame, found: pd.DataFrame) -> bool:
    if list(made.columns) != list(found.columns) or len(made) != len(found):
        return False
    numbers = list(made.select_dtypes("number"))
    words = made.drop(columns=numbers).astype(str)
    return words.equals(found.drop(columns=numbers).astype(str)) and np.allclose(
        made[numbers].astype(float), found[numbers].astype(float), atol=1e-9, equal_nan=True
    )


def _files(
    release: Release, study: Study, digests: dict[str, str], top: str
) -> dict[str, Path | bytes]:
    """Return the content of every file, or where it lies, by its path in the release."""
    name, runs = release.name, f"runs/{release.name}"
    files: dict[str, Path | bytes] = {copied: ROOT / copied for copied in _COPIED}
    students, exported = {}, False
    for key, run in release.runs.items():
        files |= {f"{runs}/{key}/{part}": run.folder / part for part in RUN_FILES}
        if run.stage == "student":
            onnx = exported_files(run)
            files |= {f"{runs}/{key}/{path.parent.name}/{path.name}": path for path in onnx}
            students[f"{runs}/{key}"], exported = digests[key], exported or bool(onnx)
    for folder in (release.results, release.root / "figures" / name):
        kept = [p for p in sorted(folder.glob("*")) if p.is_file() and p.name[0] != "."]
        files |= {f"{folder.parent.name}/{name}/{path.name}": path for path in kept}
    used = {key.split("/")[1] for key in release.runs if key.startswith(f"{ABLATIONS}/")}
    texts = {f"config/{name}.yaml": yaml.safe_dump(dict(release.config), sort_keys=True)}
    texts |= {
        f"config/{ABLATIONS}/{ablation}.yaml": yaml.safe_dump(dict(release.departures[ablation]))
        for ablation in used
    }
    texts["MODEL_CARD.md"] = release_card(study, name, top, students, exported)
    about_data = (ROOT / "data/README.md").read_text(encoding="utf-8")
    texts["DATA_LICENCES.md"] = data_licences(about_data, study)
    manifest = _manifest(release, digests)
    texts[MANIFEST] = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return files | {name: text.encode() for name, text in texts.items()}


def _manifest(release: Release, digests: dict[str, str]) -> dict:
    records = recorded_weights(release)
    return {
        "project": _project()["name"],
        "version": _project()["version"],
        "config": release.name,
        "commit": git_commit().rstrip("+"),
        "clean": _is_clean(),
        "created_by": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "runs": [
            {"folder": key, "weights_sha256": digests[key], "recorded_by": sorted(records[key])}
            for key in release.runs
        ],
    }


def _is_clean() -> bool | None:
    """Return whether every file is as the commit has it, or None outside of git."""
    command = ["git", "-C", str(ROOT), "status", "--porcelain"]
    try:
        return not subprocess.run(command, capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 with a sentence, for `verify` one on each fault."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m helpers.release", description=__doc__, formatter_class=about
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the release of a config")
    packing.add_argument("config", help="a config file, or the name of one in config/")
    packing.add_argument("--out", help="the archive (dist/<project>-<version>-<config>.tar.gz)")
    checking = commands.add_parser("verify", help="check a release")
    checking.add_argument("bundle", help="the archive")
    checking.add_argument(
        "--faces", type=int, default=0, help="test faces of each student to score once more"
    )
    checking.add_argument("--crops", help="the crops of the runs (where they were in training)")
    given = parser.parse_args(arguments)
    try:
        if given.command == "pack":
            named = ROOT / "config" / f"{given.config}.yaml"
            path = pack(named if named.is_file() else Path(given.config).absolute(), given.out)
            print(f"{short_path(path)}: {path.stat().st_size / 2**20:.1f} MiB")
            return 0
        crops = Path(given.crops).absolute() if given.crops else None
        faults = verify(Path(given.bundle), given.faces, crops)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    outcome = f"Not verified, {plural(len(faults), 'fault')}" if faults else "Verified"
    print(f"{outcome}: {Path(given.bundle).name}")
    return 1 if faults else 0
