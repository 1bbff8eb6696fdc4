"""Parameters: unknown names, wrong types, unknown choices, the folders' placeholders."""

import re

import nbformat
import pytest
import yaml

from helpers.errors import StudyError
from helpers.files import ROOT
from helpers.parameters import (
    NOTEBOOKS,
    PARAMETERS,
    PER_RUN,
    STUDY_LISTS,
    check,
    check_config,
    collect,
    read_config,
)

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


def parameters_cell(notebook: str) -> str:
    cells = nbformat.read(ROOT / f"notebooks/{notebook}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    return cell.source


def namespace_of(notebook: str) -> dict:
    namespace = {}
    exec(parameters_cell(notebook), {}, namespace)
    return namespace


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_has_the_parameters_of_the_contract_with_quicks_values(notebook):
    given = namespace_of(notebook)
    assert set(given) == set(NOTEBOOKS[notebook])
    quick = read_config("config/quick.yaml")
    for name in set(given) & set(quick):
        assert given[name] == quick[name], name
    collect(notebook, given)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_parameter_is_a_commented_literal(notebook):
    for line in parameters_cell(notebook).splitlines():
        assignment, _, comment = line.partition("  # ")
        assert comment, line
        yaml.safe_load(assignment.partition(" = ")[2])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_holds_exactly_the_parameters_of_all_five(config):
    expected = (set().union(*NOTEBOOKS.values()) | set(STUDY_LISTS)) - PER_RUN
    assert set(read_config(config)) == expected


@pytest.mark.parametrize("notebook", NOTEBOOKS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_notebook_takes_every_config_whole(notebook, config):
    collect(notebook, namespace_of(notebook) | read_config(config))


def test_the_study_to_the_letter():
    config = read_config("config/synpain.yaml")
    letter = {
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "schedule": "step",
        "lr_step": 10,
        "lr_gamma": 0.5,
        "teacher_epochs": 30,
        "student_epochs": 30,
        "batch_size": 64,
        "clip_norm": None,
        "split_ratios": [0.7, 0.15, 0.15],
        "image_size": 224,
        "crop_size": 256,
        "init": "imagenet",
        "deterministic": True,
        "distillation": "hard",
        "teacher_labels": "online",
        "allow_weak_teacher": False,
        "teachers": ["resnet50", "swin"],
    }
    assert letter.items() <= config.items()
    assert len(config["seeds"]) == 5


# where the data lie, and how often it is run
SCALE = {"raw_dir", "folds_file", "seeds"}


@pytest.mark.parametrize("config", ["quick", "standin"])
def test_every_departure_from_the_letter_is_named_with_the_value_that_it_replaces(config):
    letter, here = read_config("config/synpain.yaml"), read_config(f"config/{config}.yaml")
    named = {}
    for line in (ROOT / f"config/{config}.yaml").read_text().splitlines():
        name, _, rest = line.partition(":")
        if found := re.search(r"# .*departure \(([^)]+)\)[:;,] *\S", rest):
            named[name] = yaml.safe_load(found[1])
    departed = {name for name in here if here[name] != letter[name]} - SCALE
    assert named == {name: letter[name] for name in departed}


def test_folders_are_filled_in():
    given = namespace_of("04_distill_student") | {"teacher": "swin", "seed": 3}
    p = collect("04_distill_student", given)
    assert p.teacher_dir == "runs/quick/teacher/swin/seed3"
    assert p.out_dir == "runs/quick/student/deit_tiny-swin/seed3"


def test_what_is_no_plain_value_is_no_parameter():
    given = namespace_of("01_prepare_dataset")
    notebook = {"In": ["x"], "Out": {}, "_i1": "y", "print": print, "yaml": yaml}
    assert vars(collect("01_prepare_dataset", given | notebook)) == vars(
        collect("01_prepare_dataset", given)
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_name_that_no_notebook_has_is_one_sentence(notebook):
    with pytest.raises(StudyError, match=r"None of the notebooks has a parameter named 'sede'\.$"):
        collect(notebook, namespace_of(notebook) | {"sede": 1})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("teacher", "vgg", "Unknown teacher 'vgg': choose one of resnet50, swin, swin_base, none."),
        ("student", "vit", "Unknown student 'vit': choose one of deit_tiny"),
        ("teachers", ["resnet"], "Unknown teacher 'resnet'"),
        ("seeds", "[0,1]", "seeds must be a list, not '[0,1]' (a list goes in by papermill's -f"),
        ("learning_rate", "1e-5", "must be a float, not '1e-5' (in YAML, write 1.0e-5 for 1e-5)"),
        ("seed", True, "seed must be a int, not True"),
        ("seed", 1.5, "seed must be a int, not 1.5"),
        ("batch_size", 0, "batch_size must be at least 1, not 0."),
        ("amp", 1, "amp must be a bool, not 1"),
        ("temperature", 0, "temperature must be at least 0.1, not 0.0."),
        ("teacher_labels", "guessed", "Unknown teacher_labels 'guessed': choose one of online, "),
        ("allow_weak_teacher", "true", "allow_weak_teacher must be a bool, not 'true'"),
        ("crops_dir", None, "crops_dir must be a str, not None"),
        ("banana", 1, "None of the notebooks has a parameter named 'banana'."),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence(name, value, sentence):
    with pytest.raises(StudyError) as caught:
        check(name, value, "04_distill_student")
    assert sentence in str(caught.value)


def test_only_a_student_can_do_without_a_teacher():
    assert check("teacher", "none", "04_distill_student") == "none"
    with pytest.raises(StudyError, match="Unknown teacher 'none'"):
        check("teacher", "none", "03_train_teacher")


def test_a_whole_number_is_a_number():
    value = check("weight_decay", 0)
    assert value == 0.0
    assert isinstance(value, float)
    assert check("clip_norm", None) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sede": 1}, "x.yaml: none of the notebooks has a parameter named 'sede'."),
        ({"out_dir": "runs"}, "x.yaml: out_dir is set for each run, not in a config file."),
        ({"amp": None}, "The parameter amp must be a bool, not None."),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(change, sentence):
    quick = read_config("config/quick.yaml")
    with pytest.raises(StudyError) as caught:
        check_config(quick | change, "x.yaml")
    assert str(caught.value) == sentence


def test_a_config_that_lacks_a_name_says_which():
    quick = read_config("config/quick.yaml")
    del quick["margin"]
    with pytest.raises(StudyError, match=r"x\.yaml: the parameter margin is missing"):
        check_config(quick, "x.yaml")


def test_a_missing_config_is_named():
    with pytest.raises(StudyError, match=r"The config file config/no\.yaml does not exist\."):
        read_config("config/no.yaml")


def test_every_rule_belongs_to_a_notebook_or_the_study():
    assert set(PARAMETERS) == set().union(*NOTEBOOKS.values()) | set(STUDY_LISTS)
