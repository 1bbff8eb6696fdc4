import pandas as pd

from helpers.cropping.crop_views import read_settings, settings_table

COLUMNS = "source method min_face_size scale batch pictures ms found expected kept iou_min".split()


def table(tmp_path, *rows):
    path = tmp_path / "settings.csv"
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    return path


PACKAGE = ("standin", "MTCNN.detect", 20, 1.0, 1, 4, 120.0, 4, 4, 4, 1.0)
CHOSEN = ("standin", "FaceDetector", 80, 1.0, 8, 4, 20.0, 4, 4, 4, 0.93)
LARGER = ("standin", "FaceDetector", 160, 1.0, 8, 4, 15.0, 3, 4, 3, 0.0)
FAR = ("standin", "FaceDetector", 160, 0.5, 32, 4, 9.0, 3, 4, 2, 0.0)


def test_the_study_stands_out_and_what_differs_in_one_setting_is_shown(tmp_path):
    lines = settings_table(table(tmp_path, PACKAGE, CHOSEN, LARGER, FAR), 80).splitlines()
    assert len(lines) == 2 + 3
    assert "120 ms · 4 of 4 · 1.00" in lines[2]
    assert "**20 ms · 4 of 4 · 0.93**" in lines[3]
    assert "15 ms · 3 of 4 · 0.00" in lines[4]
    assert "**" not in lines[2] + lines[4]


def test_the_sentence_names_what_is_kept_lost_and_gained(tmp_path):
    real = ("real", *PACKAGE[1:6], 90.0, *PACKAGE[7:]), ("real", *CHOSEN[1:9], 3, 0.5)
    text = read_settings(table(tmp_path, PACKAGE, CHOSEN, LARGER, *real), 80)
    assert "7 of 8 faces (87.5 %)" in text
    assert "least 0.50" in text
    assert "4.5 to 6.0 times" in text
    assert "160 px and scale 1.00" in text


def test_what_was_not_measured_is_said(tmp_path):
    assert "is not there" in settings_table(tmp_path / "none.csv", 80)
    assert read_settings(tmp_path / "none.csv", 80) == ""
    assert "100 pixels was not measured" in read_settings(table(tmp_path, PACKAGE, CHOSEN), 100)
