"""The repository's own promises: pins, the notebooks' form, what may not be committed."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import nbformat
import pytest
import yaml
from setuptools import find_packages

from helpers.files import ROOT
from helpers.parameters import NOTEBOOKS

HELPERS = ROOT / "helpers"
PATHS = [ROOT / f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
REQUIREMENTS = (ROOT / "requirements.txt").read_text().splitlines()
PINS = dict(
    re.match(r"([\w.-]+)==([\w.]+)", line).groups() for line in REQUIREMENTS if "==" in line
)


def test_every_dependency_is_pinned_exactly_and_is_what_runs_here():
    for line in REQUIREMENTS:
        if line and not line.startswith(("#", "--")):
            assert re.match(r"[\w.-]+==[\w.]+(\s|$)", line), line
    for name, pin in PINS.items():
        assert version(name).partition("+")[0] == pin, name


def test_every_dependency_says_what_it_is_for():
    heading = ""
    for line in REQUIREMENTS:
        heading = line if line.startswith("#") else heading
        if "==" in line:
            assert "  # " in line or "tests" in heading, line


def test_conda_installs_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]}
    assert {"python=3.11", "pip"} <= set(conda)
    assert not {re.split("[=<>]", name)[0] for name in conda} & set(PINS)


def test_the_package_is_what_pip_installs():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in HELPERS.rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(find_packages(str(ROOT), **settings["packages"]["find"])) == names
    assert settings["package-data"] == {"helpers.writeup": ["*.css"]}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestNotebook:
    def test_it_is_committed_executed_top_to_bottom_without_an_error(self, path):
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert outputs
        assert all(output.output_type != "error" for output in outputs)
        text = "".join(output.get("text", "") for output in outputs)
        assert not re.search(r"Warning|Traceback", text)

    def test_it_carries_no_path_of_one_machine(self, path):
        assert not re.search(r"/(home|root|Users|work|tmp)/\w", path.read_text())

    def test_its_first_code_cell_alone_is_tagged_parameters(self, path):
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        tagged = ["parameters" in cell.metadata.get("tags", []) for cell in cells]
        assert tagged == [True] + [False] * (len(cells) - 1)

    def test_its_cells_are_short_and_call_helpers(self, path):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                assert len(cell.source.splitlines()) <= 15, cell.source
                assert not re.search(r"^(def|class) ", cell.source, re.M), cell.source

    def test_it_opens_with_its_question_and_closes_with_what_was_learnt(self, path):
        cells = nbformat.read(path, 4).cells
        assert cells[0].cell_type == "markdown"
        assert cells[0].source.startswith("# ")


def imports(module: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after importing `module`."""
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    ["helpers.training.experiments", "helpers.writeup.frame", "helpers.evaluation.external"],
)
def test_training_and_comparison_need_neither_detector_nor_renderer(module):
    assert not {"facenet_pytorch", "anny", "trimesh", "warp"} & imports(module)


def test_helpers_can_be_read_in_one_sitting():
    for path in HELPERS.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path.name


def test_each_folder_of_helpers_builds_on_those_before_it_only():
    order = (
        "dataset cropping networks training pretraining evaluation writeup inheritance inside "
        "explorer predict export release"
    ).split()
    assert sorted(order) == sorted(path.parent.name for path in HELPERS.glob("*/__init__.py"))
    for path in HELPERS.rglob("*.py"):
        level = order.index(path.parent.name) if path.parent != HELPERS else -1
        named = re.findall(r"(?:from|import) helpers\.(\w+)", path.read_text())
        used = [order.index(name) for name in named if name in order]
        assert max(used, default=-1) <= level, path


def test_the_snakefile_needs_no_torch_to_be_read():
    """Snakemake reads it again for each job that it runs itself; torch takes seconds to import."""
    lines = (ROOT / "Snakefile").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert any("helpers" in line for line in imports)
    heavy = "{'torch', 'scipy', 'nbconvert', 'matplotlib.pyplot'}"
    code = "\n".join(["import sys", *imports, f"print(*{heavy} & set(sys.modules))"])
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
