"""The executed notebooks as pages that open from the file system, without a network.

Sphinx builds them: myst-nb reads the notebooks as they were executed (nothing is executed here),
sphinxcontrib-bibtex the references, sphinx-book-theme lays them out. `notebooks/cover.md` is the
first page, and its tables of contents say which chapters there are.
"""

import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from sphinx.application import Sphinx
from sphinx.util.console import strip_colors
from sphinx.util.docutils import docutils_namespace

from helpers.files import StudyError, project_path, short_path, write_text
from helpers.text import fill, name_of

_NO_BARS = {"footer_content_items": [], "navbar_persistent": []}
SETTINGS = {
    "extensions": ["myst_nb", "sphinxcontrib.bibtex", "helpers.page"],
    "html_title": "What does a student learn from how its teacher sees?",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"show_toc_level": 2, "use_download_button": False, **_NO_BARS},
    "html_static_path": ["static"],
    "html_css_files": ["page.css"],
    "html_copy_source": False,
    # A summary of what was found would need to read other files, which browsers refuse to pages
    # from the file system.
    "html_show_search_summary": False,
    "myst_heading_anchors": 3,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_output_stderr": "remove",
    "nb_render_markdown_format": "myst",
    "numfig": True,
    "bibtex_bibfiles": ["references.bib"],
    "bibtex_reference_style": "author_year",
}
# The theme's captions are too thin and too pale to be read on a phone.
_STYLE = "figcaption .caption-text { color: var(--pst-color-text-base); font-weight: 400; }\n"
_REFERENCES = "# References\n\n```{bibliography}\n```\n"


def build_pages(
    chapters: Sequence[Sequence[str | Path]],
    out_dir: str | Path,
    answer: str | Path,
    figure: str | Path,
    cover: str | Path = "notebooks/cover.md",
    references: str | Path = "notebooks/references.bib",
) -> Path:
    """Build the pages in `out_dir`, whole or not at all, and return its `index.html`.

    Args:
        chapters: for each chapter its executed notebooks. The first is its page; further ones, the
            chapter for another teacher or seed (`<name>/seed<k>/<chapter>.ipynb`), are pages below.
        out_dir: what is in it is replaced.
        answer: the file with the answer in one sentence.
        figure: the picture of the cover, `answer.png` to it.
        cover: the cover's text, a template in which `answer` is filled in.
        references: the BibTeX file of all chapters.

    Raises:
        StudyError: for a file that does not exist, or what Sphinx finds at fault, such as a
            citation that no reference has.
    """
    out_dir, notebooks = project_path(out_dir), [path for paths in chapters for path in paths]
    for path in map(project_path, [answer, figure, cover, references, *notebooks]):
        if not path.is_file():
            raise StudyError(f"The pages need {short_path(path)}, which does not exist.")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out_dir.parent, prefix=".report-") as folder:
        source, built = Path(folder, "source"), Path(folder, "pages")
        for paths in chapters:
            _copy_chapter([project_path(path) for path in paths], source)
        words = project_path(answer).read_text(encoding="utf-8").strip()
        template = project_path(cover).read_text(encoding="utf-8")
        write_text(source / "index.md", fill(template, answer=words))
        write_text(source / "references.md", _REFERENCES)
        write_text(source / "static/page.css", _STYLE)
        shutil.copy(project_path(references), source / "references.bib")
        shutil.copy(project_path(figure), source / "answer.png")
        if faults := _run_sphinx(source, built, Path(folder, "trees")):
            raise StudyError(f"The pages have {len(faults)} faults, the first: {faults[0]}")
        shutil.rmtree(out_dir, ignore_errors=True)
        built.rename(out_dir)
    return out_dir / "index.html"


def _copy_chapter(paths: Sequence[Path], source: Path) -> None:
    """Copy a chapter's notebooks to Sphinx's `source`, each run's with its own title and labels."""
    first = paths[0].stem
    runs = [(path.parent.parent.name, path.parent.name) for path in paths]
    titles = [f"{name_of(arm)}, {seed.replace('seed', 'seed ')}" for arm, seed in runs]
    pages = [first, *(f"{first}-{arm}-{seed}" for arm, seed in runs[1:])]
    below = [f"{title} <{page}>" for title, page in zip(titles[1:], pages[1:], strict=True)]
    toctree = "\n".join(["```{toctree}", ":caption: Other runs", "", *below, "```"])
    for path, (arm, seed), title, page in zip(paths, runs, titles, pages, strict=True):
        text = path.read_text(encoding="utf-8")
        if page != first:
            text = text.replace("fig-", f"fig-{arm}-{seed}-")
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.metadata.tags.append("hide-input")
        if below:
            heading, line, rest = notebook.cells[0].source.partition("\n")
            notebook.cells[0].source = f"{heading}: {title}{line}{rest}"
        if below and page == first:
            notebook.cells.append(nbformat.v4.new_markdown_cell(toctree))
        write_text(source / f"{page}.ipynb", nbformat.writes(notebook))


def _run_sphinx(source: Path, built: Path, trees: Path) -> list[str]:
    """Build the pages and return Sphinx's warnings."""
    warnings = StringIO()
    with docutils_namespace():
        app = Sphinx(source, None, built, trees, "html", SETTINGS, status=None, warning=warnings)
        app.build()
    return strip_colors(warnings.getvalue()).replace(f"{source}/", "").splitlines()


def setup(app: Sphinx) -> None:
    """Make this file an extension of Sphinx."""
    app.connect("env-get-updated", _number_figures, priority=900)  # after Sphinx has numbered them


def _number_figures(app: Sphinx, env: object) -> list[str]:
    """Number the figures within their chapter: 5.3 is the third of `05_compare_teachers`."""
    for page, kinds in env.toc_fignumbers.items():
        chapter, underline, _ = page.partition("_")
        for place, figure in enumerate(kinds.get("figure", {}) if underline else [], 1):
            kinds["figure"][figure] = (chapter.lstrip("0"), place)
    return []  # no page has to be read again
