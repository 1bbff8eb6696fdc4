"""The notebooks' parameters: their names, types and choices, checked before anything runs.

One model holds the parameters of all notebooks, and a config file (`papermill -f`) gives those of a
whole study, so a name is unknown only where no notebook has it. papermill itself only warns of an
unknown name, and passes `-p split_ratios '[0.7, 0.15, 0.15]'` as text; here both are errors.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from helpers.files import ROOT, StudyError, project_path, short_path

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Teacher = Literal["resnet50", "swin", "swin_base"]
Student = Literal["deit_tiny", "deit_small", "deit_base"]


class Parameters(BaseModel):
    """Every parameter of every notebook, and the study's own lists."""

    # 01 prepare, 02 crop
    raw_dir: str
    out_dir: str
    folds_file: str | None
    split_ratios: list[float]
    split_seed: Seed
    prepared_dir: str
    crop_size: Annotated[int, Field(ge=32)]
    margin: Amount
    min_face_size: Annotated[int, Field(ge=20)]
    device: Literal["auto", "cpu", "cuda", "mps"]
    # 03 train a teacher, 04 distil a student
    crops_dir: str
    teacher: Literal[Teacher, "none"]
    teacher_dir: str
    student: Student
    distillation: Literal["hard", "soft", "none"]
    temperature: Annotated[float, Field(ge=0.1)]
    teacher_labels: Literal["online", "out_of_fold", "shuffled"]
    allow_weak_teacher: bool
    seed: Seed
    teacher_epochs: Count
    student_epochs: Count
    batch_size: Count
    optimizer: Literal["adam", "adamw"]
    learning_rate: Amount
    weight_decay: Amount
    schedule: Literal["step", "one_cycle"]
    lr_step: Count
    lr_gamma: Amount
    clip_norm: Amount | None
    head_steps: Annotated[int, Field(ge=0)]
    head_learning_rate: Amount
    image_size: Annotated[int, Field(ge=32)]
    init: str
    amp: bool
    deterministic: bool
    # 05 compare, 06 what is inherited, A1 explore
    runs_dir: str
    figures_dir: str
    results_dir: str
    external_dir: str | None
    bootstrap_samples: Count
    bootstrap_seed: Seed
    # A2 predict
    model_dir: str
    pictures_dir: str
    pairs: bool
    threshold: Annotated[float, Field(ge=0, le=1)]
    most_pictures: Count
    # the study's own lists, read by the Snakefile
    teachers: Annotated[list[Teacher], Field(min_length=1)]
    students: Annotated[list[Student], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]


RECIPE = "batch_size optimizer learning_rate weight_decay schedule lr_step lr_gamma".split()
RECIPE += "clip_norm head_steps head_learning_rate image_size init amp deterministic device".split()
_RUN, _ALL = "crops_dir out_dir teacher seed", "runs_dir crops_dir figures_dir results_dir"
_TEACHING = "distillation temperature teacher_labels allow_weak_teacher"
_NAMES = {
    "01_prepare_dataset": "raw_dir out_dir folds_file split_ratios split_seed",
    "02_crop_faces": "prepared_dir out_dir crop_size margin min_face_size device",
    "03_train_teacher": f"{_RUN} teacher_epochs",
    "04_distill_student": f"{_RUN} student_epochs teacher_dir student {_TEACHING}",
    "05_compare_teachers": f"{_ALL} bootstrap_samples bootstrap_seed external_dir",
    "06_what_is_inherited": f"{_ALL} bootstrap_samples bootstrap_seed device",
    "A1_explore_faces": "runs_dir crops_dir results_dir",
    "A2_predict_faces": "model_dir pictures_dir pairs threshold most_pictures out_dir",
}
NOTEBOOKS = {n: names.split() + RECIPE * ("_epochs" in names) for n, names in _NAMES.items()}
# Given by the Snakefile or the command line, one value a run; never in a config file.
PER_RUN = "out_dir prepared_dir crops_dir teacher_dir runs_dir figures_dir results_dir".split()
PER_RUN += "teacher student seed model_dir pictures_dir pairs threshold most_pictures".split()
_HINTS = {
    "list_type": " (a list goes in by papermill's -f or -y, not by -p)",
    "float_type": " (in YAML, write 1.0e-5 for 1e-5)",
    "null": " (null goes in by papermill's -y, as in -y 'clip_norm: null')",
}


def _check(values: Mapping, names: Iterable[str], where: str) -> dict:
    """Return `values` as the parameters `names` hold them, each of them and no other."""
    types = get_type_hints(Parameters, include_extras=True)
    config = ConfigDict(extra="forbid", strict=True)
    model = create_model("Given", __config__=config, **{name: (types[name], ...) for name in names})
    try:
        return model(**values).model_dump()
    except ValidationError as error:
        raise StudyError(f"{where}: {_sentence(error.errors()[0])}") from None


