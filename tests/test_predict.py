"""Prediction: the run's own numbers, with and without torch; bad input is a row with its reason."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from deployed_runs import write_student
from PIL import Image, ImageFilter

from helpers.cropping import detector
from helpers.cropping.align import crop_centre
from helpers.cropping.crops import crop_faces
from helpers.cropping.detector import FaceDetector
from helpers.cropping.mtcnn import Cascade
from helpers.dataset import prepare
from helpers.dataset.pictures import read_rgb, write_jpeg
from helpers.errors import StudyError
from helpers.export.onnx_file import export_detector, export_run
from helpers.files import ROOT, read_csv
from helpers.predict import command as predict
from helpers.predict.face_spec import FaceSpec, crop_settings, side_of
from helpers.predict.faces import (
    NARROWEST,
    SMALLEST_HALF,
    WIDEST,
    FaceFinder,
    as_stored,
    halves,
    see,
)
from helpers.predict.in_torch import filled_cascade
from helpers.predict.inputs import list_items
from helpers.predict.onnx_mtcnn import OnnxCascade
from helpers.predict.pictures import Mark, annotate
from helpers.training.faces import load_faces
from helpers.training.runs import read_run

HEADS = ["probability", "probability_class", "probability_distillation"]
PAIRS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Chapters 1 and 2 on three bundled pairs, a run on them, and its export."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("study")
    (folder / "raw").mkdir()
    bundled = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    for path in bundled[:: len(bundled) // PAIRS][:PAIRS]:
        shutil.copy(path, folder / "raw")
    prepare.prepare_dataset(folder / "raw", folder / "prepared", None, [0.4, 0.3, 0.3], 0)
    with pytest.MonkeyPatch.context() as patch:
        # as among the many faces of a real study
        patch.setattr(detector, "Cascade", filled_cascade)
        crop_faces(folder / "prepared", folder / "crops", 256, 0.2, 80, "cpu")
    # amp: in bfloat16, where the processor has it, other ways to score give other numbers
    run = write_student(folder / "run", folder / "crops", amp=True)
    export_run(read_run(run))
    export_detector(run / "onnx")
    return folder


@pytest.fixture(scope="module")
def half(study):
    """One prepared half, (height, width, 3)."""
    return read_rgb(next((study / "prepared/NoPain").glob("*_left.jpg")))


@pytest.fixture(scope="module")
def spec(study):
    return FaceSpec("a", 0, ("probability",), 32, 37, 256, 0.2, 80, "00", "float32")


@pytest.fixture(scope="module")
def find():
    torch.set_num_threads(1)
    return FaceFinder(Cascade(torch.device("cpu")).eval(), 80)


def own_predictions(study):
    """What the run said, by image_id."""
    return read_run(study / "run").predictions.set_index("image_id").sort_index()


def by_image(table, pairs=False):
    """A table of predictions by image_id."""
    stems = [Path(name).stem for name in table["file"]]
    if pairs:
        stems = [f"{s[:10]}_{side}" for s, side in zip(stems, table["side"], strict=True)]
    return table.set_index(pd.Index(stems)).sort_index()


@pytest.mark.parametrize(
    ("source", "options"),
    [("prepared", {}), ("raw", {"pairs": True}), ("crops", {"cropped": True})],
)
def test_a_picture_gets_the_runs_own_probabilities(study, tmp_path, source, options):
    inputs = [study / source / "Pain", study / source / "NoPain"]
    inputs = [study / "raw"] if source == "raw" else inputs
    table = predict.predict_pictures(inputs, study / "run", tmp_path / "t.csv", **options)
    own, mine = own_predictions(study), by_image(table, "pairs" in options)
    assert list(mine.index) == list(own.index)
    assert np.ptp(own["probability"]) > 1e-3
    np.testing.assert_allclose(mine[HEADS], own[HEADS], atol=1e-6)
    written = pd.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(written[HEADS], table[HEADS].astype(float), rtol=1e-12)
    assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_boxes_are_those_of_the_whole_picture(study, tmp_path):
    table = predict.predict_pictures([study / "raw"], study / "run", tmp_path / "t.csv", pairs=True)
    manifest = read_csv(study / "crops/manifest.csv").set_index("image_id").sort_index()
    pairs = read_csv(study / "prepared/pairs.csv").set_index("identity")
    for image_id, row in by_image(table, True).iterrows():
        start = 0
        if row["side"] == "right":
            pair = pairs.loc[image_id[:10]]
            width = min(pair["seam_start"], pair["width"] - pair["seam_end"])
            start = pair["width"] - width
        box = np.array(row["box"].split(), float) - [start, 0, start, 0]
        # the manifest has six digits
        np.testing.assert_allclose(
            box, np.array(manifest.loc[image_id, "box"].split(), float), atol=5e-3
        )


BLOCKED = "torch torchvision facenet_pytorch timm scipy sklearn matplotlib".split()


def test_without_torch_it_gives_the_same_within_rounding(study, tmp_path):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}));"
        "from helpers.predict.command import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(study / "raw"), "--pairs"]
    command += ["--model", str(study / "run"), "--out", str(tmp_path / "t.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no medical device" in done.stdout
    mine = by_image(pd.read_csv(tmp_path / "t.csv"), True)
    run = own_predictions(study)
    exact = predict.predict_pictures(
        [study / "raw"], study / "run", tmp_path / "torch.csv", pairs=True, runtime="onnx"
    )
    np.testing.assert_allclose(mine[HEADS], by_image(exact, True)[HEADS], atol=1e-6)
    # bfloat16 of the run against float32 here
    np.testing.assert_allclose(mine[HEADS], run[HEADS], atol=0.02)


def bad_inputs(folder, half):
    """Fill `folder`, which has one good picture, with what cannot be used; reason by name."""
    picture = Image.fromarray(half)
    picture.save(folder / "good.jpg")
    whole = (folder / "good.jpg").read_bytes()
    picture.save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:9000])
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "zeros.jpg").write_bytes(whole[:4000] + bytes(len(whole) - 4000))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "page.pdf").write_bytes(b"%PDF-1.7\n")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    (folder / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (400, 400), "grey").save(folder / "wall.png")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    os.symlink(folder / "gone.jpg", folder / "broken_link.jpg")
    os.symlink("loop.jpg", folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    Path(os.fsdecode(bytes(folder) + b"/name\xff\n.jpg")).write_bytes(b"x")
    (folder / "hollow").mkdir()
    return {
        "cut.png": "broken_image",
        "cut.jpg": "broken_image",
        "zeros.jpg": "broken_image",
        "empty.jpg": "empty_file",
        "text.jpg": "not_an_image",
        "page.pdf": "not_an_image",
        "film.mp4": "not_an_image",
        "head.png": "broken_image",
        "bomb.png": "too_large",
        "dot.png": "no_face",
        "wall.png": "no_face",
        "noise.png": "no_face",
        "broken_link.jpg": "missing",
        "loop.jpg": "missing",
        "pipe.jpg": "not_a_file",
        "name\\xff\\n.jpg": "not_an_image",
        "hollow": "empty_folder",
        "nowhere": "missing",
    }


def test_every_bad_input_is_a_row_with_its_reason_and_nothing_is_lost(
    study, half, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "in"
    folder.mkdir()
    reasons = bad_inputs(folder, half)
    monkeypatch.chdir(tmp_path)
    inputs = ["in", "in/hollow", "nowhere", "in/good.jpg"]
    assert predict.main([*inputs, "--model", str(study / "run"), "--annotate", "drawn"]) == 0
    table = pd.read_csv("predictions.csv").set_index("file")
    told = {Path(name).name: reason for name, reason in table["reason"].items()}
    assert len(told) == len(table) == len(reasons) + 1
    good = told.pop("good.jpg")
    assert told == reasons
    assert pd.isna(good)
    unused = table[table["reason"].notna()]
    assert unused["probability"].isna().all()
    assert unused["detail"].notna().all()
    assert 0 < table.loc["in/good.jpg", "probability"] < 1
    said = capsys.readouterr().out
    assert f"not scored: {len(reasons)} (" in said
    assert "no medical device" in said
    # what MTCNN looked at is drawn, also where it found nothing
    drawn = {path.name for path in Path("drawn").rglob("*.jpg")}
    assert drawn == {"good.jpg", "dot.png.jpg", "wall.png.jpg", "noise.png.jpg"}


@pytest.mark.parametrize(
    ("size", "reason"), [((300, 400), "not_side_by_side"), ((100, 60), "too_small")]
)
def test_what_is_no_pair_is_told(study, tmp_path, size, reason):
    Image.new("RGB", size).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    table = predict.predict_pictures([path], study / "run", tmp_path / "t.csv", pairs=True)
    assert list(table["reason"]) == [reason]


def test_a_call_that_was_broken_off_is_taken_up(study, tmp_path, monkeypatch):
    out, inputs = tmp_path / "t.csv", [study / "prepared"]
    whole = predict.predict_pictures(inputs, study / "run", tmp_path / "whole.csv")
    monkeypatch.setattr(predict, "_BATCH", 1)
    read, reads = predict.read_rgb, []

    def reading(path):
        if len(reads) == 3:
            raise KeyboardInterrupt
        reads.append(path)
        return read(path)

    monkeypatch.setattr(predict, "side_by_side", one_by_one)
    monkeypatch.setattr(predict, "read_rgb", reading)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_pictures(inputs, study / "run", out)
    assert not out.exists()
    again = []
    monkeypatch.setattr(predict, "read_rgb", lambda path: again.append(path) or read(path))
    table = predict.predict_pictures(inputs, study / "run", out)
    # the folder's table and journal are no pictures, and are read as any other file
    assert not set(again) & set(reads)
    pd.testing.assert_frame_equal(table, whole)
    assert not list(tmp_path.glob("*.jsonl"))


def one_by_one(function, items, *_, **__):
    return map(function, items)


def test_another_threshold_is_not_answered_from_the_journal(study, tmp_path, monkeypatch):
    picture = next((study / "prepared/NoPain").glob("*.jpg"))
    monkeypatch.setattr(predict, "write_csv", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict.predict_pictures([picture], study / "run", tmp_path / "t.csv", threshold=0.0)
    monkeypatch.undo()
    for threshold, decision in ((1.0, "NoPain"), (0.0, "Pain")):
        table = predict.predict_pictures(
            [picture], study / "run", tmp_path / "t.csv", threshold=threshold
        )
        assert list(table["decision"]) == [decision]
        assert list(table["threshold"]) == [threshold]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "nowhere"}, "The model nowhere does not exist"),
        ({"model": "README.md"}, "is no ONNX model"),
        ({"model": "helpers", "runtime": "torch"}, "torch needs a run folder"),
        ({"model": "helpers"}, r"The ONNX file .*model.onnx does not exist"),
        ({"model": "helpers", "runtime": "abacus"}, "Unknown runtime 'abacus'"),
        ({"model": "helpers", "threshold": 2}, r"The threshold must lie in 0\.\.1, not 2"),
        ({"model": "helpers", "pairs": True, "cropped": True}, "either a pair or a cropped face"),
    ],
)
def test_a_bad_call_is_one_sentence(tmp_path, options, sentence):
    with pytest.raises(StudyError, match=sentence):
        predict.predict_pictures([tmp_path], out=tmp_path / "t.csv", **options)


def test_a_bad_model_ends_the_command_with_its_sentence(tmp_path, capsys):
    assert predict.main([str(tmp_path), "--model", "nowhere"]) == 1
    assert capsys.readouterr().err.strip() == "The model nowhere does not exist."


class TestWarnings:
    def test_of_an_ordinary_half_there_is_none(self, half, find, spec):
        seen = see(half, find, spec)
        assert seen.warnings == ()
        assert seen.count == 1
        assert seen.image.shape == (37, 37, 3)

    def test_two_people_are_told_and_the_central_one_is_taken(self, half, find, spec):
        wall = np.full_like(half, 128)
        seen = see(np.hstack([wall, half, half]), find, spec)
        assert seen.warnings == ("several_faces",)
        assert seen.count == 2
        assert half.shape[1] < seen.face.box[0] < 2 * half.shape[1]

    @pytest.mark.parametrize(("reduced", "found"), [(3, 1), (6, 0)])
    def test_a_face_smaller_than_training_had_is_found_and_told(
        self, half, find, spec, reduced, found
    ):
        small = np.asarray(Image.fromarray(half).reduce(reduced))
        large = np.full_like(half, 128)
        large[: small.shape[0], : small.shape[1]] = small
        seen = see(large, find, spec)
        assert len(find(large)) == found
        assert "small_face" in seen.warnings
        assert 0.6 < max(seen.face.box[2:] - seen.face.box[:2]) / (160 / reduced) < 1.2

    def test_a_face_of_fewer_pixels_than_the_networks_view_is_told(self, half, find, spec):
        wide = FaceSpec(**{**vars(spec), "image_size": 300, "side": 343})
        assert see(half, find, wide).warnings == ("small_face",)

    def test_a_blurred_face_is_told(self, half, find, spec):
        soft = Image.fromarray(half).filter(ImageFilter.GaussianBlur(5))
        assert see(np.asarray(soft), find, spec).warnings == ("blurred",)

    def test_without_a_face_nothing_is_cut(self, half, find, spec):
        seen = see(np.full_like(half, 128), find, spec)
        assert (seen.face, seen.image, seen.warnings) == (None, None, ("no_face",))

    def test_asked_for_the_middle_it_is_cut_as_in_training(self, half, find, spec):
        wall = np.tile(np.linspace(0, 255, 500, dtype=np.uint8)[:, None, None], (1, 300, 3))
        seen = see(wall, find, spec, centre=True)
        assert "no_face" in seen.warnings
        middle = as_stored(crop_centre(wall, 256))
        expected = Image.fromarray(middle).resize((37, 37), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(seen.image, np.asarray(expected))


class TestAsInTraining:
    def test_a_face_is_found_where_chapter_2_finds_it(self, half, find):
        large = np.asarray(Image.fromarray(half).resize((656, 736)))
        detect = FaceDetector(80, "cpu")
        for pixels in (half, large):
            (face,), theirs = find(pixels), detect([pixels])[0]
            np.testing.assert_array_equal(face.box, theirs.box)
            np.testing.assert_array_equal(face.landmarks, theirs.landmarks)
            assert face.probability == theirs.probability

    def test_onnx_and_numpy_find_what_torch_finds(self, study, half, find):
        cascade = OnnxCascade(study / "run/onnx")
        small = np.asarray(Image.fromarray(half).reduce(2))
        crowd = np.vstack([np.hstack([half, half]), np.hstack([half[:, ::-1], half])])
        large = np.asarray(Image.fromarray(half).resize((656, 736)))
        wall = np.full_like(half, 9)
        cases = [(half, 80, 1), (small, 24, 1), (crowd, 80, 4), (large, 80, 1), (wall, 24, 0)]
        for pixels, smallest, count in cases:
            mine = FaceFinder(cascade, 80)(pixels, smallest)
            theirs = find(pixels, smallest)
            assert len(mine) == len(theirs) == count
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(a.box, b.box, atol=0.0101)
                np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.0101)
                assert a.probability == pytest.approx(b.probability, abs=1.01e-4)

    def test_the_networks_are_never_shown_few_candidates(self, half, find):
        filled, shown = filled_cascade(torch.device("cpu")).eval(), []
        for network in (filled.rnet, filled.onet):
            network.network.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
        (face,), (plain,) = FaceFinder(filled, 80)(half), find(half)
        assert min(shown) == 16
        np.testing.assert_allclose(face.box, plain.box, atol=0.0101)

    def test_what_is_stored_is_what_the_study_writes_and_reads(self, half, tmp_path):
        write_jpeg(tmp_path / "a.jpg", half)
        np.testing.assert_array_equal(as_stored(half), read_rgb(tmp_path / "a.jpg"))

    def test_halves_are_those_of_chapter_1(self, study):
        assert (NARROWEST, WIDEST) == (prepare._NARROWEST, prepare._WIDEST)
        assert SMALLEST_HALF == prepare._SMALLEST
        path = next((study / "raw").glob("*.jpg"))
        for side, (pixels, _) in zip(("left", "right"), halves(read_rgb(path)), strict=True):
            (stored,) = (study / "prepared").glob(f"*/{path.name[:10]}_{side}.jpg")
            np.testing.assert_array_equal(pixels, read_rgb(stored))

    @pytest.mark.parametrize("image_size", [32, 64, 224, 250])
    def test_a_network_is_given_faces_of_the_stores_size(self, study, image_size):
        assert side_of(image_size, 256) == load_faces(study / "crops", image_size).images.shape[-1]

    def test_the_settings_are_those_of_the_crops(self, study, tmp_path):
        crop_faces(study / "prepared", tmp_path / "c", 64, 0.3, 90, "cpu")
        assert crop_settings(tmp_path / "c") == {
            "crop_size": 64,
            "margin": 0.3,
            "min_face_size": 90,
        }


def test_items_are_listed_once_and_outputs_are_no_inputs(tmp_path):
    for name in ("a.jpg", "b/c.jpg", "out/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b/round")
    items = list_items([tmp_path / "b/c.jpg", tmp_path, tmp_path], [tmp_path / "out"])
    assert [Path(item.name).name for item in items] == ["c.jpg", "a.jpg"]
    assert len({item.drawing for item in items}) == 2


def test_the_picture_is_kept_with_a_frame_and_the_words_below():
    pixels = np.full((200, 300, 3), 90, np.uint8)
    drawn = annotate(pixels, [Mark((50.0, 60.0, 150.0, 160.0), 0, 0.7, "Pain", ())])
    assert drawn.shape[1] == 300
    assert drawn.shape[0] > 200
    vermilion = [0xD5, 0x5E, 0x00]
    assert (drawn[160, 60:140] == vermilion).all()
    assert (drawn[70:150, 50] == vermilion).all()
    np.testing.assert_array_equal(drawn[70:150, 60:140], pixels[70:150, 60:140])
    np.testing.assert_array_equal(drawn[170:200], pixels[170:])
    assert drawn[200:].max() > 200
