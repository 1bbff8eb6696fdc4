"""The page: five chapters in order, code folded, nothing from the network."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.errors import StudyError
from helpers.writeup.report import collect_figures, write_page

DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def notebook(folder, title: str):
    picture = new_output("display_data", {"image/png": DOT})
    words = new_output("display_data", {"text/markdown": "It is **0.5**."})
    bar = new_output("stream", name="stderr", text="\r  0%| step\r 50%| step\r100%| step\n")
    cells = [
        new_markdown_cell(f"# {title}\n\nWords < signs."),
        new_code_cell("secret = 1", outputs=[bar, picture, words], execution_count=1),
        new_code_cell("injected = 2", metadata={"tags": ["injected-parameters"]}),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "n.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def page(tmp_path):
    chapters = [[notebook(tmp_path / str(n), f"Chapter {n}")] for n in range(1, 6)]
    chapters[2].append(notebook(tmp_path / "swin" / "seed1", "Chapter 3"))
    return write_page(chapters, tmp_path / "report.html").read_text()


def test_the_chapters_stand_in_order_and_are_linked(page):
    headings = re.findall(r"<h1[^>]*>(Chapter \d)", page)
    assert headings == [
        "Chapter 1",
        "Chapter 2",
        "Chapter 3",
        "Chapter 3",
        "Chapter 4",
        "Chapter 5",
    ]
    links = re.findall(r'<a href="#(chapter\d)">(Chapter \d)</a>', page)
    assert links == [(f"chapter{n}", f"Chapter {n}") for n in range(1, 6)]
    assert re.findall(r'<section id="(chapter\d)"', page) == [name for name, _ in links]


def test_a_further_run_is_folded_below_its_chapter(page):
    third = page.split('<section id="chapter3">')[1].split("</section>")[0]
    assert "The same chapter for swin, seed 1" in third


def test_code_is_folded_and_results_are_not(page):
    folded = re.findall(r'<details class="code">.*?</details>', page, re.S)
    assert len(folded) == 6
    assert all("secret" in part for part in folded)
    outside = re.sub(r'<details class="code">.*?</details>', "", page, flags=re.S)
    assert "secret" not in outside
    assert outside.count(DOT) == 6
    assert "<strong>0.5</strong>" in outside
    assert "injected" not in page


def test_a_progress_bar_is_shown_as_it_ended(page):
    assert page.count("100%|") == 6
    assert "50%|" not in page


def test_nothing_comes_from_the_network(page):
    assert not re.findall(r"<script|<link|@import|src=\"http|url\(", page)


def test_a_missing_notebook_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match=r"The executed notebook .*no\.ipynb does not exist\."):
        write_page([[tmp_path / "no.ipynb"]], tmp_path / "report.html")


def test_figures_are_collected_in_both_forms_and_nothing_else(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("a.png", "a.svg", "notes.txt"):
        (folder / name).write_text(name)
    collect_figures([folder, tmp_path / "none"], tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a.png": "a.png",
        "a.svg": "a.svg",
    }
