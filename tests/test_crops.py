import gc
import math
import multiprocessing
import os
import re
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.cropping import crops
from helpers.cropping.align import Face, choose_face, crop_centre, crop_face
from helpers.dataset.pictures import read_rgb
from helpers.dataset.prepare import MANIFEST_COLUMNS, prepare_dataset
from helpers.errors import StudyError
from helpers.files import ROOT, read_csv, sha256, write_csv
from helpers.work import Journal

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


@pytest.fixture
def seen(monkeypatch):
    """How many pictures MTCNN was given, call by call."""
    counts = []
    detect = crops.FaceDetector.__call__
    monkeypatch.setattr(
        crops.FaceDetector, "__call__", lambda self, p: counts.append(len(p)) or detect(self, p)
    )
    return counts


def test_only_what_changed_is_done_again(rendered, tmp_path, seen):
    out = tmp_path / "out"
    before = run(rendered, out)
    assert sum(seen) == 6
    seen.clear()
    kept = out / before["path"].iloc[1]
    written = kept.stat().st_mtime_ns
    (out / before["path"].iloc[0]).unlink()
    pd.testing.assert_frame_equal(run(rendered, out), before)
    assert not seen
    assert kept.stat().st_mtime_ns == written
    other = run(rendered, out, margin=0.1)
    assert sum(seen) == 6
    assert (other["sha256"] != before["sha256"])[before["detected"]].all()


def copy_faces(source, folder, table):
    for path in table["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((source / path).read_bytes())
    write_csv(folder / "manifest.csv", table)


def test_another_picture_under_the_same_name_is_cropped_anew(rendered, tmp_path):
    faces, table = tmp_path / "faces", read_csv(rendered / "manifest.csv")
    copy_faces(rendered, faces, table)
    before = run(faces, tmp_path / "out")
    first = faces / table["path"].iloc[0]
    with Image.open(first) as picture:
        mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(first, quality=95)
    table.loc[0, "sha256"] = sha256(first)
    write_csv(faces / "manifest.csv", table)
    after = run(faces, tmp_path / "out")
    assert list(after["sha256"] != before["sha256"]) == [True] + 5 * [False]
    x1, _, x2, _ = map(float, before["box"].iloc[0].split())
    mirrored_x1, _, mirrored_x2, _ = map(float, after["box"].iloc[0].split())
    width = table["width"].iloc[0]
    assert (mirrored_x1, mirrored_x2) == pytest.approx((width - x2, width - x1), abs=0.1 * width)


def test_crops_of_faces_that_are_gone_are_removed(rendered, tmp_path):
    run(rendered, tmp_path / "out")
    faces = tmp_path / "faces"
    copy_faces(rendered, faces, read_csv(rendered / "manifest.csv").iloc[:2])
    manifest = run(faces, tmp_path / "out")
    left = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")}
    assert left == set(manifest["path"])
    assert len(manifest) == 2
    assert len(crops.read_detections(tmp_path / "out")) == 2


def test_a_run_that_was_broken_off_is_taken_up_where_it_was(
    rendered, cropped, tmp_path, monkeypatch, seen
):
    run(rendered, tmp_path, margin=0.1)
    seen.clear()
    write = crops.write_jpeg
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
    looked_at = sum(seen)
    monkeypatch.setattr(
        crops, "write_jpeg", lambda path, pixels: count.append(path) or write(path, pixels)
    )
    run(rendered, tmp_path)
    assert sum(seen) == 6 >= looked_at >= 3
    assert len(count) == len(set(count)) == 6
    assert contents(tmp_path) == contents(cropped[0])


def test_a_killed_run_ends_like_any_other(rendered, cropped, tmp_path):
    """A process of its own, killed at ten moments: in the middle of a file, a line, a batch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.cropping.crops"])
    for _ in range(2):  # the first one waits for the server of processes
        begin = time.monotonic()
        undisturbed = context.Process(target=run_alone, args=(rendered, tmp_path / "whole"))
        undisturbed.start()
        undisturbed.join()
        whole = time.monotonic() - begin
        assert contents(tmp_path / "whole") == contents(cropped[0])
        shutil.rmtree(tmp_path / "whole")
    for n, moment in enumerate(np.random.default_rng(0).uniform(0.1, 1, 10)):
        out = tmp_path / str(n)
        process = context.Process(target=run_alone, args=(rendered, out))
        process.start()
        process.join(whole * moment)
        process.kill()
        process.join()
        run(rendered, out)
        assert contents(out) == contents(cropped[0])


def run_alone(faces, out):
    """Run in a process of its own, where the bar goes nowhere."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run(faces, out)


def test_what_a_kill_left_half_written_is_cleared_away(rendered, cropped, tmp_path):
    run(rendered, tmp_path)
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:40])
    (tmp_path / "manifest.csv").rename(tmp_path / ".manifest-x1y2.csv")
    (tmp_path / ".journal-x1y2.jsonl").write_bytes(lines[0])
    crop = tmp_path / cropped[1]["path"].iloc[0]
    crop.with_name(f".{crop.stem}-x1y2.jpg").write_bytes(crop.read_bytes()[:99])
    crop.write_bytes(crop.read_bytes()[:-99])
    run(rendered, tmp_path)
    assert contents(tmp_path) == contents(cropped[0])


