import hashlib
import io
import os
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.dataset import prepare
from helpers.dataset.account_views import REASONS, accounting, read_duplicates
from helpers.dataset.pictures import read_picture, read_rgb, write_jpeg
from helpers.dataset.seams import find_seam, split_at
from helpers.errors import StudyError
from helpers.files import read_csv

NAMES = [
    "1000000001_NoPain_man_Young.jpg",
    "1101400002_Pain_Man_Old.jpg",
    "1110200003_Pain_woman_Young.jpg",
    "1011300004_NoPain_Woman_Old.jpg",
]


def scene(width, height, shade, background, seed):
    """A textured half: a background, a patterned head, and shoulders that reach both borders."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 60, (8, 5, 1), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    pixels = np.empty((height, width, 3))
    pixels[:] = background
    pixels[y > 0.8 * height] = shade
    head = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (width / 2.5) ** 2
    pixels[head] = shade + 40 + pattern[8 * y // height, 5 * x // width][head]
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


def encoded(image, form, **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that says it has many pixels."""
    data = bytearray(encoded(Image.new("RGB", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def broken_pictures():
    """Bytes of files that are named like pairs and are none, each with its reason."""
    good = Image.fromarray(pair())
    forms = {
        "png": encoded(good, "PNG"),
        "jpeg": encoded(good, "JPEG", quality=90),
        "gif": encoded(good, "GIF"),
        "webp": encoded(good, "WEBP"),
        "bmp": encoded(good, "BMP"),
        "tiff": encoded(good, "TIFF", compression="tiff_lzw"),
    }
    png, jpeg = forms["png"], forms["jpeg"]
    halves = {f"half a {name}": (data[: len(data) // 2], "broken_image")
              for name, data in forms.items()}  # fmt: skip
    return {
        **halves,
        "empty": (b"", "empty_file"),
        "text": (b"this is no picture", "not_an_image"),
        "a web page": (b"<!DOCTYPE html><html><body>429</body></html>", "not_an_image"),
        "zeros": (bytes(5000), "not_an_image"),
        "a video": (b"\x00\x00\x00\x18ftypmp42" + bytes(900), "not_an_image"),
        "PNG's first bytes": (png[:8], "broken_image"),
        "PNG's head": (png[:33], "broken_image"),
        "JPEG's head": (jpeg[:4], "broken_image"),
        "PNG with a hole": (png[:60] + bytes(100) + png[160:], "broken_image"),
        "JPEG that ends in zeros": (jpeg[: len(jpeg) * 3 // 4] + bytes(len(jpeg)), "broken_image"),
        "JPEG without its last bytes": (jpeg[:-40], "broken_image"),
        "no pixels": (bomb(0, 0), "broken_image"),
        "one pixel": (encoded(Image.new("RGB", (1, 1)), "PNG"), "not_side_by_side"),
        "a half": (encoded(good.crop((0, 0, 150, 160)), "PNG"), "not_side_by_side"),
        "a photograph": (encoded(good.resize((400, 300)), "JPEG"), "not_side_by_side"),
        "three halves": (encoded(good.resize((480, 160)), "JPEG"), "not_side_by_side"),
        "upright": (encoded(good.rotate(90, expand=True), "JPEG"), "not_side_by_side"),
        "tiny": (encoded(good.resize((90, 50)), "JPEG"), "too_small"),
        "large": (bomb(9000, 5000), "too_large"),
        "a bomb": (bomb(60000, 40000), "too_large"),
    }  # fmt: skip


def broken_files(folder):
    """One file for each way to be of no use; returns the reason that each must get."""
    expected = {}
    for n, (data, reason) in enumerate(broken_pictures().values()):
        name = f"10000001{n:02}_NoPain_man_Young.jpg"
        (folder / name).write_bytes(data)
        expected[name] = reason
    good = encoded(Image.fromarray(pair()), "JPEG")
    others = {
        "portrait.jpg": "bad_name",
        "1000000201_NoPain_mañ_Young.jpg": "bad_name",
        "1000000201_NoPain_man_Young (1).jpg": "bad_name",
        "1000000201_NoPain\r\nman_Young.jpg": "bad_name",
        "1000000001_Pain_man_Young.jpg": "id_contradicts_name",
        "9000000001_NoPain_man_Young.jpg": "bad_id",
        "1000000001_NoPain_Man_Young.png": "duplicate_id",
        "1000000202_NoPain_man_Young.mp4": "other_file",
        "notes": "other_file",
        "notes.txt": "other_file",
    }
    for name in others:
        (folder / name).write_bytes(good)
    (folder / "1000000203_NoPain_man_Young.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "1000000204_NoPain_man_Young.jpg").symlink_to("1000000204_NoPain_man_Young.jpg")
    os.mkfifo(folder / "1000000205_NoPain_man_Young.jpg")
    with open(folder / "1000000206_NoPain_man_Young.jpg", "wb") as file:
        file.truncate(300 * 2**20)
    links = {f"100000020{n}_NoPain_man_Young.jpg": "unreadable" for n in (3, 4, 5)}
    return expected | others | links | {"1000000206_NoPain_man_Young.jpg": "too_large"}


def test_what_cannot_be_used_is_listed_with_the_reason(raw, tmp_path):
    folder = raw / "more, with ünicode" / "deeper"
    folder.mkdir(parents=True)
    assert len(broken_pictures()) >= 15
    expected = broken_files(folder)
    result = run(raw, tmp_path / "out")
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv")
    assert list(rejected.columns) == ["path", "reason", "detail"]
    got = dict(zip(rejected["path"], rejected["reason"], strict=True))
    place = folder.relative_to(raw).as_posix()
    escaped = {name: name.replace("\r\n", "\\r\\n") for name in expected}
    assert got == {f"{place}/{escaped[name]}": reason for name, reason in expected.items()}
    assert result.n_accepted == len(NAMES)
    assert result.n_ignored == 3
    assert result.n_found == result.n_accepted + result.n_rejected + result.n_ignored
    assert result.n_found == sum(len(names) for _, _, names in os.walk(raw))
    assert str(tmp_path) not in rejected["detail"].str.cat()
    assert set(rejected["reason"]) < set(REASONS)
    assert "Accepted 4 + rejected" in accounting(result)


def test_a_folder_that_cannot_be_opened_is_counted(raw, tmp_path, monkeypatch):
    (raw / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    result = run(raw, tmp_path / "out")
    assert result.rejected.to_numpy().tolist() == [
        ["closed", "unreadable", "The folder cannot be opened: Permission denied."]
    ]
    assert result.n_found == len(NAMES) + 1


def test_a_file_that_cannot_be_opened_is_rejected(raw, tmp_path, monkeypatch):
    digest = prepare.sha256

    def denied(path):
        if path.name == NAMES[0]:
            raise PermissionError(13, "Permission denied")
        return digest(path)

    monkeypatch.setattr(prepare, "sha256", denied)
    result = run(raw, tmp_path / "out")
    assert result.rejected["reason"].to_list() == ["unreadable"]
    assert result.n_accepted == len(NAMES) - 1


def test_linked_folders_count_once_and_lead_not_into_the_outputs(raw, tmp_path):
    run(raw, tmp_path / "out")
    (raw / "again").symlink_to(raw / "Images")
    (raw / "loop").symlink_to(raw)
    (raw / "outputs").symlink_to(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(pair(seed=50)).save(tmp_path / "elsewhere/1000000077_NoPain_man_Young.jpg")
    result = run(raw, tmp_path / "out")
    assert (result.n_accepted, result.n_found) == (len(NAMES) + 1, len(NAMES) + 1)


def test_names_of_every_kind_lead_to_the_same_columns(raw, tmp_path):
    odd = raw / os.fsdecode(b"f\xffolder") / "a b" / "ü"
    odd.mkdir(parents=True)
    Image.fromarray(pair(seed=40)).save(odd / "1010200009_nopain_WOMAN_young .JPG", "PNG")
    result = run(raw, tmp_path / "out")
    row = read_csv(tmp_path / "out/manifest.csv").set_index("image_id").loc["1010200009_right"]
    assert row[["label", "expression", "gender", "age", "ethnicity"]].to_list() == [
        "NoPain", "NoPain", "Woman", "Young", "Middle Eastern",
    ]  # fmt: skip
    pixels, seam = prepare.read_pair(raw, result, "1010200009")
    assert (pixels == pair(seed=40)).all()
    assert seam.kind == "white"


def test_what_the_files_were_is_kept(raw, tmp_path):
    image = Image.fromarray(pair(seed=30))
    deep = Image.fromarray(pair(seed=31)[:, :, 0].astype(np.uint16) * 257)
    clear = Image.fromarray(np.dstack([pair(seed=32), np.full((160, 306), 255, np.uint8)]))
    exif = image.getexif()
    exif[0x0112] = 8
    image.transpose(Image.Transpose.ROTATE_270).save(
        raw / "1000000005_NoPain_man_Young.jpg", quality=92, exif=exif
    )
    deep.save(raw / "1000000006_NoPain_man_Young.jpg", "PNG")
    clear.save(raw / "1000000007_NoPain_man_Young.jpg", "PNG")
    image = Image.fromarray(pair(seed=33))
    image.convert("CMYK").save(raw / "1000000008_NoPain_man_Young.jpg")
    Image.fromarray(pair(seed=34)).save(raw / "1000000009_NoPain_man_Young.png", "WEBP")
    run(raw, tmp_path / "out")
    pairs = read_csv(tmp_path / "out" / "pairs.csv").set_index("identity")
    got = pairs[["format", "mode", "width", "height", "seam", "seam_start", "seam_end"]]
    cut = [306, 160, "white", 148, 156]
    for number, kind in zip(
        range(4, 10),
        [("JPEG", "RGB"), ("JPEG", "RGB"), ("PNG", "I;16"), ("PNG", "RGBA"), ("JPEG", "CMYK"),
         ("WEBP", "RGB")],
        strict=True,
    ):  # fmt: skip
        identity = next(i for i in got.index if i.endswith(f"{number:05}"))
        assert got.loc[identity].to_list() == [*kind, *cut], identity
    for row in pairs.itertuples():
        assert row.bytes == (raw / row.path).stat().st_size


def test_the_same_bytes_under_two_ids_are_used_once(raw, tmp_path):
    shutil.copy(raw / "Images" / NAMES[1], raw / "1101400099_Pain_Man_Old.jpg")
    result = run(raw, tmp_path / "out")
    assert result.rejected[["path", "reason"]].to_numpy().tolist() == [
        ["1101400099_Pain_Man_Old.jpg", "duplicate_picture"]
    ]
    assert NAMES[1] in result.rejected["detail"][0]
    assert result.n_accepted == len(NAMES)


def test_the_same_bytes_under_contradictory_names_are_not_used(raw, tmp_path):
    shutil.copy(raw / "Images" / NAMES[1], raw / "1001400099_NoPain_Man_Old.jpg")
    result = run(raw, tmp_path / "out")
    assert set(result.rejected["reason"]) == {"contradictory_duplicate"}
    assert len(result.rejected) == 2
    assert result.n_accepted == len(NAMES) - 1
    assert "1101400002" not in set(result.manifest["identity"])
    faces = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")}
    assert faces == set(result.manifest["path"])


def test_people_with_nearly_the_same_picture_are_in_one_split(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for n in range(10):
        Image.fromarray(pair(seed=20 * n)).save(raw / f"10000000{n:02}_NoPain_man_Young.png")
    left, right = pair(seed=180)[:, :150], pair(seed=500)[:, 154:]
    again = np.concatenate([left, np.full((160, 4, 3), 254, np.uint8), right], axis=1)
    Image.fromarray(again).resize((459, 240)).save(raw / "1000000055_NoPain_man_Young.jpg")
    for seed in range(4):
        result = run(raw, tmp_path / "out", seed)
        table = pd.read_csv(tmp_path / "out/duplicates.csv", dtype=str)
        assert table[table.columns[:4]].to_numpy().tolist() == [
            ["1000000009", "left", "1000000055", "left"]
        ]
        splits = result.manifest.groupby("identity")["split"].first()
        assert splits["1000000009"] == splits["1000000055"]
        assert result.pairs.set_index("identity")["duplicate_group"]["1000000055"] == "1000000009"
    assert "1 time a half looks like one of another person: this ties 2 people" in read_duplicates(
        result
    )
    assert "bind 1 person to another one's split" in result.splitting.note


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
    monkeypatch.setattr(prepare, "read_picture", None)  # whoever decodes a picture again, fails
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
    (out / ".manifest-a1b2c3d4.csv").write_text("half")
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
    assert "Fold 3 is test" in result.splitting.note
    table = read_csv(tmp_path / "out" / "folds.csv")
    assert table["fold"].to_list() == [0, 3, 1, 2]  # in the order of IDs
    run(raw, tmp_path / "out")
    assert not (tmp_path / "out" / "folds.csv").exists()


def test_folds_are_found_beside_the_pairs(raw, tmp_path):
    (raw / "SynPain_folds.txt").write_text(
        "".join(f"{n[:10]},{i}\r\n" for i, n in enumerate(NAMES))
    )
    result = prepare.prepare_dataset(raw, tmp_path / "out", "auto", [4, 0], 0)
    assert result.manifest.set_index("image_id")["split"][f"{NAMES[0][:10]}_left"] == "test"
    assert result.n_ignored == 1
    result = run(raw, tmp_path / "out")
    assert result.splitting.folds is None


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
        picture = read_picture(tmp_path / name)
        pixels = picture.pixels
        assert picture.mode == image.mode
        assert pixels.shape == (32, 64, 3), name
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - rgb).max() <= 4, name


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (8, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()
