import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import crops
from helpers.align import Face, choose_face, crop_centre, crop_face
from helpers.errors import StudyError
from helpers.files import ROOT, read_csv, write_csv
from helpers.pictures import read_rgb
from helpers.prepare import MANIFEST_COLUMNS, prepare_dataset

COLUMNS = [*MANIFEST_COLUMNS, "detected", "probability", "box", "landmarks"]


def make_face(centre=(100, 90), width=60, height=80, tilt=0.0, probability=0.99):
    """A face whose eyes are turned by `tilt` degrees about the middle of the box."""
    x, y = centre
    upright = np.array([[-15, -15], [15, -15], [0, 0], [-12, 20], [12, 20]])
    turn = np.exp(1j * math.radians(tilt))
    turned = (upright[:, 0] + 1j * upright[:, 1]) * turn
    landmarks = np.stack([turned.real + x, turned.imag + y], axis=1)
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return Face(box, landmarks, probability)


@given(
    tilt=st.floats(-60, 60),
    margin=st.floats(0, 1),
    size=st.integers(32, 300),
    centre=st.tuples(st.integers(-20, 220), st.integers(-20, 200)),
)
@settings(max_examples=60, deadline=None)
def test_eyes_are_level_and_the_box_fills_its_share(tilt, margin, size, centre):
    face = make_face(centre, tilt=tilt)
    assert face.tilt == pytest.approx(tilt, abs=1e-6)
    crop, landmarks = crop_face(np.zeros((180, 200, 3), np.uint8), face, size, margin)
    assert crop.shape == (size, size, 3)
    scale = size / (80 * (1 + 2 * margin))
    upright = np.array([[-15, -15], [15, -15], [0, 0], [-12, 20], [12, 20]])
    assert landmarks == pytest.approx(upright * scale + size / 2, abs=1e-6)


@pytest.mark.parametrize("tilt", [-25, 0, 4, 40])
@pytest.mark.parametrize("size", [64, 160])
def test_pixels_go_where_the_landmarks_go(tilt, size):
    """Bright spots at the landmarks, each found again at the landmark in the crop."""
    face = make_face((102, 91), tilt=tilt)
    y, x = np.mgrid[:180, :200] + 0.5
    spots = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in face.landmarks)
    pixels = np.repeat((spots * 250)[:, :, None], 3, axis=2).clip(0, 255).astype(np.uint8)
    crop, landmarks = crop_face(pixels, face, size, 0.25)
    y, x = np.mgrid[:size, :size] + 0.5
    reach = size / 20
    for a, b in landmarks:
        weight = crop[:, :, 0] * (np.hypot(x - a, y - b) < reach)
        spot = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        assert np.abs(spot - (a, b)).max() < 0.25


def test_without_levelling_the_tilt_stays():
    face = make_face(tilt=12)
    _, landmarks = crop_face(np.zeros((180, 200, 3), np.uint8), face, 100, 0.2, level=False)
    x, y = landmarks[1] - landmarks[0]
    assert math.degrees(math.atan2(y, x)) == pytest.approx(12)


def test_an_upright_crop_is_the_square_cut_out():
    pixels = np.random.default_rng(0).integers(0, 255, (180, 200, 3), dtype=np.uint8)
    crop, _ = crop_face(pixels, make_face((100, 90)), 80, 0)
    assert (crop == pixels[50:130, 60:140]).all()


def test_beyond_the_border_the_edge_is_repeated():
    pixels = np.zeros((180, 200, 3), np.uint8)
    pixels[:, 0] = 200
    crop, _ = crop_face(pixels, make_face((10, 90)), 80, 0)
    assert (crop[:, :28] == 200).all()
    assert (crop[:, 34:] == 0).all()


def test_a_large_face_is_reduced_with_antialiasing():
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[:, ::2] = 255
    crop, _ = crop_face(pixels, make_face((200, 200), width=240, height=320), 64, 0)
    assert np.abs(crop.astype(int) - 127).max() < 12


