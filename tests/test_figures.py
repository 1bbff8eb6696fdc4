from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_runs import ARMS, make_runs
from PIL import Image

from helpers import figures
from helpers.evaluation.compare import load_runs
from helpers.evaluation.tables import comparisons, evaluate
from helpers.writeup import matrices, plots, samples

mpl.use("Agg")


@pytest.fixture(autouse=True)
def style():
    """The study's style, and no figure left open."""
    with mpl.rc_context():
        figures.use_style()
        mpl.rcParams["savefig.dpi"] = 40
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All five arms, two seeds."""
    folder = make_runs(tmp_path_factory.mktemp("runs"), people=24, seeds=(0, 1))
    return evaluate(load_runs(folder), samples=60, seed=0)


def every_figure(study):
    """Draw all figures of the comparison, in the sizes of the notebook."""
    test, tables = study.test, study.tables
    figs = [plots.forests(test), plots.curves_by_contrast(test), matrices.confusions(test)]
    figs.append(matrices.reliabilities(test))
    figs.append(plots.difference_panels(test, [pair[1:] for pair in comparisons(test)]))
    sizes = [(8.0, 3.8), (8.6, 3.9), (7.6, 4.2), (8.2, 7.4)]
    axes = [plt.subplots(figsize=size)[1] for size in sizes]
    plots.learning_curves(axes[0], study.runs)
    matrices.disagreement(axes[1], tables["disagreement"])
    plots.cost_against_auroc(axes[2], test, tables["cost"], "expressive")
    plots.subgroups(axes[3], test, tables["subgroups"], "expressive")
    return [*figs, *(ax.figure for ax in axes)]


def texts(fig):
    """Every non-empty text of a figure."""
    return [t.get_text() for t in fig.findobj(mpl.text.Text) if t.get_text()]


def test_a_figure_is_saved_twice_with_the_same_bytes_and_no_date(tmp_path):
    saved = []
    for name in ("a", "b"):
        fig, ax = plt.subplots()
        ax.plot([0, 1], [0, 1], "o-")
        path = figures.save_fig(fig, tmp_path / name, "line")
        assert path == tmp_path / name / "line.png"
        saved.append((path.read_bytes(), path.with_suffix(".svg").read_bytes()))
    assert saved[0] == saved[1]
    assert b"<dc:date>" not in saved[0][1]
    assert b"Matplotlib" not in saved[0][0]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["line.png", "line.svg"]


@pytest.mark.parametrize(
    ("name", "label", "colour"),
    [
        ("resnet50", "ResNet-50", "resnet50"),
        ("deit_tiny-swin", "DeiT-Ti ← Swin-T", "swin"),
        ("deit_small-none", "DeiT-S, no teacher", "none"),
        ("deit_base-swin_base", "DeiT-B ← Swin-B", "swin_base"),
        ("something", "something", "none"),
    ],
)
def test_a_teachers_colour_and_name_are_its_pupils_too(name, label, colour):
    assert figures.label_of(name) == label
    assert figures.colour_of(name) == figures.COLOURS[colour]


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
COLOUR_BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "none": np.eye(3),
}


@pytest.mark.parametrize("blindness", COLOUR_BLIND)
def test_colours_are_told_apart_and_legible(blindness):
    names = ("resnet50", "swin", "swin_base", "none")
    rgb = np.array([mpl.colors.to_rgb(figures.COLOURS[name]) for name in names])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(COLOUR_BLIND[blindness]), 0, 1) ** (1 / 2.4)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 9 * np.eye(len(names))
    assert apart.min() > 0.25
    # Contrast with white (WCAG), for names written in a teacher's colour.
    light = linear @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (light + 0.05) >= 3).all()
    assert len({figures.MARKERS[name] for name in names}) == len(names)


def test_a_grid_takes_paths_pictures_and_arrays(tmp_path):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    pictures = [tmp_path / "red.png", Image.new("L", (20, 30)), np.zeros((30, 20, 3), np.uint8)]
    fig = figures.image_grid(pictures, ["a", "b\nc", "d"], columns=2, heading="All", colours="rgb")
    assert [t for t in texts(fig) if t in ("a", "b\nc", "d", "All")] == ["a", "b\nc", "d", "All"]
    assert sum(bool(ax.images) for ax in fig.axes) == 3
    first = fig.axes[0].images[0].get_array()
    assert (np.asarray(first)[0, 0] == [255, 0, 0]).all()
    assert "No picture to show." in texts(figures.image_grid([]))


def test_bars_carry_their_values():
    _, ax = plt.subplots()
    figures.bars(ax, ["train", "test"], [1200, np.nan])
    assert {" 1,200", " not known"} <= {t.get_text() for t in ax.texts}
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_the_forest_draws_each_interval_where_it_is(study):
    _, ax = plt.subplots()
    assert plots.forest(ax, study.test, "expressive") is ax
    lines = [line.get_xydata() for line in ax.lines]
    for y, arm in enumerate(ARMS):
        found = study.test.estimates(arm, "expressive")["auroc"]
        assert any(np.allclose(d, [[found.low, y], [found.high, y]]) for d in lines if len(d) == 2)
        assert any(np.allclose(d, [[found.value, y]]) for d in lines if len(d) == 1)
        assert f"{found.value:.2f}" in texts(ax.figure)
    assert [t.get_text() for t in ax.get_yticklabels()] == [figures.label_of(a) for a in ARMS]


def test_differences_are_drawn_on_one_scale_around_zero(study):
    fig = plots.difference_panels(study.test, [pair[1:] for pair in comparisons(study.test)])
    for ax, contrast in zip(fig.axes, ("all", "expressive"), strict=True):
        low, high = ax.get_xlim()
        assert low == -high
        for _, first, second in comparisons(study.test):
            found = study.test.difference(first, second, contrast, "auroc")
            assert low <= found.low <= found.high <= high


def test_the_area_under_a_drawn_roc_is_the_mean_over_seeds(study):
    _, ax = plt.subplots()
    plots.roc(ax, study.test, "all")
    curves = {line.get_label(): line.get_xydata() for line in ax.lines}
    for arm in ARMS:
        value = study.test.estimates(arm)["auroc"].value
        x, y = curves[f"{figures.label_of(arm)}  {value:.2f}"].T
        assert np.trapezoid(y, x) == pytest.approx(value, abs=0.01)


def test_confusion_counts_add_up_to_the_faces(study):
    _, ax = plt.subplots()
    matrices.confusion(ax, study.test, "swin")
    cells = np.array([float(t.get_text().split("\n")[0]) for t in ax.texts])
    pain = study.test.positive.sum()
    assert cells[:2].sum() == pytest.approx(pain)
    assert cells[2:].sum() == pytest.approx(len(study.test.faces) - pain)
    sensitivity = study.test.estimates("swin")["sensitivity"].value
    assert cells[0] / pain == pytest.approx(sensitivity, abs=0.01)


@pytest.mark.parametrize("height", [0.4, 0.7, 0.99])
def test_names_at_line_ends_do_not_overlap(height):
    fig, ax = plt.subplots(figsize=(6, 3.5))
    ax.set_ylim(0.4, 1.0)
    plots._label_side(ax, dict.fromkeys(ARMS, height), 1.0, step=0.075)
    fig.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert boxes[-1].y1 <= fig.bbox.y1


def test_every_figure_can_be_drawn_and_saved_of_a_single_person(tmp_path):
    folder = make_runs(tmp_path / "runs", people=1, pain={0})
    study = evaluate(load_runs(folder), 20, 0)
    for number, fig in enumerate(every_figure(study)):
        figures.save_fig(fig, tmp_path, f"figure{number}")
        assert not [text for text in texts(fig) if "nan" in text.lower()]


def test_no_two_texts_of_a_figure_overlap(study):
    for fig in every_figure(study):
        fig.canvas.draw()
        shown = [t for t in fig.findobj(mpl.text.Text) if t.get_text() and t.get_visible()]
        boxes = [t.get_window_extent().shrunk(0.9, 0.8) for t in shown]
        for i, first in enumerate(boxes):
            for j, second in enumerate(boxes[:i]):
                pair = (shown[i].get_text(), shown[j].get_text())
                assert not first.overlaps(second), pair


def test_the_gallery_shows_only_faces_whose_picture_is_there(study, tmp_path):
    crops = tmp_path / "crops"
    crops.mkdir()
    assert samples.pictures(study.test, crops) == {}
    faces = study.test.faces.assign(path=study.test.faces["image_id"] + ".png")
    faces[["image_id", "path"]].to_csv(crops / "manifest.csv", index=False)
    for path in faces["path"][1:]:
        Image.new("RGB", (16, 16)).save(crops / path)
    found = samples.pictures(study.test, crops)
    assert set(found) == set(faces["image_id"][1:])
    fig = samples.gallery(study.test, found, count=2)
    shown = sum(bool(ax.images) for ax in fig.axes)
    wanted = [row for part in samples.choose(study.test, 2).values() for row in part]
    assert shown == len([row for row in wanted if row != 0])


def test_a_figure_of_photographs_is_saved_as_pixels_alone(tmp_path):
    photograph = np.zeros((20, 20, 3), np.uint8)
    figures.save_fig(figures.image_grid([photograph]), tmp_path, "faces")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.png"]
    fig, ax = plt.subplots()
    ax.imshow(np.zeros((4, 4)))
    figures.save_fig(fig, tmp_path, "matrix")
    assert (tmp_path / "matrix.svg").is_file()


@pytest.mark.parametrize(("level", "line"), [(1.0, True), (9.0, False)])
def test_chance_is_on_the_axis_unless_all_is_far_above_it(tmp_path, level, line):
    skill = {"resnet50": level, "swin": level, "none": level}
    made = evaluate(load_runs(make_runs(tmp_path, people=40, skill=skill)), samples=40, seed=0)
    ax = plots.forests(made.test).axes[0]
    low, high = ax.get_xlim()
    assert (low < 0.5) == line
    assert high > 1
    assert ("beyond the axis" in "".join(texts(ax.figure))) != line
    _, ax = plt.subplots()
    plots.cost_against_auroc(ax, made.test, made.tables["cost"], "expressive")
    assert (ax.get_ylim()[0] < 0.5) == line


def test_names_of_teachers_that_cost_alike_do_not_touch(study):
    cost = study.tables["cost"].copy()
    dear = 1.1 * cost.loc[cost["arm"] == "resnet50", "macs"].iloc[0]
    cost.loc[cost["arm"] == "swin", "macs"] = dear
    fig, ax = plt.subplots(figsize=(7.6, 4.2))
    plots.cost_against_auroc(ax, study.test, cost, "expressive")
    fig.canvas.draw()
    first, second = (
        next(t for t in ax.texts if t.get_text() == name).get_window_extent()
        for name in ("ResNet-50", "Swin-T")
    )
    assert not first.overlaps(second)
