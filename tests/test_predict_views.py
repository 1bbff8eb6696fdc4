"""Notebook 07's words: people of the test set, the run's own numbers, every picture told."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.errors import StudyError
from helpers.predict import views as predict_views
from helpers.predict.command import COLUMNS


@pytest.fixture
def model(tmp_path):
    """A run folder that has its predictions: eight people, every second one in the test set."""
    faces = pd.DataFrame(
        {
            "image_id": f"{1000000000 + n}_{side}",
            "identity": str(1000000000 + n),
            "side": side,
            "split": "test" if n % 2 else "train",
            "label": "Pain" if side == "right" and n > 3 else "NoPain",
            "probability": 0.1 * n,
        }
        for n in range(8)
        for side in ("left", "right")
    )
    (tmp_path / "run").mkdir()
    faces.to_csv(tmp_path / "run/predictions.csv", index=False)
    (tmp_path / "raw").mkdir()
    for identity in faces["identity"].unique():
        (tmp_path / f"raw/{identity}_a.jpg").touch()
    return tmp_path / "run"


def a_table(**columns):
    return pd.DataFrame(columns).reindex(columns=COLUMNS).astype({"warnings": object})


def test_pictures_are_of_people_whom_the_run_did_not_train_on_half_in_pain(model):
    chosen = predict_views.choose_pictures(model, model.parent / "raw", 2)
    # of 1 and 3 without pain the first, of 5 and 7 in pain the first
    assert [path.name[9] for path in chosen] == ["1", "5"]
    everybody = predict_views.choose_pictures(model, model.parent / "raw", 20)
    assert [path.name[9] for path in everybody] == list("1357")


def test_pictures_of_people_whom_the_run_does_not_name_are_taken_as_they_come(model, tmp_path):
    (tmp_path / "other").mkdir()
    for name in "cab":
        (tmp_path / f"other/{name}.png").touch()
    chosen = predict_views.choose_pictures(model, tmp_path / "other", 2)
    assert [path.name for path in chosen] == ["a.png", "b.png"]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    with pytest.raises(StudyError, match="holds no picture"):
        predict_views.choose_pictures(model, tmp_path / "texts", 2)


def test_the_largest_difference_from_the_run_is_told(model):
    files = ["x/1000000001_a.jpg", "x/1000000003_a.jpg"]
    table = a_table(file=files, side=["left", "right"], probability=[0.1, 0.3 - 2e-4])
    said = predict_views.against_run(table, model)
    assert "2 of the 2 halves" in said
    assert "is 2e-04" in said
    other = a_table(file=["x/y.jpg"], side=[""], probability=[0.5])
    assert "nothing to hold them against" in predict_views.against_run(other, model)


def test_every_picture_is_a_line_and_empty_columns_are_left_out():
    table = a_table(
        file=["a/b.jpg", "c.jpg"],
        probability=[0.25, np.nan],
        decision=["NoPain", None],
        warnings=["several_faces small_face", None],
        reason=[None, "missing"],
        detail=[None, "The file does not exist."],
    )
    lines = predict_views.rows(table).splitlines()
    assert lines[0] == "| picture | P(pain) | decision | warnings | why not |"
    assert lines[2] == "| b.jpg | 0.250 | NoPain | several faces, small face |  |"
    assert lines[3] == "| c.jpg | – | – |  | The file does not exist. |"
    assert lines[-1] == "Faces scored: 1, above the threshold: 0; not scored: 1 (missing 1)."


def test_odd_pictures_are_written_and_one_of_them_is_none(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    paths = predict_views.odd_pictures(tmp_path / "odd", tmp_path / "a.png", pairs=True)
    sizes = [Image.open(path).size for path in paths[:3]]
    assert all(width < 160 for width, _ in sizes)
    assert paths[3].read_text() == "This is a text.\n"