def test_the_centre_crop_is_the_largest_square():
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 20:80] = 255
    assert (crop_centre(pixels, 60) == 255).all()
    assert crop_centre(pixels, 32).shape == (32, 32, 3)


def test_of_several_faces_the_large_central_sure_one_is_taken():
    main = make_face((100, 90))
    assert choose_face([], 200, 180) is None
    assert choose_face([make_face((100, 90), 30, 40), main], 200, 180) is main
    assert choose_face([main, make_face((20, 20), 64, 84)], 200, 180) is main
    assert choose_face([make_face((100, 90), probability=0.7), main], 200, 180) is main


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The prepared faces of two rendered pairs, and one picture in which there is no face."""
    folder = tmp_path_factory.mktemp("rendered")
    pairs = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    (folder / "raw").mkdir()
    for path in (pairs[0], pairs[-1]):
        (folder / "raw" / path.name).write_bytes(path.read_bytes())
    blank = Image.new("RGB", (656, 368), "grey")
    blank.paste("tan", (0, 0, 328, 368))
    blank.save(folder / "raw" / "1000099999_NoPain_man_Young.jpg")
    prepare_dataset(folder / "raw", folder / "faces", None, [0.7, 0.15, 0.15], 0)
    return folder / "faces"


def run(faces, out, **changes):
    parameters = {"crop_size": 96, "margin": 0.3, "min_face_size": 80, "device": "cpu"}
    return crops.crop_faces(faces, out, **(parameters | changes))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def cropped(rendered, tmp_path_factory):
    out = tmp_path_factory.mktemp("crops")
    return out, run(rendered, out)


def test_faces_are_found_levelled_and_described(rendered, cropped):
    out, manifest = cropped
    assert list(manifest.columns) == COLUMNS
    pd.testing.assert_frame_equal(read_csv(out / "manifest.csv"), manifest, check_dtype=False)
    prepared = read_csv(rendered / "manifest.csv").set_index("image_id")
    faces = manifest[manifest["identity"] != "1000099999"]
    assert len(faces) == 4
    for row in faces.itertuples():
        assert row.detected
        assert row.probability > 0.9
        x1, y1, x2, y2 = map(float, row.box.split())
        source = prepared.loc[row.image_id]
        assert 0 <= x1 < x2 <= source["width"]
        assert 80 <= y2 - y1 <= source["height"]
        points = np.array(row.landmarks.split(), dtype=float).reshape(5, 2)
        assert points[0, 1] == pytest.approx(points[1, 1], abs=0.011)
        assert points[0, 0] < points[2, 0] < points[1, 0]
        assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()
        crop = read_rgb(out / row.path)
        assert crop.shape == (96, 96, 3) == (row.height, row.width, 3)


def test_without_a_face_the_centre_is_taken_and_flagged(rendered, cropped):
    out, manifest = cropped
    missed = manifest[~manifest["detected"]]
    assert missed["image_id"].to_list() == ["1000099999_left", "1000099999_right"]
    assert missed[["probability", "box", "landmarks"]].isna().all(axis=None)
    assert read_rgb(out / missed["path"].iloc[0]).shape == (96, 96, 3)
    detections = crops.read_detections(out)
    assert detections["tilt"].isna().sum() == 2
    assert set(detections["image_id"]) == set(manifest["image_id"])


def test_again_gives_the_same_without_looking(rendered, cropped, tmp_path, monkeypatch):
    out, _ = cropped
    before = contents(out)
    monkeypatch.setattr(crops.FaceDetector, "__call__", None)
    run(rendered, out)
    assert contents(out) == before


def test_only_what_changed_is_done_again(rendered, tmp_path, monkeypatch):
    out = tmp_path / "out"
    before = run(rendered, out)
    seen = []
    detect = crops.FaceDetector.__call__
    monkeypatch.setattr(
        crops.FaceDetector, "__call__", lambda self, p: seen.append(len(p)) or detect(self, p)
    )
    (out / before["path"].iloc[0]).unlink()
    pd.testing.assert_frame_equal(run(rendered, out), before)
    assert sum(seen) == 1
    seen.clear()
    other = run(rendered, out, margin=0.1)
    assert sum(seen) == 6
    assert (other["sha256"] != before["sha256"])[before["detected"]].all()


def test_crops_of_faces_that_are_gone_are_removed(rendered, tmp_path):
    run(rendered, tmp_path / "out")
    faces = tmp_path / "faces"
    table = read_csv(rendered / "manifest.csv")
    for path in table["path"]:
        (faces / path).parent.mkdir(parents=True, exist_ok=True)
        (faces / path).write_bytes((rendered / path).read_bytes())
    write_csv(faces / "manifest.csv", table.iloc[:2])
    manifest = run(faces, tmp_path / "out")
    left = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")}
    assert left == set(manifest["path"])
    assert len(manifest) == 2
    assert len(crops.read_detections(tmp_path / "out")) == 2


def test_a_killed_run_is_taken_up_and_ends_the_same(rendered, cropped, tmp_path, monkeypatch):
    run(rendered, tmp_path, margin=0.1)
    write = crops.write_jpeg
    monkeypatch.setattr(crops, "_BATCH", 2)
    count = []

    def stop_later(path, pixels):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(path)
        write(path, pixels)

    monkeypatch.setattr(crops, "write_jpeg", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(rendered, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()
    monkeypatch.setattr(crops, "write_jpeg", write)
    run(rendered, tmp_path)
    assert contents(tmp_path) == contents(cropped[0])


def test_pictures_smaller_than_the_smallest_face_have_none():
    detect = crops.FaceDetector(80, "cpu")
    assert detect([np.zeros((70, 300, 3), np.uint8)]) == [None]


def test_faceless_noise_does_not_stop_the_detector():
    detect = crops.FaceDetector(20, "cpu")
    noise = np.random.default_rng(0).integers(0, 255, (3, 100, 90, 3), dtype=np.uint8)
    assert len(detect(list(noise))) == 3


def test_a_picture_with_two_faces_beside_one_with_one(rendered):
    table = read_csv(rendered / "manifest.csv").iloc[:2]
    one, two = (read_rgb(rendered / path) for path in table["path"])
    grey = np.full_like(one, 128)
    width = one.shape[1]
    both, alone, none = crops.FaceDetector(80, "cpu")(
        [np.hstack([one, two]), np.hstack([grey, two]), np.hstack([grey, grey])]
    )
    assert none is None
    assert alone.box[0] > width
    assert both is not None


def test_folders_and_faces_that_are_missing(rendered, tmp_path):
    with pytest.raises(StudyError, match=r"nowhere .* does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out")
    faces = tmp_path / "faces"
    faces.mkdir()
    (faces / "note.txt").write_text("x")
    with pytest.raises(StudyError, match=r"manifest\.csv does not exist"):
        run(faces, tmp_path / "out")
    table = read_csv(rendered / "manifest.csv")
    write_csv(faces / "manifest.csv", table)
    with pytest.raises(StudyError, match=rf"{table['path'].iloc[0]} cannot be read \(unreadable\)"):
        run(faces, tmp_path / "out")
    write_csv(faces / "manifest.csv", table.drop(columns="sha256"))
    with pytest.raises(StudyError, match="lacks the column sha256"):
        run(faces, tmp_path / "out")
    with pytest.raises(StudyError, match="both prepared_dir and out_dir"):
        run(rendered, rendered)


def test_training_does_not_need_the_detector():
    """Only this module may import facenet-pytorch."""
    users = [
        p.name for p in Path(ROOT / "helpers").glob("*.py") if "facenet_pytorch" in p.read_text()
    ]
    assert users == ["crops.py"]
