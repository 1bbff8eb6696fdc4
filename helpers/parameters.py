"""The notebooks' parameters: their names, types and choices, checked before anything runs.

papermill only warns of a parameter that a notebook does not have, and passes `-p seeds '[0,1]'` as
text; here both are errors. A config file holds the parameters of all the notebooks, so a name
is unknown only where none of them has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import yaml

from helpers.errors import StudyError
from helpers.files import project_path, short_path

TEACHERS = ("resnet50", "swin", "swin_base")
STUDENTS = ("deit_tiny", "deit_small", "deit_base")


@dataclass(frozen=True)
class Parameter:
    """What a parameter may be: its type, and the choices or the least value where it has them."""

    type: type
    choices: tuple = ()
    least: float | None = None
    optional: bool = False


_FOLDER = Parameter(str)
_COUNT = Parameter(int, least=1)
_SEED = Parameter(int, least=0)

PARAMETERS = {
    # 01 and 02
    "raw_dir": _FOLDER,
    "out_dir": _FOLDER,
    "folds_file": Parameter(str, optional=True),
    "split_ratios": Parameter(list),
    "split_seed": _SEED,
    "prepared_dir": _FOLDER,
    "crop_size": Parameter(int, least=32),
    "margin": Parameter(float, least=0),
    "min_face_size": Parameter(int, least=20),
    "device": Parameter(str, choices=("auto", "cpu", "cuda")),
    # 03 and 04
    "crops_dir": _FOLDER,
    "teacher": Parameter(str, choices=TEACHERS),
    "teacher_dir": _FOLDER,
    "student": Parameter(str, choices=STUDENTS),
    "distillation": Parameter(str, choices=("hard", "soft", "none")),
    "temperature": Parameter(float, least=0.1),
    "teacher_labels": Parameter(str, choices=("online", "replayed", "out_of_fold", "shuffled")),
    "allow_weak_teacher": Parameter(bool),
    "seed": _SEED,
    "teacher_epochs": _COUNT,
    "student_epochs": _COUNT,
    "batch_size": _COUNT,
    "optimizer": Parameter(str, choices=("adam", "adamw")),
    "learning_rate": Parameter(float, least=0),
    "weight_decay": Parameter(float, least=0),
    "schedule": Parameter(str, choices=("step", "one_cycle")),
    "lr_step": _COUNT,
    "lr_gamma": Parameter(float, least=0),
    "clip_norm": Parameter(float, least=0, optional=True),
    "image_size": Parameter(int, least=32),
    "init": Parameter(str),
    "amp": Parameter(bool),
    "deterministic": Parameter(bool),
    # 05 and 06
    "runs_dir": _FOLDER,
    "figures_dir": _FOLDER,
    "results_dir": _FOLDER,
    "external_dir": Parameter(str, optional=True),
    "bootstrap_samples": _COUNT,
    "bootstrap_seed": _SEED,
    # 07
    "model_dir": _FOLDER,
    "pictures_dir": _FOLDER,
    "pairs": Parameter(bool),
    "threshold": Parameter(float, least=0),
    "most_pictures": _COUNT,
    # the study's own lists, read by the Snakefile
    "teachers": Parameter(list, choices=TEACHERS),
    "students": Parameter(list, choices=STUDENTS),
    "seeds": Parameter(list),
}

RECIPE = (
    "batch_size optimizer learning_rate weight_decay schedule lr_step lr_gamma clip_norm "
    "image_size init amp deterministic device"
).split()
NOTEBOOKS = {
    "01_prepare_dataset": "raw_dir out_dir folds_file split_ratios split_seed".split(),
    "02_crop_faces": "prepared_dir out_dir crop_size margin min_face_size device".split(),
    "03_train_teacher": "crops_dir out_dir teacher seed teacher_epochs".split() + RECIPE,
    "04_distill_student": (
        "crops_dir out_dir teacher teacher_dir student distillation temperature teacher_labels "
        "allow_weak_teacher seed student_epochs"
    ).split()
    + RECIPE,
    "05_compare_teachers": (
        "runs_dir figures_dir results_dir external_dir bootstrap_samples bootstrap_seed"
    ).split(),
    "06_explore_faces": "runs_dir results_dir".split(),
    "07_predict_faces": "model_dir pictures_dir pairs threshold most_pictures out_dir".split(),
}
STUDY_LISTS = ("teachers", "students", "seeds")
# Given by the Snakefile or the command line, one value a run.
PER_RUN = {
    *("out_dir", "prepared_dir", "crops_dir", "teacher_dir", "runs_dir", "figures_dir"),
    *("results_dir", "teacher", "student", "seed"),
    *("model_dir", "pictures_dir", "pairs", "threshold", "most_pictures"),
}


def check(name: str, value: object, notebook: str | None = None) -> object:
    """Return `value` as parameter `name` holds it, or raise `StudyError` with the reason.

    A whole number is taken where a float is due. Text is never taken for a number or a list.
    """
    rule = PARAMETERS.get(name)
    if rule is None:
        raise StudyError(f"None of the notebooks has a parameter named '{name}'.")
    if value is None and rule.optional:
        return None
    if rule.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, rule.type) or (isinstance(value, bool) and rule.type is not bool):
        hint = ""
        if isinstance(value, str) and rule.type is list:
            hint = " (a list goes in by papermill's -f or -y, not by -p)"
        elif isinstance(value, str) and rule.type is float:
            hint = " (in YAML, write 1.0e-5 for 1e-5)"
        raise StudyError(
            f"The parameter {name} must be a {rule.type.__name__}, not {value!r}{hint}."
        )
    choices = rule.choices
    if name == "teacher" and notebook == "04_distill_student":
        choices = (*choices, "none")
    for item in value if isinstance(value, list) else [value]:
        if choices and item not in choices:
            kind = name.rstrip("s") if isinstance(value, list) else name
            raise StudyError(f"Unknown {kind} '{item}': choose one of {', '.join(choices)}.")
    if rule.least is not None and value < rule.least:
        raise StudyError(f"The parameter {name} must be at least {rule.least:g}, not {value}.")
    return value


def collect(notebook: str, namespace: Mapping) -> SimpleNamespace:
    """Return the checked parameters of `notebook` out of its `globals()`.

    Call it in the cell after the parameters cell. Every plain value (text, number, list) that the
    namespace holds by then is taken for a parameter. Folder names may hold `{teacher}`,
    `{student}` and `{seed}`, which are filled in here. Raises `StudyError` for a name that no
    notebook has, a missing one, or a value that does not fit.
    """
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in ("In", "Out")
        and (value is None or isinstance(value, str | int | float | bool | list | tuple | dict))
    }
    for name in given:
        if name not in PARAMETERS:
            raise StudyError(f"None of the notebooks has a parameter named '{name}'.")
    values = {}
    for name in NOTEBOOKS[notebook]:
        if name not in given:
            raise StudyError(f"The parameter {name} of {notebook} is missing.")
        values[name] = check(name, given[name], notebook)
    fill = {key: values[key] for key in ("teacher", "student", "seed") if key in values}
    for name, value in values.items():
        if name.endswith("_dir") and value is not None:
            values[name] = value.format(**fill)
    return SimpleNamespace(**values)


def read_config(path: str | Path) -> dict:
    """Read and check a config file: a flat mapping of parameters and the study's three lists.

    Raises `StudyError` for a missing file, an unknown or missing name, or a value that does not
    fit.
    """
    path = project_path(path)
    if not path.is_file():
        raise StudyError(f"The config file {short_path(path)} does not exist.")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise StudyError(f"The config file {short_path(path)} is not a mapping of names to values.")
    return check_config(config, short_path(path))


def check_config(config: Mapping, name: str) -> dict:
    """Return a config's values checked; `name` is what an error calls it. See `read_config`."""
    expected = (set().union(*NOTEBOOKS.values()) | set(STUDY_LISTS)) - PER_RUN
    for key in config:
        if key not in PARAMETERS:
            raise StudyError(f"{name}: none of the notebooks has a parameter named '{key}'.")
        if key in PER_RUN:
            raise StudyError(f"{name}: {key} is set for each run, not in a config file.")
    for key in sorted(expected - set(config)):
        raise StudyError(f"{name}: the parameter {key} is missing.")
    return {key: check(key, value) for key, value in config.items()}
