"""The repository's own promises: its size, its pins, the notebooks' form, what leans on what."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter
from importlib.metadata import version

import nbformat
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from helpers.files import ROOT
from helpers.parameters import NOTEBOOKS

HELPERS = sorted((ROOT / "helpers").rglob("*.py"))
PATHS = [ROOT / f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
LOCK = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
NO_CODE = {getattr(tokenize, name) for name in "COMMENT NL NEWLINE INDENT DEDENT".split()}
NO_CODE |= {tokenize.ENCODING, tokenize.ENDMARKER}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def count_code(paths):
    """Count the lines that hold code: no docstring, no comment, no blank line."""
    total = 0
    for text in (path.read_text() for path in paths):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        spans = [range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in NO_CODE]
        lines = {line for span in spans for line in span}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        total += len(lines)
    return total


def test_the_house_stays_small():
    benchmarks = sorted((ROOT / "benchmarks").rglob("*.py"))
    start = [p for p in (ROOT / "data").rglob("*.py") if "render" not in p.parts]
    snakefile = (ROOT / "Snakefile").read_text().splitlines()
    rules = sum(bool(line.strip()) and line.strip()[0] != "#" for line in snakefile)
    assert len(HELPERS) <= 32
    assert count_code(HELPERS) <= 3640  # 3,600, and what the transfer study has begun with
    assert count_code(benchmarks) <= 700
    assert count_code([*HELPERS, *benchmarks, *start]) + rules <= 5500
    assert count_code((ROOT / "tests").rglob("*.py")) <= 3560
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def imported(path):
    """Return the modules that a file names in any import, within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_helpers_import_each_other_in_no_circle_and_nothing_that_one_system_lacks():
    graph = {f"helpers.{path.stem}": set(imported(path)) for path in HELPERS}
    TopologicalSorter(graph).prepare()
    assert not set().union(*graph.values()) & {"fcntl", "pwd", "grp", "resource", "termios"}


@pytest.mark.parametrize("code", ["import helpers.train, helpers.compare", "Snakefile"])
def test_training_needs_no_detector_and_the_engine_no_torch(code):
    """Snakemake reads its file again for each job that it runs itself."""
    unwanted = {"facenet_pytorch", "anny", "trimesh"}
    if code == "Snakefile":
        lines = (ROOT / "Snakefile").read_text().splitlines()
        code = "\n".join(line for line in lines if re.match("import |from ", line))
        unwanted |= {"torch", "scipy", "matplotlib", "sphinx"}
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not unwanted & set(loaded.split())


def test_the_lock_is_exact_and_within_the_ranges_of_the_environment():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    ranges = dict(re.fullmatch(r"([\w-]+) ?(.*)", line).groups() for line in conda + pip["pip"][:1])
    ranges["torch"] = ranges.pop("pytorch")
    ranges = {canonicalize_name(name): SpecifierSet(found) for name, found in ranges.items()}
    users = "torch torchvision timm facenet-pytorch matplotlib seaborn pandas scikit-learn jupyter"
    assert {*users.split(), "papermill", "ipywidgets"} <= set(ranges)
    for name, pin in LOCK:
        assert version(name).partition("+")[0] == pin, name
        assert pin in ranges[canonicalize_name(name)], name
    assert [str(ranges[name]) for name in ("torch", "torchvision")] == [
        f"=={dict(LOCK)[name]}" for name in ("torch", "torchvision")
    ]


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
class TestNotebook:
    def test_it_is_committed_executed_top_to_bottom_without_an_error(self, path):
        cells = code_cells(path)
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert "error" not in {output.output_type for output in outputs}
        assert not re.search("Warning|Traceback", "".join(o.get("text", "") for o in outputs))
        assert not re.search(r"/(home|root|Users|work|tmp)/\w", path.read_text())

    def test_it_opens_with_its_title_and_parameters_and_its_cells_are_short(self, path):
        assert nbformat.read(path, 4).cells[0].source.startswith("# ")
        first, *others = code_cells(path)
        assert "parameters" in first.metadata.tags
        for cell in others:
            assert "parameters" not in cell.metadata.get("tags", [])
            assert len(cell.source.splitlines()) <= 15, cell.source


def test_each_figure_has_a_caption_a_name_of_its_own_and_words_for_who_cannot_see_it():
    names = []
    for cell in (cell for path in PATHS for cell in code_cells(path)):
        if pictures := sum("image/png" in output.get("data", {}) for output in cell.outputs):
            figure = cell.metadata.mystnb
            assert pictures == 1, cell.source
            assert min(len(figure.figure.caption), len(figure.image.alt)) > 10
            names.append(figure.figure.name)
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"fig-[\w-]+", name) for name in names), names


def test_every_citation_has_a_reference_and_every_reference_is_cited():
    text = "\n".join(path.read_text() for path in (ROOT / "notebooks").rglob("*.*"))
    cited = re.findall(r"\{cite:\w\}`([^`]+)`", text)
    entries = re.findall(r"^@\w+\{([^,]+),", (ROOT / "notebooks/references.bib").read_text(), re.M)
    assert len(entries) == len(set(entries))
    assert {key.strip() for keys in cited for key in keys.split(",")} == set(entries)


def test_chapter_5_reads_in_ten_minutes_and_the_readme_gives_its_answer():
    cells = nbformat.read(ROOT / "notebooks/05_compare_teachers.ipynb", 4).cells
    words = [cell.source for cell in cells if cell.cell_type == "markdown"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    words += [data.get("text/markdown", "") for data in outputs]
    assert len(" ".join(words).split()) <= 2500
    answer = (ROOT / "results/standin/answer.md").read_text().strip()
    assert answer in " ".join((ROOT / "README.md").read_text().split())