def test_what_is_missing_is_looked_for_among_the_same_pictures(rendered, cropped, tmp_path, seen):
    """In another batch its last digit might be another."""
    before = run(rendered, tmp_path)
    seen.clear()
    lost = before["image_id"].iloc[0]
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    left = [line for line in lines if lost.encode() not in line]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(left))
    run(rendered, tmp_path)
    table = read_csv(rendered / "manifest.csv")
    assert seen == [int((table["width"] == table["width"].iloc[0]).sum())]
    assert seen[0] > 1
    assert contents(tmp_path) == contents(cropped[0])


@pytest.fixture
def many(tmp_path):
    """Sixty prepared pictures, too small for a face."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(60):
        path = f"NoPain/1000{n:06d}_left.jpg"
        (tmp_path / "many/NoPain").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 60, 3), dtype=np.uint8)).save(
            tmp_path / "many" / path
        )
        row = dict.fromkeys(MANIFEST_COLUMNS, "x")
        row |= {"image_id": f"1000{n:06d}_left", "path": path, "label": "NoPain"}
        rows.append(row | {"width": 60, "height": 64})
    write_csv(tmp_path / "many/manifest.csv", pd.DataFrame(rows))
    return tmp_path / "many"


def test_few_pictures_are_in_memory_at_a_time(many, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_BATCH", 3)
    read, lock, held, most = crops.read_rgb, threading.Lock(), [0], [0]

    def change(by):
        with lock:
            held[0] += by
            most[0] = max(most[0], held[0])

    def counted(path):
        pixels = read(path)
        change(1)
        weakref.finalize(pixels, change, -1)
        return pixels

    monkeypatch.setattr(crops, "read_rgb", counted)
    run(many, tmp_path / "out")
    gc.collect()
    assert held[0] == 0
    assert 3 <= most[0] <= 3 * 2 * 4  # a worker may still hold its last batch when it reads another


def test_large_pictures_go_in_small_batches(monkeypatch):
    def sizes(width, height, count):
        table = pd.DataFrame({"width": [width] * count, "height": [height] * count})
        return [len(rows) for rows in crops._batches(table)]

    assert sizes(324, 368, 70) == [32, 32, 6]
    assert all(n * 656 * 736 <= 4_000_000 for n in sizes(656, 736, 20))
    assert sizes(5000, 5000, 3) == [1, 1, 1]


def test_progress_counts_faces_and_what_was_done_before(many, tmp_path, capfd):
    run(many, tmp_path / "out")
    assert "60/60" in capfd.readouterr().err
    for n in range(20):
        (tmp_path / f"out/NoPain/1000{n:06d}_left.jpg").unlink()
    run(many, tmp_path / "out")
    first, *_, last = capfd.readouterr().err.split("\r")[1:]
    assert "40/60" in first
    assert "60/60" in last
    assert "face/s" in last


def test_a_face_of_another_size_than_listed(rendered, tmp_path):
    table = read_csv(rendered / "manifest.csv")
    faces = tmp_path / "faces"
    copy_faces(rendered, faces, table.assign(width=table["width"] + (table.index == 1)))
    with pytest.raises(StudyError, match=rf"{table['path'].iloc[1]} has not the size"):
        run(faces, tmp_path / "out")


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
        path.name
        for path in Path(ROOT / "helpers").rglob("*.py")
        if re.search(r"^(from|import) facenet_pytorch", path.read_text(), re.MULTILINE)
    ]
    assert users == ["mtcnn.py"]


def test_the_journal_only_grows_at_its_end_and_takes_threads(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, {"version": 1})
    with path.open() as file:  # a file put in its place would not show here
        assert len(file.readlines()) == 1
        for n in range(50):
            journal.add(f"face {n}", {"sha256": "x"})
            assert f"face {n}" in file.readline()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: journal.add_all({f"{n} a": {"n": n}, f"{n} b": {"n": n}}), range(200)
            )
        )
    again = Journal(path, {"version": 1})
    assert len(again.entries) == 50 + 400
    assert again.get("7 b") == {"n": 7}
