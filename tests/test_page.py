"""The pages: cover, chapters and their further runs, captions, references, nothing from outside."""

import re
from collections import Counter

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.files import StudyError
from helpers.page import build_pages

DOT = "iVBORw0KGgo="  # nothing but the head of a PNG
TOC = (
    "# W\n\n{{ answer }}\n\n![dot](answer.png)\n\n```{toctree}\n03_train\n05_tell\nreferences\n```"
)
BOOK = "@book{hinton2015, author={Hinton, G.}, title={T}, publisher={P}, year={2015}}"
WORDS = (
    "# %s · T\n\n{cite:t}`%s` said: {numref}`fig-%s-size`.\n\n## A\n\n$$x < \\frac{1}{2}$$\n\n## A"
)


def figure(chapter, what):
    words = {"caption": f"The {what} of a dot.", "name": f"fig-{chapter}-{what}"}
    bar = new_output("stream", name="stderr", text="\r  0%| a bar\r100%| a bar\n")
    outputs = [bar, new_output("display_data", {"image/png": DOT, "text/plain": "<Figure>"})]
    metadata = {"mystnb": {"figure": words, "image": {"alt": f"A dot, its {what}"}}}
    return new_code_cell("draw()", metadata=metadata, outputs=outputs, execution_count=1)


def write_notebook(path, citation="hinton2015"):
    number = path.stem[:2]
    said = new_output("execute_result", {"text/markdown": "It is **0.5**."}, execution_count=1)
    cells = [
        new_markdown_cell(WORDS % (number, citation, number)),
        new_code_cell("secret = 2", metadata={"tags": ["injected-parameters"]}),
        *[figure(number, what) for what in ("colour", "size")],
        new_code_cell("say()", outputs=[said], execution_count=1),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    python = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(new_notebook(cells=cells, metadata=python), path)
    return path


def build(folder, chapters):
    files = {"answer.md": "It is +0.007.", "dot.png": "a picture", "cover.md": TOC, "r.bib": BOOK}
    for name, text in files.items():
        (folder / name).write_text(text)
    return build_pages(chapters, folder / "report", *[folder / name for name in files])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text of each page, by its name."""
    folder = tmp_path_factory.mktemp("pages")
    runs = ["resnet50/seed0", "swin/seed0", "swin/seed1"]
    third = [write_notebook(folder / run / "03_train.ipynb") for run in runs]
    index = build(folder, [third, [write_notebook(folder / "05_tell.ipynb")]])
    kinds = (".html", ".js")
    return {p.name: p.read_text() for p in index.parent.iterdir() if p.suffix in kinds}


def test_the_cover_answers_and_leads_to_each_chapter_run_and_section(pages):
    links = re.findall(r'reference internal" href="([\w.#-]+)">([^<]+)</a>', pages["index.html"])
    assert {("03_train.html", "03 · T: ResNet-50, seed 0"), ("05_tell.html", "05 · T")} < {*links}
    assert {("03_train-swin-seed1.html", "Swin-T, seed 1"), ("05_tell.html#a", "A")} < {*links}
    assert "<p>It is +0.007.</p>" in pages["index.html"]
    assert "<h1>03 · T: Swin-T, seed 1<" in pages["03_train-swin-seed1.html"]


@pytest.mark.parametrize("name", ["03_train.html", "03_train-swin-seed0.html"])
def test_figures_are_numbered_in_their_chapter_captioned_and_described(pages, name):
    caption = r'caption-number">(.*?) </span><span class="caption-text">(.*?)<'
    expected = [("Fig. 3.1", "The colour of a dot."), ("Fig. 3.2", "The size of a dot.")]
    assert re.findall(caption, pages[name]) == expected
    assert re.search(r'said: <a [^>]*"#fig-[\w-]*03-size"><span [^>]*>Fig. 3\.2<', pages[name])
    assert 'alt="A dot, its size"' in pages[name]


def test_no_page_has_an_id_twice_a_picture_without_words_or_a_need_for_the_network(pages):
    for name, text in pages.items():
        ids = Counter(re.findall(r'<\w[^>]*\sid="([^"]+)"', text))
        assert max(ids.values(), default=1) == 1, (name, ids.most_common(1))
        assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall("<img [^>]*>", text))
        assert not re.findall(r'(?:src="|<link [^>]*href="|url\()(?:https?:)?//', text), name


def test_results_references_and_search_are_there_and_code_is_folded(pages):
    page = pages["05_tell.html"]
    assert "<strong>0.5</strong>" in page
    assert "a bar" not in page
    assert re.search(r"<details[^>]*>(?:(?!</details>).)*secret", page, re.S)
    (target,) = re.findall(r'href="references\.html#([\w-]+)"[^>]*>.*?2015', page)
    assert f'id="{target}"' in pages["references.html"]
    assert "colour" in pages["searchindex.js"]


def test_what_is_missing_or_cites_nothing_is_one_sentence_and_no_page_is_left(tmp_path):
    with pytest.raises(StudyError, match=r"^The pages need .*no\.ipynb, which does not exist\.$"):
        build(tmp_path, [[tmp_path / "no.ipynb"]])
    chapters = [
        [write_notebook(tmp_path / f"{n}.ipynb", "nobody")] for n in ("03_train", "05_tell")
    ]
    with pytest.raises(StudyError, match=r"^The pages have \d faults, the first: .*nobody"):
        build(tmp_path, chapters)
    assert not (tmp_path / "report").exists()
