"""What is made for others: committed runs and tables, and a release of the weights.

python -m helpers.publish CONFIG [--out FOLDER]

writes a folder with every arm of a config as timm reads it, a model card, tables, figures and
`SHA256SUMS`. `publish`, which the Snakefile calls, copies what a reader needs of runs to
`results/<config>` and `figures/<config>`: all but weights and checkpoints.
"""

import shutil
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from helpers import files, runs, stats, text
from helpers.files import ROOT, StudyError, project_path, short_path
from helpers.parameters import read_config

TAGS = "knowledge-distillation deit facial-expression pain synthetic-data not-a-medical-device"


def publish(
    folders: Iterable[str], runs_dir: str | Path, results_dir: str | Path, figures_dir: str | Path
) -> None:
    """Copy what a reader needs of runs, and their tables and figures, to what is committed.

    Args:
        folders: of runs, below `runs_dir`, e.g. `teacher/swin/seed0`; a run that is published and
            no longer there stays as it is.
        runs_dir: holds the runs, and `kept/`, `results/` and `figures/`.
        results_dir: for the tables, and the runs below `runs/`.
        figures_dir: for the figures.

    Raises:
        StudyError: where a run is missing or not finished.
    """
    source, results = project_path(runs_dir), project_path(results_dir)
    for run in folders:
        if (source / run).is_dir() or not is_published([run], results):
            _copy([source / run / name for name in runs.PUBLISHED_FILES], results / "runs" / run)
    _copy((source / "kept").glob("[!.]*"), results / "runs" / "kept")
    _copy((source / "results").glob("[!.]*"), results)
    _copy((source / "figures").glob("[!.]*"), project_path(figures_dir))


def is_published(folders: Iterable[str], results_dir: str | Path) -> bool:
    """Return whether every one of the runs lies below `<results_dir>/runs`."""
    out = project_path(results_dir) / "runs"
    return all((out / run / name).is_file() for run in folders for name in runs.PUBLISHED_FILES)


def _copy(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise StudyError(f"The file {short_path(path)} is missing: finish with make report.")
        with files.replacing(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


def release(config: str | Path, out: str | Path = "dist") -> Path:
    """Write the finished runs of a config for others into `out/<config>`, and return that folder.

    `config`: a config file, or the name of one in config/. Raises `StudyError` where a run is
    missing, unfinished or made by another config, where the tables are not of these runs, and where
    that folder holds anything but an earlier release.
    """
    from helpers.export import save_for_timm

    path = ROOT / "config" / f"{config}.yaml"
    path = path if path.is_file() else project_path(config)
    runs_dir, folder = ROOT / "runs" / path.stem, project_path(out) / path.stem
    found = planned_runs(read_config(path), runs_dir)
    card = model_card(found, runs_dir, path.stem)
    if folder.exists() and not (folder / "SHA256SUMS").is_file():
        raise StudyError(f"The folder {short_path(folder)} holds no release: choose another one.")
    shutil.rmtree(folder, ignore_errors=True)
    names = [str(run.folder.relative_to(runs_dir)) for run in found]
    publish(names, runs_dir, folder / "results", folder / "figures")
    for run in found:
        save_for_timm(run, folder / "weights" / run.name / f"seed{run.seed}")
    _copy([path, ROOT / "LICENSE", ROOT / "CITATION.cff"], folder)
    files.write_text(folder / "README.md", card)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{files.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    files.write_text(folder / "SHA256SUMS", "".join(sums))
    return folder


def planned_runs(config: dict, runs_dir: Path) -> list[runs.Run]:
    """Return the runs that `config` asks for; raises as `release`."""
    arms, found = [{"teacher": teacher} for teacher in config["teachers"]], []
    for student, teacher in product(config["students"], ("none", *config["teachers"])):
        arms.append({"student": student, "teacher": teacher})
    for arm, seed in product(arms, config["seeds"]):
        params = runs.params_of(config | arm | {"seed": seed})
        run = runs_dir / params["stage"] / params["name"] / f"seed{seed}"
        if not (run / runs.WEIGHTS).is_file():
            way = f"TRAIN=1 make report CONFIG={runs_dir.name} trains it"
            raise StudyError(f"The run {short_path(run)} is not there with its weights: {way}.")
        run = runs.read_run(run)
        if other := runs.differences(run.params, params):
            raise StudyError(f"{short_path(run.folder)} is of another config: {'; '.join(other)}.")
        found.append(run)
    return found


def model_card(found: Sequence[runs.Run], runs_dir: Path, config: str) -> str:
    """Return the card of a release; raise `StudyError` where the tables are of other runs."""
    from huggingface_hub import ModelCard, ModelCardData

    from helpers.compare import make_panel

    panel, told = make_panel(found, samples=1, seed=0), runs_dir / "results" / "metrics.csv"
    table = files.read_csv(told).query("metric == 'auroc'").set_index(["arm", "contrast"])
    known = {key: panel.auroc(*key).value for key in product(panel.arms, stats.CONTRASTS)}
    said = table["estimate"].to_dict()
    if said.keys() != known.keys() or any(abs(said[k] - known[k]) > 1e-9 for k in known):
        raise StudyError(f"The table {short_path(told)} is of other runs: make report.")
    table = table[["estimate", "low", "high"]].rename(text.name_of, level="arm")
    words = {"config": config, "faces": panel.faces, "run": found[-1]}
    words["results"] = table.to_html(float_format="{:.3f}".format)
    data = ModelCardData(license="mit", library_name="timm", tags=TAGS.split())
    return str(ModelCard.from_template(data, Path(__file__).with_name("model_card.md"), **words))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot be released ends it with one sentence."""
    with files.command("publish", __doc__) as parser:
        parser.add_argument("config", help="a config file, or the name of one in config/")
        parser.add_argument("--out", default="dist", help="the folder to write into (%(default)s)")
        print(short_path(release(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