def _sentence(error: dict) -> str:
    """Return what pydantic found, as one sentence."""
    name, value = error["loc"][0], error["input"]
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, Parameters.model_fields, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"none of the notebooks has a parameter named '{name}'.{hint}"
    if error["type"] == "missing":
        return f"the parameter {name} is missing."
    if error["type"] == "literal_error":
        kind = name.rstrip("s") if len(error["loc"]) > 1 else name
        return f"unknown {kind} {value!r}: choose one of {error['ctx']['expected']}."
    reason = error["msg"].removeprefix("Input ").replace("List should", "should")
    hint = _HINTS.get("null" if value == "null" else error["type"], "")
    return f"the parameter {name} {reason}, not {value!r}{hint}."


def collect(notebook: str, namespace: Mapping) -> SimpleNamespace:
    """Return the checked parameters of `notebook` out of its `globals()`.

    Call it in the cell after the parameters cell. Every plain value (text, number, list) that the
    namespace holds by then is taken for a parameter; those of other notebooks, which a config file
    brings along, are passed over. Folder names may hold `{teacher}`, `{student}` and `{seed}`,
    which are filled in here. Raises `StudyError` for a name that no notebook has, a missing one, or
    a value that does not fit.
    """
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    others = {"In", "Out", *Parameters.model_fields} - set(NOTEBOOKS[notebook])
    given = {name: value for name, value in namespace.items() if isinstance(value, plain)}
    given = {name: given[name] for name in given if name[0] != "_" and name not in others}
    values = _check(given, NOTEBOOKS[notebook], notebook)
    if notebook == "03_train_teacher" and values["teacher"] == "none":
        raise StudyError(f"{notebook}: unknown teacher 'none': a teacher is to be trained.")
    if (own := ROOT / ".venv").is_dir() and not own.samefile(sys.prefix):
        print(f"This kernel is {sys.executable}, not the Python of the study's .venv.")
    fill = {key: values[key] for key in ("teacher", "student", "seed") if key in values}
    for name, value in values.items():
        for key, word in fill.items() if name.endswith("_dir") and value else ():
            values[name] = values[name].replace(f"{{{key}}}", str(word))
    return SimpleNamespace(**values)


def check_config(config: Mapping, name: str) -> dict:
    """Return a config's values checked; `name` is what an error calls it.

    Raises `StudyError` for an unknown or missing name, one that is set for each run, or a value
    that does not fit.
    """
    for key in config:
        if key in PER_RUN:
            raise StudyError(f"{name}: {key} is set for each run, not in a config file.")
    return _check(config, [key for key in Parameters.model_fields if key not in PER_RUN], name)


def read_config(path: str | Path) -> dict:
    """Read and check a config file, a flat mapping; raises as `check_config`, or for no file."""
    path = project_path(path)
    if not path.is_file():
        raise StudyError(f"The config file {short_path(path)} does not exist.")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise StudyError(f"The config file {short_path(path)} is not a mapping of names to values.")
    return check_config(config, short_path(path))


@dataclass(frozen=True)
class Ablation:
    """The study again with one thing changed: its name, and what departs from the study's config.

    Its runs lie below the study's, in `ablations/<name>/`; what it leaves alone it shares.
    """

    name: str
    departures: Mapping

    @property
    def teaches_anew(self) -> bool:
        """Whether its teachers differ from the study's."""
        return bool(set(self.departures) & set(NOTEBOOKS["03_train_teacher"]))

    @property
    def trains_untaught(self) -> bool:
        """Whether its student without a teacher differs from the study's."""
        # What only a taught student reads leaves teachers and untaught students as they are.
        read = {*NOTEBOOKS["04_distill_student"], "students"} - set(_TEACHING.split())
        return bool(set(self.departures) & read)


def read_ablations(folder: str | Path, study: Mapping) -> list[Ablation]:
    """Return the ablations of `folder`, by name, checked against the config `study`.

    Raises `StudyError` for a file that is not a mapping, departs in nothing, names a parameter
    that no notebook has, or changes the faces (a parameter of chapters 1 or 2): these all runs of
    a study share.
    """
    found = []
    faces = {*NOTEBOOKS["01_prepare_dataset"], *NOTEBOOKS["02_crop_faces"]} - {"device"}
    for path in sorted(project_path(folder).glob("*.yaml")):
        departures = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = short_path(path)
        if not isinstance(departures, dict) or not departures:
            raise StudyError(f"{name} names nothing that departs from the study.")
        checked = check_config({**study, **departures}, name)
        if touched := sorted(faces & set(departures)):
            raise StudyError(f"{name}: an ablation shares the study's faces, so not {touched[0]}.")
        found.append(Ablation(path.stem, {key: checked[key] for key in departures}))
    return found
