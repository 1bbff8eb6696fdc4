"""Drive chapter 6 in a real browser: JupyterLab, headless Chromium, every control.

    .venv/bin/python benchmarks/drive_explorer.py --screenshots shots [--runs runs/quick]

It needs two things that the project does not: Playwright, and a Chromium (Debian's package
`chromium`, or the one that `playwright install chromium` fetches):

    .venv/bin/python -m pip install playwright

JupyterLab starts on a free port with settings of its own, on a copy of the notebook, so the
committed one stays as it is. Every number that the controls show is compared with what pandas and
scikit-learn make of the `predictions.csv` of runs on the stand-in. The first difference ends the
script with an error.
"""

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from live_notebook import copy_of, jupyterlab
from playwright.sync_api import Page, sync_playwright
from sklearn.metrics import confusion_matrix

from helpers.figures import label_of, teacher_of
from helpers.files import ROOT, project_path, read_csv
from helpers.inheritance.dose import ATTRIBUTES

NOTEBOOK = "06_explore_faces.ipynb"
COUNTS = ("hit", "miss", "false_alarm", "correct_rejection")
WIDTH, HEIGHT = 1440, 1000


class Truth:
    """The runs' test predictions, read without the explorer's own code."""

    def __init__(self, runs: Path) -> None:
        """Read `predictions.csv` of every run, and the kinds of the stand-in's expressions."""
        parts = []
        for path in sorted(runs.glob("*/*/seed*/predictions.csv")):
            if path.parts[-4] in ("teacher", "student"):
                table = read_csv(path)
                seed = int(path.parts[-2].removeprefix("seed"))
                parts.append(table[table["split"] == "test"].assign(arm=path.parts[-3], seed=seed))
        table = pd.concat(parts, ignore_index=True)
        self.seed = table["seed"].min()
        table = table[table["seed"] == self.seed].sort_values("image_id")
        kinds = read_csv(ATTRIBUTES).set_index("image_id")["kind"]
        self.faces = table.drop_duplicates("image_id").set_index("image_id")
        self.faces["kind"] = kinds.reindex(self.faces.index)
        self.p = table.pivot(index="image_id", columns="arm", values="probability")
        self.pain = self.faces["label"] == "Pain"

    def matrix(self, arm: str, threshold: float, among: pd.Series | None = None) -> dict[str, int]:
        """Return scikit-learn's confusion matrix of the faces `among`."""
        rows = self.pain.index if among is None else self.pain.index[among]
        called = self.p.loc[rows, arm] > threshold
        cells = confusion_matrix(self.pain[rows], called, labels=[True, False]).ravel()
        return dict(zip(COUNTS, map(int, cells), strict=True))


class Screen:
    """The explorer as the browser shows it."""

    def __init__(self, page: Page, folder: Path) -> None:
        """Take the page, and the folder for the screenshots."""
        self.page, self.folder, self._shots = page, folder, 0

    def html(self, name: str) -> str:
        """Return what a widget holds."""
        return self.page.locator(f".explorer-{name}").first.inner_html()

    def pick(self, name: str, label: str) -> None:
        """Choose an entry of a list by its text."""
        self.page.locator(f".explorer-{name} select").select_option(label=label)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.locator(f"button.explorer-{name}").click()

    def matrix(self) -> dict[str, int]:
        """Return the four counts that are shown."""
        html = self.html("matrix")
        found = re.findall(r'data-count="(\w+)" data-value="(\d+)"', html)
        return {name: int(value) for name, value in found}

    def rate(self, name: str) -> float:
        """Return sensitivity or specificity as shown."""
        found = re.search(rf'data-rate="{name}" data-value="([\d.]+|nan)"', self.html("matrix"))
        return float(found.group(1))

    def position(self) -> str:
        """Return "3 of 41"."""
        return self.page.locator(".explorer-position .widget-html-content").inner_text().strip()

    def found(self) -> int:
        """Return the 41 of "3 of 41"."""
        return int(self.position().rpartition(" ")[2].replace(",", ""))

    def face(self) -> str:
        """Return the image_id of the face in view."""
        return re.search(r'data-face="(\w+)"', self.html("scores")).group(1)

    def probabilities(self) -> dict[str, float]:
        """Return every arm's P(pain) as shown beside the face."""
        found = re.findall(r'data-arm="([\w-]+)" data-value="([\d.]+)"', self.html("scores"))
        return {arm: float(value) for arm, value in found}

    def threshold(self) -> float:
        """Return the slider's number."""
        return float(self.page.locator(".explorer-threshold .widget-readout").inner_text())

    def drag(self, share: float) -> None:
        """Drag the slider's handle to `share` of its length."""
        handle = self.page.locator(".explorer-threshold .noUi-handle").bounding_box()
        bar = self.page.locator(".explorer-threshold .noUi-base").bounding_box()
        y = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(bar["x"] + share * bar["width"], y, steps=8)
        self.page.mouse.up()

    def shot(self, name: str) -> None:
        """Save what the browser shows."""
        self._shots += 1
        self.page.screenshot(path=self.folder / f"{self._shots:02d}_{name}.png")


