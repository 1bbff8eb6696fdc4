import hashlib
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import prepare
from helpers.errors import StudyError
from helpers.files import read_csv
from helpers.pictures import read_rgb, write_jpeg
from helpers.seams import find_seam, split_at

NAMES = [
    "1000000001_NoPain_man_Young.jpg",
    "1101400002_Pain_Man_Old.jpg",
    "1110200003_Pain_woman_Young.jpg",
    "1011300004_NoPain_Woman_Old.jpg",
]


def scene(width, height, shade, background, seed):
    """A textured half: a background, a head, and shoulders that reach both borders."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.empty((height, width, 3))
    pixels[:] = background
    pixels[y > 0.8 * height] = shade
    pixels[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (width / 4) ** 2] = shade + 40
    return (pixels + rng.normal(0, 1, pixels.shape)).clip(0, 255).astype(np.uint8)


def pair(left=150, right=152, seam=4, height=160, background=(170, 160), seed=0, white=254):
    """A pair with a seam of `seam` columns after `left` columns; the halves differ in shade."""
    middle = np.full((height, seam, 3), white, np.uint8)
    halves = [
        scene(left, height, 60, background[0], seed),
        scene(right, height, 90, background[1], seed + 1),
    ]
    return np.concatenate([halves[0], middle, halves[1]], axis=1)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    (folder / "Images").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        Image.fromarray(pair(seed=seed)).save(folder / "Images" / name, quality=90)
    return folder


def run(raw, out, seed=0):
    return prepare.prepare_dataset(raw, out, None, [0.7, 0.15, 0.15], seed)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@given(
    left=st.integers(142, 155),
    seam=st.integers(1, 9),
    background=st.sampled_from([(170, 160), (90, 200), (235, 235), (250, 120), (255, 255)]),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_a_white_seam_is_found_wherever_it_is(left, seam, background, seed):
    pixels = pair(left, 306 - left - seam, seam, background=background, seed=seed)
    found = find_seam(pixels)
    assert found.kind == "white"
    assert (found.start, found.end) == (left - 2, left + seam + 2)


@pytest.mark.parametrize("white", [235, 245, 255])
def test_a_blended_seam_is_cut_out_whole(white):
    pixels = pair(150, 150, 6, white=white)
    pixels[:, 149] = pixels[:, 149] // 2 + white // 2
    pixels[:, 156] = pixels[:, 156] // 2 + white // 2
    found = find_seam(pixels)
    assert 147 <= found.start <= 149
    assert 157 <= found.end <= 159


@pytest.mark.parametrize("left", [145, 150, 155])
def test_without_a_line_the_step_between_the_halves_is_the_seam(left):
    found = find_seam(pair(left, 300 - left, 0, background=(180, 140)))
    assert found.kind == "edge"
    assert (found.start, found.end) == (left - 2, left + 2)


def test_without_line_and_step_the_middle_is_the_seam():
    found = find_seam(scene(301, 160, 60, 170, 0))
    assert (found.kind, found.start, found.end) == ("middle", 150, 150)


@pytest.mark.parametrize("background", [220, 232, 242])
def test_a_seam_is_found_on_a_light_wall_that_fills_the_picture(background):
    pixels = np.full((160, 304, 3), background, np.uint8)
    pixels[:, 149:153] = 255
    found = find_seam(pixels)
    assert (found.kind, found.start, found.end) == ("white", 147, 155)


@pytest.mark.parametrize(("left", "right"), [(150, 158), (158, 150)])
def test_halves_have_one_size_and_keep_their_outer_edges(left, right):
    pixels = pair(left, right, 4)
    halves = split_at(pixels, find_seam(pixels))
    assert halves[0].shape == halves[1].shape == (160, 148, 3)
    assert (halves[0] == pixels[:, :148]).all()
    assert (halves[1] == pixels[:, -148:]).all()


def test_faces_labels_and_manifest(raw, tmp_path):
    result = run(raw, tmp_path / "out")
    manifest = read_csv(tmp_path / "out" / "manifest.csv")
    pd.testing.assert_frame_equal(manifest, result.manifest)
    assert (
        list(manifest.columns)
        == (
            "image_id path identity side label expression gender age ethnicity split width height "
            "sha256"
        ).split()
    )
    row = manifest.set_index("image_id").loc["1101400002_right"]
    assert row[["path", "label", "expression", "gender", "age", "ethnicity"]].to_list() == [
        "Pain/1101400002_right.jpg", "Pain", "Pain", "Man", "Old", "Asian",
    ]  # fmt: skip
    assert (manifest["label"] == "Pain").sum() == 2
    assert set(manifest.loc[manifest["side"] == "left", "label"]) == {"NoPain"}
    assert (manifest.groupby("identity")["split"].nunique() == 1).all()
    for face in manifest.itertuples():
        path = tmp_path / "out" / face.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == face.sha256
        with Image.open(path) as image:
            assert image.size == (face.width, face.height)
            assert (image.format, image.layer) == (
                "JPEG",
                [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)],
            )
            assert not image.getexif()


def test_nothing_but_the_face_is_left_of_a_half(raw, tmp_path):
    run(raw, tmp_path / "out")
    left = read_rgb(tmp_path / "out/NoPain/1101400002_left.jpg")
    right = read_rgb(tmp_path / "out/Pain/1101400002_right.jpg")
    assert left[-10:, -1].max() < 80  # shoulders, without a light line at the inner edge
    assert right[-10:, 0].max() < 110


def broken_files(folder):
    """One file for each way to be of no use; returns the reason that each must get."""
    good = Image.fromarray(pair())
    good.save(folder / "good.png")
    data = (folder / "good.png").read_bytes()
    (folder / "good.png").unlink()

    def name(number):
        return f"10000001{number:02}_NoPain_man_Young.jpg"

    (folder / name(1)).write_bytes(b"")
    (folder / name(2)).write_bytes(b"this is no picture")
    (folder / name(3)).write_bytes(data[: len(data) // 2])
    good.save(folder / name(4), quality=90)
    jpeg = (folder / name(4)).read_bytes()
    (folder / name(4)).write_bytes(jpeg[: len(jpeg) // 2])
    good.crop((0, 0, 150, 160)).save(folder / name(5))
    good.resize((90, 50)).save(folder / name(6))
    Image.new("RGB", (1, 1)).save(folder / name(7))
    (folder / name(8)).symlink_to(folder / "nowhere.jpg")
    (folder / name(9)).write_bytes(data[:60] + bytes(100) + data[160:])
    good.save(folder / "portrait.jpg")
    good.save(folder / "1000000001_Pain_man_Young.jpg")
    good.save(folder / "9000000001_NoPain_man_Young.jpg")
    good.save(folder / "1000000001_NoPain_Man_Young.png")
    (folder / "video.mp4").write_bytes(b"frames")
    (folder / "notes").write_text("a note")
    return {
        name(1): "empty_file",
        name(2): "not_an_image",
        name(3): "broken_image",
        name(4): "broken_image",
        name(5): "not_side_by_side",
        name(6): "too_small",
        name(7): "not_side_by_side",
        name(8): "unreadable",
        name(9): "broken_image",
        "portrait.jpg": "bad_name",
        "1000000001_Pain_man_Young.jpg": "id_contradicts_name",
        "9000000001_NoPain_man_Young.jpg": "bad_id",
        "1000000001_NoPain_Man_Young.png": "duplicate_id",
        "video.mp4": "other_file",
        "notes": "other_file",
    }


def test_what_cannot_be_used_is_listed_with_the_reason(raw, tmp_path):
    (raw / "more").mkdir()
    expected = broken_files(raw / "more")
    os.mkfifo(raw / "more" / "pipe.jpg")
    expected["pipe.jpg"] = "unreadable"
    result = run(raw, tmp_path / "out")
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv")
    assert list(rejected.columns) == ["path", "reason", "detail"]
    got = dict(zip(rejected["path"], rejected["reason"], strict=True))
    assert got == {f"more/{name}": reason for name, reason in expected.items()}
    assert result.n_accepted == len(NAMES)
    assert result.n_ignored == 2
    assert result.n_found == result.n_accepted + result.n_rejected + result.n_ignored
    assert result.n_found == len(NAMES) + len(expected)
    assert str(tmp_path) not in rejected["detail"].str.cat()


def test_a_damaged_file_leaves_its_id_to_the_next_one(raw, tmp_path):
    (raw / "A").mkdir()
    (raw / "A" / NAMES[0]).write_bytes(b"")
    result = run(raw, tmp_path / "out")
    assert result.rejected[["path", "reason"]].to_numpy().tolist() == [
        [f"A/{NAMES[0]}", "empty_file"]
    ]
    assert result.n_accepted == len(NAMES)


def test_a_name_that_is_no_utf8_is_rejected_not_fatal(raw, tmp_path):
    (raw / os.fsdecode(b"1000000009_NoPain_m\xff_Young.jpg")).write_bytes(b"x")
    result = run(raw, tmp_path / "out")
    assert result.rejected["path"].to_list() == ["1000000009_NoPain_m\\xff_Young.jpg"]


def test_again_gives_the_same_bytes_without_the_work(raw, tmp_path, monkeypatch):
    (raw / "note.txt").write_text("x")
    run(raw, tmp_path / "out")
    first = contents(tmp_path / "out")
    shutil.copytree(raw, tmp_path / "elsewhere")
    run(tmp_path / "elsewhere", tmp_path / "other")
    assert contents(tmp_path / "other") == first
    monkeypatch.setattr(prepare, "read_rgb", None)  # whoever decodes a picture again, fails
    run(raw, tmp_path / "out")
    assert contents(tmp_path / "out") == first


def test_a_killed_run_is_taken_up_and_ends_the_same(raw, tmp_path, monkeypatch):
    run(raw, tmp_path / "whole")
    out = tmp_path / "out"
    written = []

    def stop_later(path, pixels):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_jpeg(path, pixels)

    monkeypatch.setattr(prepare, "write_jpeg", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(raw, out)
    assert not (out / "manifest.csv").exists()
    with open(out / "journal.jsonl", "a") as file:
        file.write('{"key": "10114')
    (out / "Pain").mkdir(exist_ok=True)
    (out / "Pain" / ".1101400002_right-x1y2.jpg").write_bytes(b"half")
    monkeypatch.setattr(prepare, "write_jpeg", write_jpeg)
    run(raw, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_the_folder_follows_its_input(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, out)
    (out / "Pain" / "mine.txt").write_text("kept")
    (raw / "Images" / NAMES[1]).unlink()
    Image.fromarray(pair(seed=9)).save(raw / "Images" / NAMES[2])
    (out / "NoPain" / "1000000001_left.jpg").write_bytes(b"overwritten by mistake")
    manifest = run(raw, out).manifest
    faces = {p.relative_to(out).as_posix() for p in out.rglob("*.jpg")}
    assert faces == set(manifest["path"])
    assert "1101400002" not in set(manifest["identity"])
    run(raw, tmp_path / "fresh")
    (out / "Pain" / "mine.txt").unlink()
    assert contents(out) == contents(tmp_path / "fresh")


def test_folds_decide_where_they_are_given(raw, tmp_path):
    folds = tmp_path / "folds.txt"
    folds.write_text("\n".join(f"{name[:10]} {n}" for n, name in enumerate(NAMES)))
    result = prepare.prepare_dataset(raw, tmp_path / "out", folds, [0.7, 0.15, 0.15], 0)
    splits = result.manifest.groupby("identity")["split"].first()
    assert splits.loc[[n[:10] for n in NAMES]].to_list() == ["train", "train", "validation", "test"]
    assert "fold 3 is test" in result.split_note


def test_folders_that_are_missing_empty_or_useless(raw, tmp_path):
    with pytest.raises(StudyError, match=r"nowhere .*does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty"):
        run(tmp_path / "empty", tmp_path / "out")
    run(raw, tmp_path / "out")
    (tmp_path / "useless").mkdir()
    (tmp_path / "useless" / "a.jpg").write_bytes(b"x")
    with pytest.raises(
        StudyError, match=r"None of the 1 files .*all 1 were rejected.*rejected\.csv"
    ):
        run(tmp_path / "useless", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))
    assert not (tmp_path / "out" / "manifest.csv").exists()


@pytest.mark.parametrize("place", [".", "sub"])
def test_outputs_may_not_become_inputs(raw, place):
    before = contents(raw)
    with pytest.raises(StudyError, match="within the other"):
        run(raw, raw / place)
    with pytest.raises(StudyError, match="within the other"):
        run(raw / "Images", raw)
    assert contents(raw) == before


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    grey = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (32, 1))
    rgb = np.stack([grey] * 3, axis=2)
    alpha = Image.fromarray(np.dstack([rgb, np.full_like(grey, 255)]))
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    turned = Image.fromarray(np.rot90(rgb).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    kinds = {
        "rgb.png": (Image.fromarray(rgb), {}),
        "grey.png": (Image.fromarray(grey), {}),
        "palette.png": (Image.fromarray(grey).convert("P"), {}),
        "alpha.png": (alpha, {}),
        "sixteen.png": (sixteen, {}),
        "cmyk.jpg": (Image.fromarray(rgb).convert("CMYK"), {"quality": 100}),
        "turned.jpg": (turned, {"quality": 100, "exif": exif}),
    }
    for name, (image, options) in kinds.items():
        image.save(tmp_path / name, **options)
        pixels = read_rgb(tmp_path / name)
        assert pixels.shape == (32, 64, 3), name
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - rgb).max() <= 4, name


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (8, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()
