"""Prediction: the run's own numbers; bad input is a row with its reason; broken off, it goes on."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUICK
from PIL import Image, ImageFilter

from helpers import crops, predict
from helpers.files import ROOT, read_csv
from helpers.pairs import read_rgb
from helpers.prepare import prepare_dataset
from helpers.runs import HEADS, read_run
from helpers.train import distil_student


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Chapters 1, 2 and 4 on three bundled pairs: an untaught student in low precision."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "raw").mkdir()
    for path in sorted((ROOT / "data/standin/pairs").glob("*.jpg"))[::400]:
        shutil.copy(path, folder / "raw")
    prepare_dataset(folder / "raw", folder / "prepared", None, [0.4, 0.3, 0.3], 0)
    settings = [QUICK[name] for name in ("crop_size", "margin", "min_face_size")]
    crops.crop_faces(folder / "prepared", folder / "crops", *settings, "cpu")
    given = {"amp": True, "teacher": "none", "init": "faces", "crops_dir": str(folder / "crops")}
    distil_student(SimpleNamespace(**QUICK | given), folder / "run")
    return folder


@pytest.fixture(scope="module")
def half(study):
    """The left half of a bundled pair."""
    return Image.open(next((study / "prepared/NoPain").glob("*_left.jpg")))


@pytest.mark.parametrize(("source", "in_pairs"), [("prepared", False), ("raw", True)])
def test_a_picture_gets_the_runs_own_probabilities(study, tmp_path, source, in_pairs):
    out = tmp_path / "t.csv"
    folders = [study / "raw"] if in_pairs else [study / "prepared/Pain", study / "prepared/NoPain"]
    table = predict.predict_pictures(folders, study / "run", out, pairs=in_pairs, device="cpu")
    own = read_run(study / "run").predictions.set_index("image_id")
    stems = table["file"].map(lambda file: Path(file).stem)
    stems = stems.str[:10] + "_" + table["side"] if in_pairs else stems
    mine = table.set_index(stems).loc[own.index]
    assert np.ptp(own["probability"]) > 1e-3
    np.testing.assert_allclose(mine[list(HEADS)], own[list(HEADS)], atol=1e-6)
    assert os.listdir(tmp_path) == ["t.csv"]
    # boxes are those of the whole picture
    right, prepared = own.index[1], read_csv(study / "prepared/manifest.csv")["width"][1]
    start = Image.open(mine["file"][right]).width - prepared
    manifest = read_csv(study / "crops/manifest.csv").set_index("image_id")
    box, alone = (np.array(table["box"][right].split(), float) for table in (mine, manifest))
    np.testing.assert_allclose(box - alone, [start, 0, start, 0], atol=5e-3)


def test_every_file_is_a_row_with_its_reason(study, half, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    folder.mkdir()
    half.save(folder / "good.jpg")
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:9000])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    Path(os.fsdecode(b"in/name\xff.jpg")).write_bytes(b"x")
    for name, side in {"bomb.png": 15000, "dot.png": 1, "wall.png": 400}.items():
        Image.new("1", (side, side), 1).save(folder / name)
    os.symlink("loop.jpg", folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")  # neither a file nor missing: left out
    given = ["in", "--threshold", "0", "--annotate", "in/drawn", "--model"]
    for _ in range(2):  # what the first call wrote is no input of the second
        predict.main([*given, str(study / "run"), "--out", "in/t.csv"])
    table = read_csv(tmp_path / "in/t.csv").set_index("file")
    assert table["reason"].drop("in/good.jpg").to_dict() == {
        **{"in/cut.jpg": "broken_image", "in/empty.jpg": "empty_file"},
        **{"in/text.jpg": "not_an_image", "in/name\\udcff.jpg": "not_an_image"},
        **{"in/bomb.png": "too_large", "in/dot.png": "no_face", "in/wall.png": "no_face"},
        **{"in/loop.jpg": "unreadable"},
    }
    unused, good = table.drop("in/good.jpg"), table.loc["in/good.jpg"]
    assert (unused["probability"].isna() & unused["detail"].notna()).all()
    assert "no measurement of pain" in capsys.readouterr().out
    assert os.listdir("in/drawn") == ["good.jpg"]
    x1, _, x2, y2 = (round(float(value)) for value in good["box"].split())
    frame = read_rgb(folder / "drawn/good.jpg")[y2 - 1, x1 + 5 : x2 - 5].astype(int)
    assert np.abs(frame - [0xD5, 0x5E, 0x00]).mean() < 30


def test_a_face_that_is_small_or_blurred_or_of_a_large_photograph_is_told(study, half, tmp_path):
    far_away = Image.new("RGB", half.size, "grey")
    far_away.paste(half.reduce(4))
    odd = {"plain": half, "small": far_away, "soft": half.filter(ImageFilter.GaussianBlur(6))}
    odd["large"] = half.resize((6560, 7360))
    for name, picture in odd.items():
        picture.save(tmp_path / f"{name}.jpg", quality=95)
    table = predict.predict_pictures([tmp_path], study / "run", tmp_path / "t.csv")
    assert list(table["warnings"]) == ["shrunk", "", "small_face", "blurred"]
    large, plain = (np.array(table["box"][row].split(), float) for row in (0, 1))
    assert large == pytest.approx(20 * plain, rel=0.1)  # in pixels of the photograph
    assert predict.sharpness(Image.new("L", (300, 300), 90)) == 0
    assert predict.sharpness(Image.effect_noise((128, 128), 50)) > 0.5


def test_a_call_that_was_broken_off_goes_on(study, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_BATCH", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    find, seen = crops.detect, []

    def detect(detector, images):
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return find(detector, images)

    monkeypatch.setattr(crops, "detect", detect)
    arguments = [str(study / "raw"), "--pairs", "--model", str(study / "run")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="the same command goes on"):
        predict.main(arguments)
    predict.main(arguments)
    assert read_csv(tmp_path / "predictions.csv")["probability"].between(0, 1).sum() == 6
    assert sum(seen) == 6 + seen[2]
    assert os.listdir(tmp_path) == ["predictions.csv"]


@pytest.mark.parametrize(
    ("inputs", "model", "threshold", "sentence"),
    [
        ("raw", "nowhere", "0.5", r"nowhere .*does not exist"),
        ("raw", ROOT / "results/standin/runs/teacher/swin/seed0", "0.5", r"model\.safetensors"),
        ("raw", "run", "2", r"The threshold must lie in 0\.\.1, not 2"),
        ("hollow", "run", "0.5", "There is no file in"),
        ("gone.jpg", "run", "0.5", r"There is no file or folder /.*gone\.jpg"),
        ("text.txt", "run", "0.5", r"Nothing could be scored: .*t\.csv says why"),
    ],
)
def test_a_bad_call_ends_with_one_sentence(study, inputs, model, threshold, sentence):
    (study / "hollow").mkdir(exist_ok=True)
    (study / "text.txt").write_text("no picture")
    (study / "t.csv").write_text("earlier")
    arguments = [str(study / inputs), "--model", str(study / model), "--threshold", threshold]
    with pytest.raises(SystemExit, match=sentence):
        predict.main([*arguments, "--out", str(study / "t.csv")])
    assert ("earlier" in (study / "t.csv").read_text()) == (inputs != "text.txt")
