"""The explorer: which faces it finds, what it counts, what its controls show."""

import re
import threading
import time
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from made_runs import make_runs
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix
from statsmodels.stats.proportion import proportion_confint

from helpers.errors import StudyError
from helpers.evaluation.compare import load_runs
from helpers.evaluation.published import publish
from helpers.explorer import cards as explorer_cards
from helpers.explorer import choice as explorer
from helpers.explorer import views as explorer_views
from helpers.explorer import widgets as explorer_widgets
from helpers.explorer.choice import ANY, EXPRESSIVE, OUTCOMES, Choice
from helpers.explorer.maps import Maps
from helpers.explorer.rates import count, keep_thresholds, threshold_table, wilson
from helpers.explorer.widgets import Explorer
from helpers.files import ROOT
from helpers.inside.plots import overlay
from helpers.inside.saliency import saliency
from helpers.networks.models import build_teacher

mpl.use("Agg")
PUPIL, TWIN = "deit_tiny-swin", "deit_tiny-none"
NO_ATTRIBUTES = "no/such/attributes.csv"
SIDE = 64  # the least that gives a ResNet more than one cell


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five arms, two seeds, forty test identities."""
    return make_runs(tmp_path_factory.mktemp("explorer") / "runs", seeds=(0, 1))


@pytest.fixture(scope="module")
def faces(folder):
    return explorer.gather(load_runs(folder), NO_ATTRIBUTES)


@pytest.fixture(scope="module")
def said(folder):
    """Every test prediction as pandas reads it: the other side of the assertions."""
    parts = []
    for path in folder.glob("*/*/seed*/predictions.csv"):
        table = pd.read_csv(path, dtype={"identity": str})
        arm, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed"))
        parts.append(table[table["split"] == "test"].assign(arm=arm, seed=seed))
    return pd.concat(parts).sort_values("image_id")


def one_run(said, arm, seed):
    return said[(said["arm"] == arm) & (said["seed"] == seed)].reset_index(drop=True)


def found(faces, choice):
    return set(faces.table["image_id"].iloc[explorer.select(faces, choice)])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("head", ["probability", "probability_distillation"])
def test_the_counts_are_scikit_learns(faces, said, threshold, head):
    table = one_run(said, PUPIL, 1)
    called = table[head] > threshold
    expected = confusion_matrix(table["label"] == "Pain", called, labels=[True, False])
    counts = count(faces, Choice(PUPIL, 1, head, threshold))
    assert [counts.hit, counts.miss] == list(expected[0])
    assert [counts.false_alarm, counts.correct_rejection] == list(expected[1])
    assert counts.sensitivity == expected[0, 0] / expected[0].sum()
    assert counts.specificity == expected[1, 1] / expected[1].sum()


def test_the_counts_are_those_of_the_group_and_no_outcome_narrows_them(faces, said):
    table = one_run(said, PUPIL, 0)
    old_women = table[(table["identity"].str[2] == "1") & (table["identity"].str[3] == "1")]
    right = old_women[old_women["side"] == "right"]
    choice = Choice(PUPIL, 0, gender="Woman", age="Old", kind=EXPRESSIVE)
    counts = count(faces, choice)
    assert counts.hit + counts.miss == (right["label"] == "Pain").sum() > 0
    assert counts.false_alarm + counts.correct_rejection == (right["label"] == "NoPain").sum() > 0
    narrowed = Choice(PUPIL, 0, gender="Woman", age="Old", kind=EXPRESSIVE, outcome="miss")
    assert count(faces, narrowed) == counts


@pytest.mark.parametrize(("part", "whole"), [(0, 9), (9, 9), (4, 9), (70, 75)])
def test_the_interval_is_wilsons(part, whole):
    expected = proportion_confint(part, whole, method="wilson")
    np.testing.assert_allclose(wilson(part / whole, whole), expected, atol=1e-12)


def test_the_interval_counts_people(faces, said):
    table = one_run(said, PUPIL, 0)
    other = table[table["label"] == "NoPain"]
    assert other["identity"].nunique() < len(other)
    counts = count(faces, Choice(PUPIL, 0))
    expected = wilson(counts.specificity, other["identity"].nunique())
    assert counts.interval("specificity") == expected
    assert counts.interval("sensitivity") == wilson(counts.sensitivity, counts.hit + counts.miss)


def test_rates_without_a_face_are_undefined(faces):
    counts = count(faces, Choice(PUPIL, 0, kind="neutral"))
    assert np.isnan([counts.sensitivity, *counts.interval("sensitivity")]).all()
    assert "not defined" in explorer_views.rate_words(counts, "sensitivity")
    assert explorer_cards.matrix(faces, Choice(PUPIL, 0, kind="neutral")).count("<small>–") == 2


def test_the_table_of_thresholds_is_the_counts_at_each(faces, tmp_path):
    table = keep_thresholds(faces, tmp_path)
    assert len(table) == 5 * 2 * 101
    for threshold in (0.0, 0.29, 0.5, 0.99):
        row = table[(table["arm"] == PUPIL) & (table["seed"] == 1)]
        row = row[np.isclose(row["threshold"], threshold)].iloc[0]
        counts = count(faces, Choice(PUPIL, 1, threshold=threshold))
        assert [row[name.replace(" ", "_")] for name in OUTCOMES] == [
            counts.hit, counts.miss, counts.false_alarm, counts.correct_rejection,
        ]  # fmt: skip
        assert row["sensitivity"] == counts.sensitivity
    for _, run in table.groupby(["arm", "seed"]):
        assert run["sensitivity"].is_monotonic_decreasing
        assert run["specificity"].is_monotonic_increasing
    written = pd.read_csv(tmp_path / "thresholds.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False, atol=1e-6)


def test_the_four_outcomes_share_out_the_faces(faces, said):
    table = one_run(said, TWIN, 1)
    pain, called = table["label"] == "Pain", table["probability"] > 0.6
    expected = {
        "hit": pain & called,
        "miss": pain & ~called,
        "false alarm": ~pain & called,
        "correct rejection": ~pain & ~called,
    }
    for outcome, mask in expected.items():
        assert mask.any()
        choice = Choice(TWIN, 1, threshold=0.6, outcome=outcome)
        assert found(faces, choice) == set(table["image_id"][mask])


def test_disagreements_are_of_the_pair_that_is_named(faces, said):
    pain, pupil, teacher, twin = (
        one_run(said, PUPIL, 1)["label"] == "Pain",
        *(one_run(said, arm, 1)["probability"] > 0.6 for arm in (PUPIL, "swin", TWIN)),
    )
    ids = one_run(said, PUPIL, 1)["image_id"]
    expected = {
        (PUPIL, "teacher_student"): teacher != pupil,
        (PUPIL, "student_label"): pupil != pain,
        (PUPIL, "teacher_label"): teacher != pain,
        ("swin", "teacher_student"): teacher != pupil,
        ("swin", "student_label"): pupil != pain,
        ("swin", "teacher_label"): teacher != pain,
        (TWIN, "student_label"): twin != pain,
    }
    for (arm, dispute), mask in expected.items():
        assert mask.any()
        choice = Choice(arm, 1, threshold=0.6, dispute=dispute)
        assert found(faces, choice) == set(ids[mask]), (arm, dispute)
    votes = said[said["seed"] == 1].groupby("image_id")["probability"].agg(
        lambda p: (p > 0.6).nunique() > 1
    )  # fmt: skip
    choice = Choice(TWIN, 1, threshold=0.6, dispute="arms")
    assert found(faces, choice) == set(votes.index[votes])


def test_filters_of_people_follow_the_digits_of_the_id(faces):
    for column, value, digit, place in (("gender", "Man", "0", 2), ("age", "Old", "1", 3),
                                        ("ethnicity", "Asian", "4", 4)):  # fmt: skip
        assert value in explorer.values(faces, column)
        shown = found(faces, Choice(PUPIL, 0, **{column: value}))
        assert shown == {i for i in faces.table["image_id"] if i[place] == digit}


def test_kinds_are_the_stand_ins_or_follow_from_side_and_label(folder, faces, tmp_path):
    table = faces.table
    assert set(table["kind"][table["side"] == "left"]) == {"neutral"}
    assert ((table["kind"] == "pain") == (table["label"] == "Pain")).all()
    shown = found(faces, Choice(PUPIL, 0, kind=EXPRESSIVE))
    assert shown == set(table["image_id"][table["side"] == "right"])
    known = table.assign(kind=table["kind"].replace("other", "laugh"), pspi=3.0)
    known.to_csv(tmp_path / "attributes.csv", index=False)
    told = explorer.gather(load_runs(folder), tmp_path / "attributes.csv")
    assert explorer.values(told, "kind") == [ANY, EXPRESSIVE, "laugh", "neutral", "pain"]
    assert (told.table["pspi"] == 3).all()


def test_orders(faces, said):
    table = one_run(said, PUPIL, 0).set_index("image_id")["probability"]
    ids = faces.table["image_id"]
    for order, expected in (
        ("high", table.sort_values(ascending=False)),
        ("low", table.sort_values()),
    ):
        shown = ids.iloc[explorer.select(faces, Choice(PUPIL, 0, order=order))]
        assert list(shown) == list(expected.index)
    spread = said[said["seed"] == 0].groupby("image_id")["probability"].agg(np.ptp)
    shown = ids.iloc[explorer.select(faces, Choice(PUPIL, 0, order="spread"))]
    assert list(shown) == list(spread.sort_values(ascending=False).index)


def test_where_nothing_is_found_one_sentence_says_why(faces):
    cases = {
        "has no teacher among the runs of seed 0": Choice(TWIN, 0, dispute="teacher_student"),
        "No test face is of these people": Choice(PUPIL, 0, kind="surprise"),
        "At a threshold of 1.00 no face": Choice(PUPIL, 0, threshold=1.0, outcome="hit"),
    }
    for sentence, choice in cases.items():
        assert not len(explorer.select(faces, choice))
        assert sentence in explorer.why_empty(faces, choice)
        assert explorer.why_empty(faces, choice).count(".") - ("1.00" in sentence) == 1


def test_an_arm_without_the_seed_is_left_out_and_named_where_it_is_asked(tmp_path):
    make_runs(tmp_path, people=12, seeds=(0, 1), arms=("swin", PUPIL))
    make_runs(tmp_path, people=12, seeds=(0,), arms=(TWIN,))
    faces = explorer.gather(load_runs(tmp_path), NO_ATTRIBUTES)
    assert explorer.arms_with(faces, 1) == ["swin", PUPIL]
    assert len(explorer.select(faces, Choice(PUPIL, 1, dispute="arms"))) > 0
    with pytest.raises(StudyError, match=r"DeiT-Ti, no teacher has no run with seed 1\."):
        explorer.select(faces, Choice(TWIN, 1))
    walk = Explorer(faces, {}, Maps([]))
    walk.controls["seed"].value = 1
    walk.controls["arm"].value = TWIN
    assert walk.choice.seed == 0


def test_published_runs_tell_the_same(folder, faces, tmp_path):
    names = [str(path.parent.relative_to(folder)) for path in folder.glob("*/*/*/metrics.json")]
    runs = load_runs(publish(names, folder, tmp_path))
    again = explorer.gather(runs, NO_ATTRIBUTES)
    pd.testing.assert_frame_equal(threshold_table(again), threshold_table(faces))
    with pytest.raises(StudyError, match="weights of this run are not on this machine"):
        Maps(runs).picture("swin", 0, picture_at(tmp_path / "face.png"))


def picture_at(path, side=40):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def walk(faces, folder, tmp_path):
    """The controls, every face with a picture, weights that are not there."""
    path = picture_at(tmp_path / "face.png")
    runs = load_runs(folder)
    for run in runs:
        (run.folder / "model.safetensors").unlink(missing_ok=True)
    return Explorer(faces, dict.fromkeys(faces.table["image_id"], path), Maps(runs))


def numbers(html):
    return {
        name: int(value)
        for name, value in re.findall(r'data-count="(\w+)" data-value="(\d+)"', html)
    }


def face_in_view(walk):
    return re.search(r'data-face="(\w+)"', walk.scores.value).group(1)


def test_the_slider_moves_the_matrix_and_the_rates(walk, faces):
    for threshold in (0.5, 0.11, 0.93):
        walk.controls["threshold"].value = threshold
        counts = count(faces, Choice("deit_tiny-resnet50", 0, threshold=threshold))
        assert numbers(walk.matrix.value) == {
            "hit": counts.hit, "miss": counts.miss, "false_alarm": counts.false_alarm,
            "correct_rejection": counts.correct_rejection,
        }  # fmt: skip
        assert f"{counts.hit} of {counts.hit + counts.miss} Pain faces" in walk.matrix.value
        assert f'data-rate="specificity" data-value="{counts.specificity:.6f}"' in walk.matrix.value


def test_paging_follows_the_order_and_stops_at_the_ends(walk, faces):
    walk.controls["order"].value = "high"
    walk.controls["outcome"].value = "hit"
    expected = faces.table["image_id"].iloc[explorer.select(faces, walk.choice)].tolist()
    assert len(expected) > 2
    assert walk.back.disabled
    for number, image_id in enumerate(expected, start=1):
        assert walk.position.value == f"{number} of {len(expected)}"
        assert face_in_view(walk) == image_id
        walk.forward.click()
    assert walk.forward.disabled
    assert face_in_view(walk) == expected[-1]
    walk.back.click()
    assert face_in_view(walk) == expected[-2]


def test_a_face_that_is_still_found_stays_in_view(walk):
    for _ in range(3):
        walk.forward.click()
    shown = face_in_view(walk)
    walk.controls["order"].value = "low"
    assert face_in_view(walk) == shown
    walk.controls["kind"].value = "pain" if shown.endswith("left") else "neutral"
    assert walk.position.value.startswith("1 of ")
    assert face_in_view(walk) != shown


def test_what_is_shown_last_is_what_was_chosen_last(walk, monkeypatch):
    """JupyterLab may answer two controls at once; the first answer is made to take longer."""
    slow, once = threading.Event(), explorer.select

    def select(faces, choice):
        rows = once(faces, choice)
        if choice.outcome == ANY:
            slow.set()
            time.sleep(0.5)
        return rows

    monkeypatch.setattr(explorer_widgets, "select", select)
    first = threading.Thread(target=setattr, args=(walk.controls["order"], "value", "low"))
    first.start()
    slow.wait()
    walk.controls["outcome"].value = "hit"
    first.join()
    expected = once(walk.faces, walk.choice)
    assert walk.position.value.endswith(f" of {len(expected)}")
    assert list(walk.rows) == list(expected)


def test_every_arms_probability_stands_beside_the_face(walk, said):
    shown = dict(re.findall(r'data-arm="([\w-]+)" data-value="([\d.]+)"', walk.scores.value))
    table = said[(said["seed"] == 0) & (said["image_id"] == face_in_view(walk))]
    assert len(shown) == 5
    for arm, probability in zip(table["arm"], table["probability"], strict=True):
        assert float(shown[arm]) == pytest.approx(probability, abs=1e-6)


def test_a_teacher_offers_one_head_and_a_student_all(walk):
    assert [head for _, head in walk.controls["head"].options] == [
        "probability", "probability_class", "probability_distillation",
    ]  # fmt: skip
    walk.controls["head"].value = "probability_distillation"
    walk.controls["arm"].value = "swin"
    assert walk.choice.head == "probability"
    assert len(walk.controls["head"].options) == 1


def test_an_empty_selection_is_a_sentence_and_the_way_back_is_open(walk):
    walk.controls["arm"].value = TWIN
    walk.controls["dispute"].value = "teacher_student"
    assert walk.position.value == "0 of 0"
    assert "has no teacher" in walk.picture.value
    assert walk.back.disabled
    assert walk.forward.disabled
    assert sum(numbers(walk.matrix.value).values()) == 80
    walk.controls["dispute"].value = ANY
    assert walk.position.value == "1 of 80"
    assert "<img" in walk.picture.value


def test_without_weights_the_face_stays_and_a_sentence_says_why(walk):
    plain = walk.picture.value
    walk.overlay.value = True
    assert walk.picture.value.startswith(plain)
    assert "The weights of this run are not on this machine" in walk.picture.value
    walk.overlay.value = False
    assert walk.picture.value == plain


def test_without_pictures_all_else_works(faces):
    walk = Explorer(faces, {}, Maps([]))
    assert "The pictures are not on this machine" in walk.picture.value
    assert walk.overlay.disabled
    walk.forward.click()
    assert walk.position.value == "2 of 80"
    assert explorer_views.face_row(faces, walk.choice, walk.rows[:3], {}) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_map_is_the_networks_own_over_the_grey_face(tmp_path, sign):
    """All features of a ResNet's last layer are 0 or more, so its weights' sign decides."""
    torch.manual_seed(0)
    model = build_teacher("resnet50", "scratch", SIDE)[0].eval()
    model.fc.weight.data = sign * (model.fc.weight.data.abs() + 0.01)
    (run,) = load_runs(make_runs(tmp_path / "runs", people=2, arms=("resnet50",)))
    run.params["parameters"]["image_size"] = SIDE
    save_file(model.state_dict(), run.folder / "model.safetensors")
    path, maps = picture_at(tmp_path / "face.png", SIDE), Maps([run], "cpu")
    if sign < 0:
        with pytest.raises(StudyError, match="Nothing in this face speaks for pain to ResNet-50"):
            maps.picture("resnet50", 0, path)
        return
    pixels = np.asarray(Image.open(path))
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    expected = overlay(pixels, saliency(model, images, SIDE, "grad_cam")[0])
    np.testing.assert_array_equal(maps.picture("resnet50", 0, path), expected)
    assert (np.ptp(expected.astype(int), axis=2) > 0).any()


def test_the_overlay_colours_what_is_above_the_mean_and_nothing_else():
    pixels = np.full((40, 40, 3), (90, 100, 110), np.uint8)
    flat = np.full((8, 8), 1 / 64)
    assert (overlay(pixels, flat) == 100).all()
    peak = np.zeros((8, 8))
    peak[6, 1] = 1
    drawn = overlay(pixels, peak).astype(int)
    coloured = np.ptp(drawn, axis=2) > 0
    assert coloured[32, 7]
    assert not coloured[:20].any()
    assert not coloured[:, 20:].any()


def test_the_default_view_is_drawn_and_says_what_it_counts(faces):
    start = explorer.default_choice(faces)
    assert (start.arm, start.seed, start.threshold) == ("deit_tiny-resnet50", 0, 0.5)
    counts = count(faces, start)
    words = explorer_views.summary(faces, start)
    assert f"{counts.hit} of {counts.hit + counts.miss} Pain faces" in words
    assert "80 test faces" in words
    fig = explorer_views.overview(faces, start, threshold_table(faces))
    fig.canvas.draw()
    cells = [text.get_text().split("\n")[0] for text in fig.axes[0].texts]
    expected = [counts.hit, counts.miss, counts.false_alarm, counts.correct_rejection]
    assert cells == [str(value) for value in expected]
    assert len(fig.axes[1].lines) == len(fig.axes[2].lines) == 5 + 1
    plt.close(fig)


def test_the_reading_counts_the_faces_that_set_the_arms_apart(faces, said):
    votes = said[said["seed"] == 0].groupby("image_id")["probability"].agg(
        lambda p: (p > 0.5).nunique() > 1
    )  # fmt: skip
    start = explorer.default_choice(faces)
    words = explorer_views.at_odds(faces, start)
    assert f"do not all decide alike on {votes.sum()} of 80 test faces" in words
    pain = votes[
        said.loc[said["arm"] == PUPIL].drop_duplicates("image_id").set_index("image_id")["label"]
        == "Pain"
    ]
    assert f"pain ({pain.sum()} of {len(pain)})" in words


@pytest.mark.parametrize(("kernel", "live"), [(None, False), (False, False), (True, True)])
def test_controls_are_shown_only_where_somebody_can_use_them(faces, monkeypatch, kernel, live):
    shell = kernel is not None and SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=kernel))
    shown = []
    monkeypatch.setattr(explorer_widgets, "get_ipython", lambda: shell or None)
    monkeypatch.setattr(explorer_widgets, "display", shown.append)
    explore = explorer_widgets.show(faces, {}, Maps([]))
    assert (explore is not None) is live
    assert (shown[0] is explore.box) if live else ("JupyterLab" in shown[0].data)


def test_the_committed_chapter_holds_no_widget():
    notebook = nbformat.read(ROOT / "notebooks/06_explore_faces.ipynb", 4)
    assert "widgets" not in notebook.metadata
    kinds = {
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    }
    assert "image/png" in kinds
    assert not [kind for kind in kinds if "widget" in kind]
