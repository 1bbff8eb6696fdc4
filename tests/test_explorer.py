"""The explorer: which faces it finds, what it counts, what its controls show."""

import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from helpers import explorer
from helpers.explorer import ANY, DISPUTES, Explorer
from helpers.files import ROOT, read_csv
from helpers.runs import HEADS, load_runs

PUPIL, TWIN = "deit_tiny-swin", "deit_tiny-none"
RUNS = ROOT / "results/standin/runs"


@pytest.fixture(scope="module")
def faces():
    """The committed runs' test faces, none with a picture."""
    return explorer.gather(load_runs(RUNS), "no/such/crops")


def said(arm, seed):
    """The test predictions of a committed run, by image_id."""
    (path,) = RUNS.glob(f"*/{arm}/seed{seed}/predictions.csv")
    return read_csv(path).query("split == 'test'").set_index("image_id").sort_index()


def numbers(html):
    """The numbers in the cells of a table."""
    return [float(cell) for cell in re.findall(r"<td[^>]*>([\d.]+)</td>", html)]


def test_the_table_of_thresholds_is_the_one_before_the_redesign(faces):
    old = read_csv(ROOT / "tests/golden/thresholds.csv.gz")
    made = explorer.thresholds(faces).round(6)
    pd.testing.assert_frame_equal(made, old, check_dtype=False, rtol=0, atol=1e-9)


def test_disputes_are_of_those_who_are_named(faces):
    pain = said(PUPIL, 1)["label"] == "Pain"
    arms = ("resnet50", "swin", TWIN, "deit_tiny-resnet50", PUPIL)
    called = pd.DataFrame({arm: said(arm, 1)["probability"] > 0.6 for arm in arms})
    _, arms_differ, kin_differ, label_differs = DISPUTES
    for arm, kin in ((PUPIL, "swin"), ("swin", PUPIL), (TWIN, TWIN)):
        judged = explorer.judge(faces, (arm, 1, "probability"), 0.6)
        assert (judged[kin_differ] == (called[arm] != called[kin])).all()
        assert (judged[label_differs] == (called[arm] != pain)).all()
        assert (judged[arms_differ] == (called.nunique(axis=1) > 1)).all()


def test_people_follow_the_id_and_kinds_are_the_rendered_ones(faces):
    asked = {("gender", "Man"): "0", ("age", "Old"): "1", ("ethnicity", "Asian"): "4"}
    for place, ((column, value), digit) in enumerate(asked.items(), 2):
        found = explorer.among(faces.table, {column: value, "side": ANY})
        assert set(found.index) == {i for i in faces.table.index if i[place] == digit}
    rendered = read_csv(ROOT / "data/standin/attributes.csv").set_index("image_id")["kind"]
    assert (faces.table["kind"] == rendered[faces.table.index]).all()
    plain = explorer.gather(load_runs(RUNS)[:1], "no/such/crops", "no/such/table.csv").table
    assert set(plain["side"] + plain["kind"]) == {"leftneutral", "rightexpressive"}


@pytest.mark.parametrize("head", HEADS)
def test_the_threshold_moves_the_matrix_and_the_faces(faces, head):
    walk, table = Explorer(faces), said(PUPIL, 0)
    for name, value in {"arm": PUPIL, "head": head, "outcome": "miss"}.items():
        walk.controls[name].value = value
    pain = table["label"] == "Pain"
    for threshold in (0.5, 0.11, 0.93):
        walk.controls["threshold"].value = threshold
        cells = confusion_matrix(pain, table[head] > threshold, labels=[True, False])
        expected = np.column_stack([cells, cells.diagonal() / cells.sum(axis=1)]).ravel()
        np.testing.assert_allclose(numbers(walk.matrix.value), expected, atol=5e-4)
        assert walk.page.description == f"of {cells[0, 1]}"


def test_pages_follow_the_order_and_show_every_arm(faces):
    walk = Explorer(faces)
    walk.controls["arm"].value, walk.controls["order"].value = PUPIL, "P(pain), highest first"
    ranked = said(PUPIL, 0)["probability"].sort_values(ascending=False, kind="stable").index
    for page in (1, 40, 300):
        walk.page.value = page
        assert walk.shown == ranked[page - 1]
        assert all(words in walk.face.value for words in (walk.shown, explorer.NO_PICTURE))
    last, shown = said(PUPIL, 0).loc[ranked[-1]], numbers(walk.face.value)
    expected = [said("resnet50", 0).loc[ranked[-1], "probability"], *last[list(HEADS)]]
    np.testing.assert_allclose([shown[0], *shown[-3:]], expected, atol=5e-4)
    walk.controls["outcome"].value = "correct rejection"  # a face that is still found stays in view
    assert walk.shown == ranked[-1]
    walk.controls["outcome"].value = "hit"
    assert walk.page.value == 1


def test_where_nothing_is_found_a_sentence_says_so_and_the_way_back_is_open(faces):
    walk = Explorer(faces)
    walk.controls["arm"].value, walk.controls["dispute"].value = TWIN, DISPUTES[2]
    assert (walk.page.description, walk.face.value[:12]) == ("of 0", "No test face")
    walk.controls["dispute"].value = ANY
    assert walk.page.description == "of 300"
    walk.controls["head"].value = "probability_distillation"
    assert "no run of this seed with this head" in walk.matrix.value
    walk.reset.click()
    assert "right" in walk.matrix.value
    assert walk.controls["arm"].value != TWIN


def test_what_is_shown_last_is_what_was_chosen_last(faces, monkeypatch):
    """JupyterLab may answer two controls at once; the first answer is made to take longer."""
    walk, once = Explorer(faces), explorer.among

    def among(judged, wanted):
        time.sleep(0.3 if wanted.get("outcome") == ANY else 0)
        return once(judged, wanted)

    monkeypatch.setattr(explorer, "among", among)
    first = threading.Thread(target=setattr, args=(walk.controls["side"], "value", "right"))
    first.start()
    time.sleep(0.1)
    walk.controls["outcome"].value = "hit"
    first.join()
    assert set(walk.found["outcome"]) == {"hit"}


def test_a_picture_is_shown_where_there_is_one(faces, tmp_path):
    first = faces.table.index[0]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "manifest.csv").write_text(f"image_id,path\n{first},a.jpg\n")
    walk = Explorer(explorer.gather(load_runs(RUNS)[:1], tmp_path))
    walk.page.value = walk.found.index.get_loc(first) + 1
    assert "data:image/jpeg;base64," in walk.face.value


@pytest.mark.parametrize("kernel", [None, False, True])
def test_controls_are_shown_only_where_somebody_can_use_them(faces, monkeypatch, kernel):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=kernel))
    monkeypatch.setattr(explorer, "get_ipython", lambda: None if kernel is None else shell)
    shown = explorer.show(faces)
    assert hasattr(shown, "children") if kernel else "JupyterLab" in shown.data
    committed = (ROOT / "notebooks/A1_explore_faces.ipynb").read_text()
    assert ('"image/png"' in committed, "jupyter.widget" in committed) == (True, False)
