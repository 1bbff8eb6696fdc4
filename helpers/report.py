"""The rendered notebooks as one page that needs no network."""

import html
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from pygments.formatters import HtmlFormatter

from helpers.errors import StudyError
from helpers.files import project_path, short_path, write_text

_CELLS = """
{%- extends 'basic/index.html.j2' -%}
{%- block input_group -%}
<details class="code"><summary>code</summary>{{ super() }}</details>
{%- endblock input_group -%}
"""
_STYLE = """
:root { --ink: #1f1f1f; --muted: #5f5f5f; --line: #e3e3e3; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 17px/1.6 Charter, 'Bitstream Charter', Georgia, 'DejaVu Serif', serif; }
nav { position: sticky; top: 0; z-index: 1; background: #fffffff2; padding: 10px 24px;
  border-bottom: 1px solid var(--line); font: 14px/1.5 'DejaVu Sans', Helvetica, sans-serif; }
nav a { margin-right: 22px; color: var(--accent); text-decoration: none; white-space: nowrap; }
main { max-width: 860px; margin: 0 auto; padding: 0 24px 96px; }
section { padding-top: 30px; border-bottom: 1px solid var(--line); }
h1 { font-size: 32px; line-height: 1.2; margin: 26px 0 14px; }
h2 { font-size: 23px; margin: 36px 0 8px; } h3 { font-size: 19px; margin: 26px 0 6px; }
a.anchor-link { display: none; } a { color: var(--accent); }
img, svg { max-width: 100%; height: auto; }
pre { font: 13px/1.45 'DejaVu Sans Mono', Menlo, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 6px 0; }
code { font: 0.85em 'DejaVu Sans Mono', Menlo, monospace; background: #f4f4f4; padding: 1px 4px; }
pre code { background: none; padding: 0; }
details.code { margin: 4px 0; color: var(--muted); }
details.code > summary { cursor: pointer; font: 12px 'DejaVu Sans', Helvetica, sans-serif; }
details.code .highlight { background: #f7f7f7; padding: 4px 12px; border-radius: 4px; }
details.other { margin: 30px 0; border: 1px solid var(--line); border-radius: 6px; padding: 0 18px; }
details.other > summary { cursor: pointer; padding: 12px 0; font-weight: bold; }
.jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none; }
table { border-collapse: collapse; margin: 12px 0;
  font: 14px/1.45 'DejaVu Sans', Helvetica, sans-serif; display: block; overflow-x: auto; }
th, td { border: 0; border-bottom: 1px solid var(--line); padding: 5px 12px 5px 0;
  text-align: left; vertical-align: top; }
.jp-RenderedText pre, .output_stderr pre { color: var(--muted); font-size: 12px; }
[data-mime-type='application/vnd.jupyter.stderr'] { color: var(--muted); }
"""
# Jinja needs a bracket pair that CSS does not use, so the page is put together by hand.
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
    style = _STYLE + HtmlFormatter().get_style_defs(".highlight")
    write_text(
        project_path(page),
        _PAGE.format(
            title=html.escape(_TITLE), style=style, links="".join(links), chapters="".join(bodies)
        ),
    )
    return project_path(page)


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
    """`deit_tiny-swin, seed 0` for `.../deit_tiny-swin/seed0/04_distil_student.ipynb`."""
    folder = Path(path).parent
    return f"{folder.parent.name}, {folder.name.replace('seed', 'seed ')}"
