"""A release checked by what it holds: nothing in it is believed, and no file in it is run."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from helpers.errors import StudyError
from helpers.evaluation.ablations import read_ablations
from helpers.files import sha256
from helpers.parameters import read_config
from helpers.prose import plural
from helpers.release.archive import BundleError, checksum_faults, unpack
from helpers.release.results import results_faults
from helpers.release.runs import (
    DAMAGE,
    WEIGHTS,
    Release,
    config_faults,
    first_line,
    loading_fault,
    planned_runs,
    read_runs,
    recorded_weights,
    rescore,
    weights_faults,
)

MANIFEST = "release.json"
_TEXTS = ("MODEL_CARD.md", "CITATION.cff", "LICENSE", "DATA_LICENCES.md", "requirements.txt")


@dataclass
class Report:
    """The checks so far: a line on each is handed to `say`, and `faults` has all sentences."""

    say: Callable[[str], None] = tqdm.write
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, faults: Iterable[str], fine: str) -> bool:
        """Tell the outcome of the check `name`: `fine` where there is no fault; return that."""
        faults = list(faults)
        for fault in faults:
            self.say(f"FAULT {name}: {fault}")
        if not faults:
            self.say(f"ok    {name}: {fine}")
        self.faults += faults
        return not faults


def verify(
    bundle: str | Path,
    faces: int = 0,
    crops: str | Path | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> list[str]:
    """Check a release, and return a sentence on each fault; an empty list where it holds.

    It is unpacked into a temporary folder (`TMPDIR` says where), which is removed again.

    Args:
        bundle: the archive.
        faces: how many test faces of each student to score once more; 0: none.
        crops: the folder of the crops that the runs were made on; None: where they were then.
        say: is given a line on each check.

    Raises:
        StudyError: where there is no archive to check, no room to unpack it, or `faces` is below 0.
    """
    if faces < 0:
        raise StudyError(f"The number of faces to score must be 0 or more, not {faces}.")
    report = Report(say)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        try:
            top = unpack(bundle, Path(folder))
        except BundleError as error:
            report.add("archive", error.faults, "")
            return report.faults
        files = sum(path.is_file() for path in top.rglob("*"))
        report.add("archive", [], f"{plural(files, 'file')} in {top.name}/")
        faults, compared = checksum_faults(top)
        report.add("checksums", faults, f"{plural(compared, 'file')}, none missing, none extra")
        try:
            manifest = _manifest(top)
        except DAMAGE as error:
            report.add("contents", [first_line(error)], "")
            return report.faults
        release = _runs(top, manifest, report)
        if release is not None:
            _weights(release, manifest, report)
            report.add(
                "tables",
                results_faults(release),
                f"AUROC of {plural(len(release.runs), 'run')}, by scikit-learn from predictions",
            )
            if faces:
                _rescore(release, faces, crops, report)
    return report.faults


def _manifest(top: Path) -> dict:
    """Return release.json; raise `StudyError` where it, or one of the texts, is not there."""
    for name in (MANIFEST, *_TEXTS):
        if not (top / name).is_file():
            raise StudyError(f"{name} is missing.")
    manifest = json.loads((top / MANIFEST).read_text(encoding="utf-8"))
    for run in manifest["runs"]:
        if not {"folder", "weights_sha256"} <= set(run):
            raise StudyError(f"{MANIFEST} does not say which weights a run has.")
    if not isinstance(manifest["config"], str) or "/" in manifest["config"]:
        raise StudyError(f"{MANIFEST} names no config.")
    return manifest


def _runs(top: Path, manifest: Mapping, report: Report) -> Release | None:
    """Read the runs, and check that they are the config's; None where there is no config."""
    name = manifest["config"]
    root = top / "runs" / name
    listed = [run["folder"] for run in manifest["runs"]]
    found = [path.parent.relative_to(root).as_posix() for path in root.rglob("params.json")]
    try:
        config = read_config(top / f"config/{name}.yaml")
        ablations = read_ablations(top / "config/ablations", config)
    except DAMAGE as error:
        report.add("config", [first_line(error)], "")
        return None
    faults = [f"The run {key} is missing." for key in planned_runs(config) if key not in listed]
    faults += [f"{MANIFEST} and the folders differ on {k}." for k in sorted({*listed} ^ {*found})]
    runs, unreadable = read_runs(root, [key for key in listed if key in found])
    departures = {ablation.name: ablation.departures for ablation in ablations}
    release = Release(name, top, config, departures, runs)
    report.add("runs", faults + unreadable, f"{plural(len(runs), 'run')}, each reads as a run")
    if not runs:
        return None
    report.add("config", config_faults(release), f"every run was made by {name}, on one set")
    return release


def _weights(release: Release, manifest: Mapping, report: Report) -> None:
    """Check that the weights are those of release.json and of whoever recorded them, and load."""
    promised = {run["folder"]: run["weights_sha256"] for run in manifest["runs"]}
    digests = {key: sha256(run.folder / WEIGHTS) for key, run in release.runs.items()}
    faults = [
        f"{key}/{WEIGHTS} is not the file that {MANIFEST} records."
        for key, digest in digests.items()
        if digest != promised[key]
    ]
    vouched = sum(bool(records) for records in recorded_weights(release).values())
    report.add(
        "weights",
        faults + weights_faults(release, digests),
        f"as {MANIFEST} has them; those of {plural(vouched, 'run')} are recorded by runs, too",
    )
    loading = tqdm(release.runs.items(), desc="Loading weights", unit="run", mininterval=1)
    found = [loading_fault(key, run) for key, run in loading]
    fine = "every tensor of every network, by name and shape, and no other"
    report.add("loading", [fault for fault in found if fault], fine)


def _rescore(release: Release, faces: int, crops: str | Path | None, report: Report) -> None:
    """Score faces of each student once more, a line on each."""
    for key, run in release.runs.items():
        if run.stage != "student":
            continue
        try:
            said = rescore(run, crops or run.params["crops_dir"], faces)
        except DAMAGE as error:
            report.add(f"faces of {key}", [first_line(error)], "")
            continue
        words = (
            f"{plural(said.faces, 'face')}, at most {said.difference:.1e} from predictions.csv "
            f"(limit {said.limit:g}). {said.note}"
        )
        report.add(f"faces of {key}", [] if said.holds else [words], words)
