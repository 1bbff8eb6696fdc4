import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import plots

matplotlib.use("agg")
plots.use_style()
TABLE = pd.DataFrame(
    [
        ("resnet50", "easy", 0.95, 0.90, 0.99),
        ("resnet50", "hard", 0.80, 0.70, 0.88),
        ("deit_tiny-swin", "easy", 0.95, np.nan, np.nan),
        ("deit_tiny-swin", "hard", 0.75, 0.62, 0.84),
    ],
    columns=["arm", "contrast", "estimate", "low", "high"],
)


def points(ax):
    """Every point with a marker: x, y and whether it is open."""
    lines = [line for line in ax.lines if line.get_marker() in plots.MARKERS.values()]
    return [(*line.get_xydata()[0], line.get_markerfacecolor() == "white") for line in lines]


def test_a_forest_draws_the_tables_own_numbers_and_moves_nothing_along_x():
    ticks = pd.concat([TABLE.assign(estimate=TABLE["estimate"] + step) for step in (-0.01, 0.01)])
    fig = plots.forest(TABLE, col="contrast", chance=0.5, seeds=ticks)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["easy", "hard"]
    assert points(fig.axes[0]) == [(0.95, 0, False), (0.95, 1, True)]
    assert points(fig.axes[1]) == [(0.80, 0, False), (0.75, 1, True)]
    bars = [list(line.get_xdata()) for line in fig.axes[1].lines]
    assert [0.62, 0.84] in bars
    assert [0.74, 0.76] in bars
    labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert labels == ["ResNet-50", "DeiT-Ti ← Swin-T"]


def test_a_heat_map_keeps_the_tables_order_and_frames_a_cell():
    table = pd.DataFrame(
        [("swin", "b", 0.1), ("swin", "a", 0.2), ("resnet50", "b", 0.3), ("resnet50", "a", 0.4)],
        columns=["arm", "layer", "estimate"],
    )
    ax = plots.heat(table, "arm", "layer", frames=[("resnet50", "b")]).axes[0]
    assert [t.get_text() for t in ax.texts] == ["0.1", "0.2", "0.3", "0.4"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Swin-T", "ResNet-50"]
    assert ax.patches[0].get_xy() == (0, 1)


def test_a_figure_is_one_png_of_the_same_bytes(tmp_path):
    first, second = (plots.save_fig(plots.forest(TABLE), tmp_path / n, "x") for n in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in tmp_path.rglob("*.*")] == ["x.png", "x.png"]


def test_faces_from_paths_pictures_and_arrays_have_fewer_dots(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    images = [tmp_path / "face.png", Image.fromarray(pixels), pixels]
    assert all((plots.as_pixels(image) == pixels).all() for image in images)
    fig = plots.face_grid(images, ["a", "b\nc", "d"], columns=2, colours=["red"] * 3)
    assert fig.axes[1].get_title() == "b\nc"
    saved = plots.save_fig(fig, tmp_path, "faces")
    assert Image.open(saved).info["dpi"][0] == pytest.approx(100, abs=1)
    assert plots.face_grid([]).axes[0].get_title() == "No picture to show."
