"""Parameters: unknown names, wrong types, unknown choices, the folders' placeholders, configs."""

import re

import nbformat
import pytest
import yaml

from helpers import parameters
from helpers.files import ROOT, StudyError
from helpers.parameters import NOTEBOOKS, PER_RUN, Parameters, collect, read_config

CONFIGS = {name: read_config(f"config/{name}.yaml") for name in ("quick", "standin", "synpain")}
LETTER = """{optimizer: adam, learning_rate: 1.0e-5, weight_decay: 0.0, schedule: step, lr_step: 10,
lr_gamma: 0.5, teacher_epochs: 30, student_epochs: 30, batch_size: 64, clip_norm: null,
split_ratios: [0.7, 0.15, 0.15], image_size: 224, crop_size: 256, init: imagenet,
distillation: hard, deterministic: true, teacher_labels: online, allow_weak_teacher: false,
teachers: [resnet50, swin], seeds: [0, 1, 2, 3, 4]}"""


def parameters_of(notebook):
    """Return the source of a notebook's parameters cell, and its values."""
    cells = nbformat.read(ROOT / f"notebooks/{notebook}.ipynb", as_version=4).cells
    (source,) = (c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    exec(source, {}, given := {})
    return source, given


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_has_its_parameters_as_commented_literals_with_standins_values(notebook):
    source, given = parameters_of(notebook)
    assert set(given) == set(NOTEBOOKS[notebook])
    assert given == given | {k: v for k, v in CONFIGS["standin"].items() if k in given}
    for line in source.splitlines():
        assignment, _, comment = line.partition("  # ")
        assert comment, line
        yaml.safe_load(assignment.partition(" = ")[2])
    for config in CONFIGS.values():  # papermill -f injects a config whole
        collect(notebook, given | config)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_departure_from_the_letter_is_named_with_the_value_that_it_replaces(name):
    letter, here, named = CONFIGS["synpain"], CONFIGS[name], {}
    assert yaml.safe_load(LETTER).items() <= letter.items()
    assert set(here) == set(Parameters.model_fields) - set(PER_RUN)
    for line in (ROOT / f"config/{name}.yaml").read_text().splitlines():
        if found := re.match(r"(\w+):.*# .*departure \(([^)]+)\)[:;,] *\S", line):
            named[found[1]] = yaml.safe_load(found[2])
    scale = {"raw_dir", "folds_file", "seeds"}  # where the data lie, and how often it is run
    departed = {key for key in here if here[key] != letter[key]} - scale
    assert named == {key: letter[key] for key in departed}


def test_folders_are_filled_in_and_what_is_no_plain_value_is_no_parameter():
    other = {"In": ["x"], "Out": {}, "_i1": "y", "print": print, "yaml": yaml}
    _, given = parameters_of("04_distill_student")
    p = collect("04_distill_student", given | other | {"teacher": "swin", "seed": 3})
    assert p.teacher_dir == "results/standin/runs/teacher/swin/seed3"
    assert p.out_dir == "results/standin/runs/student/deit_tiny-swin/seed3"
    assert set(vars(p)) == set(NOTEBOOKS["04_distill_student"])
    assert collect("04_distill_student", given | {"teacher": "none"}).teacher == "none"
    given |= {"weight_decay": 0, "out_dir": "a {b} {seed}"}
    assert collect("04_distill_student", given).out_dir == "a {b} 0"
    assert isinstance(collect("04_distill_student", given).weight_decay, float)


def check(where, change, folder):
    if where == "notebook":
        collect("03_train_teacher", parameters_of("03_train_teacher")[1] | change)
    elif where == "config":
        given = CONFIGS["quick"] | change
        parameters.check_config(
            {name: value for name, value in given.items() if value != "gone"}, "x.yaml"
        )
    else:
        (folder / "x.yaml").write_text(yaml.safe_dump(change))
        parameters.read_ablations(folder, CONFIGS["quick"])


@pytest.mark.parametrize(
    ("where", "change", "sentence"),
    [
        ("notebook", {"teacher": "vgg"}, "unknown teacher 'vgg': choose one of 'resnet50', 'swin'"),
        ("notebook", {"teacher": "none"}, "unknown teacher 'none': a teacher is to be trained."),
        ("notebook", {"seed": True}, "the parameter seed should be a valid integer, not True."),
        ("notebook", {"seed": 1.5}, "the parameter seed should be a valid integer, not 1.5."),
        ("notebook", {"batch_size": 0}, "batch_size should be greater than or equal to 1, not 0."),
        ("notebook", {"amp": 1}, "the parameter amp should be a valid boolean, not 1."),
        ("notebook", {"learning_rate": "1e-5"}, "not '1e-5' (in YAML, write 1.0e-5 for 1e-5)."),
        ("notebook", {"crops_dir": None}, "crops_dir should be a valid string, not None."),
        ("notebook", {"sede": 1}, "has a parameter named 'sede'. Did you mean 'seed'?"),
        ("config", {"banana": 1}, "none of the notebooks has a parameter named 'banana'."),
        ("config", {"out_dir": "runs"}, "out_dir is set for each run, not in a config file."),
        ("config", {"seeds": "[0,1]"}, "'[0,1]' (a list goes in by papermill's -f or -y, not by"),
        ("config", {"teachers": ["vgg"]}, "unknown teacher 'vgg': choose one of 'resnet50'"),
        ("config", {"seeds": []}, "the parameter seeds should have at least 1 item"),
        ("config", {"seeds": [-1]}, "the parameter seeds should be greater than or equal to 0"),
        ("config", {"teachers": []}, "the parameter teachers should have at least 1 item"),
        ("notebook", {"clip_norm": "null"}, "not 'null' (null goes in by papermill's -y"),
        ("config", {"margin": "gone"}, "the parameter margin is missing."),
        ("ablation", {}, "names nothing that departs from the study."),
        ("ablation", {"sede": 1}, "none of the notebooks has a parameter named 'sede'."),
        ("ablation", {"margin": 0.1}, "an ablation shares the study's faces, so not margin."),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, where, change, sentence):
    with pytest.raises(StudyError, match=re.escape(sentence)):
        check(where, change, tmp_path)


def test_a_missing_config_is_named():
    with pytest.raises(StudyError, match=r"^The config file config/no\.yaml does not exist\.$"):
        read_config("config/no.yaml")


def test_an_ablation_makes_anew_only_what_it_changes():
    found = {a.name: a for a in parameters.read_ablations("config/ablations", CONFIGS["quick"])}
    anew = {name: (a.teaches_anew, a.trains_untaught) for name, a in found.items()}
    taught_only = dict.fromkeys(("out_of_fold", "shuffled", "soft"), (False, False))
    assert anew == {"scratch": (True, True), "small": (False, True), **taught_only}
