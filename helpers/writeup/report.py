"""The rendered notebooks as one page that needs no network."""

import html
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from pygments.formatters import HtmlFormatter

from helpers.errors import StudyError
from helpers.files import project_path, replacing, short_path, write_text

_CELLS = """
{%- extends 'basic/index.html.j2' -%}
{%- block input_group -%}
<details class="code"><summary>code</summary>{{ super() }}</details>
{%- endblock input_group -%}
"""
_STYLE = Path(__file__).with_name("report.css")
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style></head>
<body><nav>{links}</nav><main>{chapters}</main></body></html>
"""
_TITLE = "How a teacher's architecture changes what a distilled student learns"


def write_page(chapters: Sequence[Sequence[str | Path]], page: str | Path) -> Path:
    """Write executed notebooks as one HTML page, code folded, and return its path.

    Args:
        chapters: for each chapter its executed notebooks. The first is shown; further ones (the
            same chapter for another teacher or seed) are folded below it.
        page: where to write.

    Raises:
        StudyError: for a notebook that does not exist.
    """
    exporter = HTMLExporter(
        template_file="folded", extra_loaders=[DictLoader({"folded": _CELLS})], embed_images=True
    )
    exporter.register_preprocessor(
        TagRemovePreprocessor(remove_cell_tags={"injected-parameters"}), enabled=True
    )
    # Of a progress bar only its last state is kept.
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    links, bodies = [], []
    for number, notebooks in enumerate(chapters, start=1):
        shown, *others = [_body(exporter, project_path(path)) for path in notebooks]
        folded = "".join(
            f'<details class="other"><summary>The same chapter for '
            f"{html.escape(_run_name(path))}</summary>{body}</details>"
            for path, (_, body) in zip(notebooks[1:], others, strict=True)
        )
        heading, body = shown
        links.append(f'<a href="#chapter{number}">{html.escape(heading)}</a>')
        bodies.append(f'<section id="chapter{number}">{body}{folded}</section>')
    style = _STYLE.read_text(encoding="utf-8") + HtmlFormatter().get_style_defs(".highlight")
    write_text(
        project_path(page),
        _PAGE.format(
            title=html.escape(_TITLE), style=style, links="".join(links), chapters="".join(bodies)
        ),
    )
    return project_path(page)


def collect_figures(folders: Sequence[str | Path], out_dir: str | Path) -> list[Path]:
    """Copy the figures that notebooks left in `folders` to `out_dir`, and return the copies.

    A folder that does not exist has no figures.
    """
    copies = []
    for folder in map(project_path, folders):
        for figure in sorted([*folder.glob("*.png"), *folder.glob("*.svg")]):
            copies.append(project_path(out_dir) / figure.name)
            with replacing(copies[-1]) as temporary:
                shutil.copyfile(figure, temporary)
    return copies


def _body(exporter: HTMLExporter, path: Path) -> tuple[str, str]:
    if not path.is_file():
        raise StudyError(f"The executed notebook {short_path(path)} does not exist.")
    notebook = nbformat.read(path, as_version=4)
    body, _ = exporter.from_notebook_node(notebook)
    return _heading(notebook, path), body


def _heading(notebook: nbformat.NotebookNode, path: Path) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return cell.source.splitlines()[0].removeprefix("# ")
    return path.stem


def _run_name(path: str | Path) -> str:
    """`deit_tiny-swin, seed 0` for `.../deit_tiny-swin/seed0/04_distill_student.ipynb`."""
    folder = Path(path).parent
    return f"{folder.parent.name}, {folder.name.replace('seed', 'seed ')}"
