"""Drive appendix A1 in a real browser: JupyterLab, headless Chromium, every control.

    .venv/bin/python benchmarks/drive_explorer.py FOLDER_FOR_SCREENSHOTS

It needs two things that the project does not: Playwright (`pip install playwright`), and a Chromium
(Debian's package `chromium`). JupyterLab starts on port 8907, on a copy of the notebook, with a
home folder of its own. Every number that the controls show is compared with what pandas and
scikit-learn make of the `predictions.csv` of the runs; the first difference ends the script.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
from playwright.sync_api import Page, sync_playwright
from sklearn.metrics import confusion_matrix

from helpers.compare import predictions_of_runs
from helpers.files import ROOT
from helpers.runs import load_runs
from helpers.text import name_of, teacher_of

NOTEBOOK, RUNS = ROOT / "notebooks/A1_explore_faces.ipynb", ROOT / "results/standin/runs"
ADDRESS = "http://127.0.0.1:8907/lab/tree/A1_explore_faces.ipynb?token=x"
# A cell out of sight is not always drawn.
CONTROLS = """() => { [...document.querySelectorAll(".jp-Cell")].at(-1).scrollIntoView();
                       return document.querySelector(".widget-dropdown"); }"""
SERVER = "--no-browser --allow-root --port=8907 --IdentityProvider.token=x --notebook-dir="


def pick(page: Page, **choices: str) -> None:
    """Choose an entry of some lists, by the list's name and the entry's text."""
    for name, entry in choices.items():
        label = page.locator("label", has_text=re.compile(f"^{name}$"))
        page.locator(".widget-dropdown", has=label).locator("select").select_option(label=entry)


def matrix(page: Page) -> list[float]:
    """Return hit, miss, sensitivity, false alarm, correct rejection, specificity as shown."""
    return [float(cell) for cell in page.locator("td:not(.data)").all_inner_texts()[-6:]]


def found(page: Page) -> int:
    """Return how many faces are found: the 41 of "of 41"."""
    return int(re.sub(r"\D", "", page.locator(".widget-slider label").last.inner_text()))


def face(page: Page) -> str:
    """Return the image_id of the face in view, or nothing."""
    return "".join(re.findall(r"\d{10}_\w+", page.locator(".widget-html").first.inner_text()))


def expect(what: str, shown: Callable[[Page], object], page: Page, expected: object) -> None:
    """Wait until `shown(page)` is `expected`; end with an error where it does not come to be."""
    deadline = time.monotonic() + 60
    while (now := shown(page)) != expected:
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: shown {now}, expected {expected}")
        time.sleep(0.2)
    print(f"{what}: {expected}", flush=True)


def check(page: Page, screenshots: Path) -> None:
    """Use every control, and compare what is shown with the runs' own files."""
    long = predictions_of_runs(load_runs(RUNS)).query("seed == 0")
    p = long.pivot(index="image_id", columns="arm", values="probability")
    faces = long.drop_duplicates("image_id").set_index("image_id").loc[p.index]
    pain, people = faces["label"] == "Pain", faces["identity"].str
    arm = next(arm for arm in p if "-" in arm and teacher_of(arm) in p)

    def truth(arm: str, threshold: float, rows: pd.Series | slice = slice(None)) -> list[float]:
        cells = confusion_matrix(pain[rows], p[arm][rows] > threshold, labels=[True, False])
        rates = (cells.diagonal() / cells.sum(axis=1)).round(3)
        return [float(x) for row, rate in zip(cells, rates, strict=True) for x in (*row, rate)]

    pick(page, arm=name_of(arm))
    expect("matrix at 0.5", matrix, page, truth(arm, 0.5))
    bar = page.locator(".widget-slider .noUi-base").first.bounding_box()
    page.mouse.click(bar["x"] + 0.3 * bar["width"], bar["y"] + bar["height"] / 2)
    expect("the slider moves it", lambda page: matrix(page) != truth(arm, 0.5), page, True)
    readout = page.locator(".widget-slider .widget-readout")
    at = float(readout.first.inner_text())
    for other in [*p, arm]:
        pick(page, arm=name_of(other))
        expect(f"{name_of(other)} at {at}", matrix, page, truth(other, at))
    pick(page, gender="Woman", age="Old", side="right")
    rows = (people[2] == "1") & (people[3] == "1") & (faces["side"] == "right")
    expect("old women's right halves", matrix, page, truth(arm, at, rows))
    pick(page, gender="any", age="any", side="any")
    called, own = p > at, p[arm] > at
    outcomes = {"miss": pain & ~own, "false alarm": ~pain & own, "any": pain | True}
    disputes = {"teacher and student differ": own != called[teacher_of(arm)]}
    disputes["arms differ"] = called.nunique(axis=1) > 1
    for name, masks in {"outcome": outcomes, "dispute": disputes}.items():
        for entry, mask in masks.items():
            pick(page, **{name: entry})
            expect(f"{name} {entry}", found, page, int(mask.sum()))
    before = face(page)
    pick(page, order="P(pain), highest first")
    ranked = p[mask].sort_values(arm, ascending=False, kind="stable")
    place = str(ranked.index.get_loc(before) + 1)
    expect("its place by the new order", lambda _: readout.last.inner_text(), page, place)
    for place, image_id in enumerate(ranked.index[:3], 1):
        readout.last.fill(str(place))
        readout.last.press("Enter")
        expect("page", face, page, image_id)
        shown = sorted(float(cell) for cell in page.locator("td.col0").all_inner_texts())
        expect("P(pain)", lambda _, s=shown: s, page, sorted(ranked.loc[image_id].round(3)))
    page.screenshot(path=screenshots / "page.png")


def main(screenshots: Path) -> None:
    """Start JupyterLab and the browser, run all cells by the menu, and check the explorer."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as tools:
        content = nbformat.read(NOTEBOOK, 4)
        content.cells[1].source += f"\nresults_dir = '{home}/results'"
        nbformat.write(content, Path(home, NOTEBOOK.name))
        command = [sys.executable, "-m", "jupyterlab", *f"{SERVER}{home}".split()]
        own = os.environ | {"HOME": home}
        server = subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True)
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page(viewport={"width": 1440, "height": 1300})
        page.set_default_timeout(120_000)
        try:
            next(line for line in server.stderr if "is running at" in line)
            time.sleep(5)
            page.goto(ADDRESS)
            page.get_by_text("| Idle").first.wait_for()  # the kernel is there
            page.locator(".jp-NotebookPanel .jp-Cell").first.click()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name=re.compile("^Run All( Cells)?$")).click()
            page.wait_for_function(CONTROLS, polling=1000)
            page.locator(".widget-dropdown").first.scroll_into_view_if_needed()
            check(page, screenshots)
        finally:
            page.screenshot(path=screenshots / "last.png")
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