def expect(what: str, shown: Callable[[], object], expected: object, seconds: float = 60) -> None:
    """Wait until `shown()` is `expected`; end with an error where it does not come to be."""
    deadline = time.monotonic() + seconds
    while (now := shown()) != expected:
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: shown {now}, expected {expected}")
        time.sleep(0.2)
    print(f"{what}: {expected}", flush=True)


def check(screen: Screen, truth: Truth) -> None:
    """Use every control, and compare what is shown with `truth`."""
    arms = list(truth.p.columns)
    students = [arm for arm in arms if "-" in arm and teacher_of(arm) in arms]
    arm = max(students, key=lambda name: truth.p[name].std())  # whose threshold moves most
    teacher = teacher_of(arm)
    screen.pick("arm", label_of(arm))
    expect("matrix at 0.5", screen.matrix, truth.matrix(arm, 0.5))
    expect("faces", screen.found, len(truth.pain))
    screen.shot("start")

    low, high = (float(truth.p[arm].quantile(q)) for q in (0.6, 0.9))
    for share in (low, high):
        before = screen.threshold()
        screen.drag(share)
        expect("the slider has moved", lambda old=before: screen.threshold() != old, True)
        at = screen.threshold()
        expected = truth.matrix(arm, at)
        expect(f"matrix at {at:.2f}", screen.matrix, expected)
        called = truth.p[arm] > at
        for rate, mask in (("sensitivity", truth.pain), ("specificity", ~truth.pain)):
            share_right = float((called == truth.pain)[mask].mean())
            expect(
                f"{rate} at {at:.2f}", lambda rate=rate: screen.rate(rate), round(share_right, 6)
            )
    screen.shot("threshold")
    screen.page.locator(".explorer-threshold .noUi-handle").press("ArrowLeft")
    expect("one step by key", screen.threshold, round(at - 0.01, 2))
    at = screen.threshold()
    expect(f"matrix at {at:.2f}", screen.matrix, truth.matrix(arm, at))

    for other in arms:
        screen.pick("arm", label_of(other))
        expect(f"matrix of {label_of(other)}", screen.matrix, truth.matrix(other, at))
    screen.pick("arm", label_of(arm))

    people = truth.faces["identity"].str
    among = (people[2] == "1") & (people[3] == "1") & (truth.faces["side"] == "right")
    screen.pick("gender", "Woman")
    screen.pick("age", "Old")
    screen.pick("kind", "all but neutral")
    expect("old women, expressive", screen.matrix, truth.matrix(arm, at, among))
    expect("their faces", screen.found, int(among.sum()))
    screen.shot("subgroup")
    for name in ("gender", "age"):
        screen.pick(name, "any")
    kind = truth.faces["kind"][~truth.pain & (truth.faces["side"] == "right")].mode()[0]
    screen.pick("kind", kind)
    expect(f"faces of {kind}", screen.found, int((truth.faces["kind"] == kind).sum()))
    screen.pick("kind", "any")

    called = truth.p[arm] > at
    sides = {"miss": truth.pain & ~called, "false alarm": ~truth.pain & called,
             "hit": truth.pain & called, "correct rejection": ~truth.pain & ~called}  # fmt: skip
    for outcome, mask in sides.items():
        screen.pick("outcome", outcome)
        expect(outcome, screen.found, int(mask.sum()))
    screen.pick("outcome", "any")
    by_teacher = truth.p[teacher] > at
    disputes = {
        "student ≠ label": called != truth.pain,
        "teacher ≠ label": by_teacher != truth.pain,
        "arms differ": (truth.p > at).nunique(axis=1) > 1,
        "student ≠ teacher": called != by_teacher,
    }
    for dispute, mask in disputes.items():
        screen.pick("dispute", dispute)
        expect(dispute, screen.found, int(mask.sum()))
    screen.shot("dispute")

    screen.pick("order", "P(pain), highest first")
    ranked = truth.p[arm][disputes["student ≠ teacher"]].sort_values(ascending=False, kind="stable")
    place = list(ranked.index).index(screen.face()) + 1
    expect("the same face, by the new order", screen.position, f"{place} of {len(ranked):,}")
    for _ in range(place - 1):
        screen.press("back")
    for place, image_id in enumerate(ranked.index[:3], start=1):
        if place > 1:
            screen.press("forward")
        expect("page", screen.position, f"{place} of {len(ranked):,}")
        expect("face", screen.face, image_id)
        shown = screen.probabilities()
        if not all(np.isclose(shown[a], truth.p.loc[image_id, a], atol=1e-6) for a in arms):
            raise SystemExit(f"P(pain) of {image_id}: shown {shown}")
    overlay(screen)

    screen.pick("dispute", "any")
    screen.pick("kind", "neutral")
    screen.pick("outcome", "hit")
    expect("nothing found", screen.position, "0 of 0")
    expect("and a sentence", lambda: "no face of this group" in screen.html("picture"), True)
    screen.shot("empty")
    screen.pick("outcome", "any")
    screen.pick("kind", "any")
    expect("all again", screen.found, len(truth.pain))
    expect("matrix again", screen.matrix, truth.matrix(arm, at))


def overlay(screen: Screen) -> None:
    """Lay the map over the face and take it off again."""
    plain = screen.html("picture")
    screen.press("overlay")
    expect("the picture changes", lambda: screen.html("picture") != plain, True, 120)
    said = screen.page.locator(".explorer-picture p").inner_text()
    print(f"with saliency: {said}", flush=True)
    screen.shot("saliency")
    screen.press("overlay")
    expect("the plain picture again", lambda: screen.html("picture") == plain, True)


def run_all(page: Page) -> None:
    """Run every cell by the menu, and wait for the controls."""
    page.get_by_text("| Idle").first.wait_for(timeout=300_000)  # the kernel is there
    page.locator(".jp-NotebookPanel .jp-Cell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All( Cells)?$")).click()
    box, cells = page.locator(".explorer-box"), page.locator(".jp-NotebookPanel .jp-Cell")
    deadline = time.monotonic() + 600
    while not box.count():
        if time.monotonic() > deadline:
            raise SystemExit("The controls did not appear within ten minutes.")
        cells.last.scroll_into_view_if_needed()  # a cell out of sight is not always drawn
        time.sleep(1)
    box.scroll_into_view_if_needed()


def main(runs: str, screenshots: Path, chromium: str | None) -> None:
    """Start JupyterLab and the browser, and check the explorer."""
    began = time.monotonic()
    screenshots.mkdir(parents=True, exist_ok=True)
    truth = Truth(project_path(runs))
    with tempfile.TemporaryDirectory(prefix="drive-explorer-") as name, sync_playwright() as tools:
        work = Path(name)
        with jupyterlab(work, copy_of(ROOT / "notebooks" / NOTEBOOK, work, runs)) as address:
            browser = tools.chromium.launch(executable_path=chromium)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(120_000)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            screen = Screen(page, screenshots)
            try:
                run_all(page)
                check(screen, truth)
            except BaseException:
                screen.shot("failed")
                raise
            finally:
                browser.close()
    if errors:
        raise SystemExit(f"The page reports errors: {errors[:3]}")
    print(f"all as expected, {time.monotonic() - began:.0f} s; screenshots in {screenshots}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", default="runs/quick", help="the folder of runs to explore")
    parser.add_argument("--screenshots", type=Path, required=True, help="where to save them")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="its executable")
    chosen = parser.parse_args()
    main(chosen.runs, chosen.screenshots, chosen.chromium)
