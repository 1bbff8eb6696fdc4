"""Detection, alignment and the stage; `golden/crops.csv` is what the study found before."""

import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import crops, pairs
from helpers.crops import Face, align_crop, choose_face
from helpers.files import ROOT, StudyError, read_csv, sha256, write_csv

GOLDEN = pd.read_csv(ROOT / "tests/golden/crops.csv").set_index("image_id")
UPRIGHT = np.array([[-15, -15], [15, -15], [0, 0], [-12, 20], [12, 20]])


def make_face(centre=(100, 90), width=60, height=80, tilt=0.0, probability=0.99):
    """A face whose eyes are turned by `tilt` degrees about the middle of the box."""
    turned = UPRIGHT @ (1, 1j) * np.exp(1j * math.radians(tilt))
    landmarks = np.stack([turned.real, turned.imag], axis=1) + centre
    half = np.array([width, height]) / 2
    return Face(np.concatenate([centre - half, centre + half]), landmarks, probability)


def crop(pixels, face, size, margin):
    image, landmarks = align_crop(Image.fromarray(pixels), face, size, margin)
    return np.asarray(image), landmarks


@pytest.mark.parametrize(("tilt", "margin", "size"), [(-60, 0, 32), (0, 0.2, 256), (23, 1, 299)])
@pytest.mark.parametrize("centre", [(100, 90), (-20, 200), (220, -5)])
def test_eyes_are_level_and_the_box_fills_its_share(tilt, margin, size, centre):
    face = make_face(centre, tilt=tilt)
    assert face.tilt == pytest.approx(tilt, abs=1e-6)
    _, landmarks = crop(np.zeros((180, 200, 3), np.uint8), face, size, margin)
    assert landmarks / size - 0.5 == pytest.approx(UPRIGHT / (80 + 160 * margin), abs=1e-6)


@pytest.mark.parametrize("tilt", [-25, 0, 40])
@pytest.mark.parametrize("size", [64, 160])
def test_pixels_go_where_the_landmarks_go(tilt, size):
    """Bright spots at the landmarks, each found again at the landmark in the crop."""
    face = make_face((102, 91), tilt=tilt)
    y, x = np.mgrid[:180, :200] + 0.5
    spots = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in face.landmarks)
    pixels = np.repeat((spots * 250)[:, :, None], 3, axis=2).clip(0, 255).astype(np.uint8)
    found, landmarks = crop(pixels, face, size, 0.25)
    y, x = np.mgrid[:size, :size] + 0.5
    for a, b in landmarks:
        weight = found[:, :, 0] * (np.hypot(x - a, y - b) < size / 20)
        spot = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        assert np.abs(spot - (a, b)).max() < 0.25


def test_a_crop_is_cut_out_or_reduced_and_beyond_the_border_the_edge_is_repeated():
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    assert (crop(noise, make_face(), 80, 0)[0] == noise[50:130, 60:140]).all()
    assert (crop(noise, None, 400, 0.2)[0] == noise).all()
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced, _ = crop(stripes, make_face((200, 200), width=240, height=320), 64, 0)
    assert np.abs(reduced.astype(int) - 127).max() < 12  # antialiased
    beyond, _ = crop(stripes, make_face((10, 90)), 80, 0)
    assert (beyond[:, :28] == 255).all()


def test_of_several_faces_the_large_central_sure_one_is_taken():
    main = make_face()
    assert choose_face([], 200, 180) is None
    for other in (make_face((100, 90), 30, 40), make_face((20, 20), 64, 84),
                  make_face(probability=0.7)):  # fmt: skip
        assert choose_face([other, main], 200, 180) is main
        assert choose_face([main, other], 200, 180) is main


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Four rendered pairs as chapter 1 would leave them; in one half MTCNN finds no face."""
    folder, rows = tmp_path_factory.mktemp("prepared"), []
    for identity in GOLDEN.index.str[:10].unique():
        [pair] = (ROOT / "data/standin/pairs").glob(f"{identity}*.jpg")
        halves = pairs.split_pair(pairs.read_rgb(pair))
        for side, half in (("left", halves.left), ("right", halves.right)):
            label = "Pain" if side == "right" and identity[1] == "1" else "NoPain"
            path = f"{label}/{identity}_{side}.jpg"
            pairs.write_jpeg(folder / path, half)
            height, width = half.shape[:2]
            rows.append((f"{identity}_{side}", path, identity, side, label, width, height,
                         sha256(folder / path)))  # fmt: skip
    columns = "image_id path identity side label width height sha256".split()
    write_csv(folder / "manifest.csv", pd.DataFrame(rows, columns=columns))
    return folder


def run(prepared, out, **changes):
    parameters = {"crop_size": 256, "margin": 0.2, "min_face_size": 80, "device": "cpu"}
    return crops.crop_faces(prepared, out, **(parameters | changes))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def cropped(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("crops")
    return out, run(prepared, out)


@pytest.fixture
def seen(monkeypatch):
    """The widths of the pictures that MTCNN was given, call by call."""
    calls, detect = [], crops.MTCNN.detect

    def noted(self, images, landmarks):
        calls.append([image.width for image in images])
        return detect(self, images, landmarks)

    monkeypatch.setattr(crops.MTCNN, "detect", noted)
    return calls


def test_boxes_and_landmarks_are_those_of_before(prepared, cropped):
    out, manifest = cropped
    pd.testing.assert_frame_equal(read_csv(out / "manifest.csv"), manifest, check_dtype=False)
    assert list(manifest) == [*read_csv(prepared / "manifest.csv"), *crops.FOUND_COLUMNS]
    found = manifest.set_index("image_id")
    assert found["detected"].to_dict() == GOLDEN["detected"].to_dict()
    missed = found.loc["1101062475_right", crops.FOUND_COLUMNS]
    assert list(missed.notna()) == [True] + 5 * [False]
    for image_id, row in GOLDEN[GOLDEN["detected"]].iterrows():
        for key in ("box", "landmarks"):
            numbers = np.array(found.loc[image_id, key].split(), float)
            assert numbers == pytest.approx(np.array(row[key].split(), float), abs=0.5)
        assert found.loc[image_id, "probability"] == pytest.approx(row["probability"], abs=0.01)


def test_the_manifest_tells_how_a_crop_was_made(prepared, cropped):
    """What another program draws from it is the crop, but for JPEG."""
    for row in cropped[1][cropped[1]["detected"]].itertuples():
        texts = (row.box, row.original_landmarks, row.landmarks)
        box, original, listed = (np.array(words.split(), float) for words in texts)
        face = Face(box, original.reshape(5, 2), row.probability)
        image, landmarks = align_crop(Image.open(prepared / row.path), face, 256, 0.2)
        written = pairs.read_rgb(cropped[0] / row.path).astype(int)
        assert np.abs(written - np.asarray(image)).mean() < 3
        assert listed == pytest.approx(landmarks.ravel(), abs=0.01)
        assert row.tilt == pytest.approx(face.tilt, abs=0.01)


def test_only_what_is_lost_is_looked_for_again(prepared, cropped, tmp_path, seen):
    """Among the same pictures: in another batch its last digit might be another."""
    both = [4 * [322], 4 * [323]]
    run(prepared, tmp_path)
    run(prepared, tmp_path)
    assert sorted(seen) == both
    (tmp_path / cropped[1]["path"].iloc[0]).unlink()
    run(prepared, tmp_path)
    assert seen[2:] == both[:1]
    run(prepared, tmp_path, margin=0.1)
    assert sorted(seen[3:]) == both
    run(prepared, tmp_path)
    assert contents(tmp_path) == contents(cropped[0])


def mirrored(prepared, folder, rows=slice(None)):
    """Other pictures under the same names."""
    table = read_csv(prepared / "manifest.csv").iloc[rows]
    for path in table["path"]:
        pairs.write_jpeg(folder / path, pairs.read_rgb(prepared / path)[:, ::-1])
    table["sha256"] = [sha256(folder / path) for path in table["path"]]
    write_csv(folder / "manifest.csv", table)
    return table


def test_a_run_that_was_broken_off_is_taken_up(prepared, cropped, tmp_path, monkeypatch, seen):
    write, written = pairs.write_jpeg, []

    def stop_later(path, pixels):
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(path)
        write(path, pixels)

    monkeypatch.setattr("helpers.files.os.cpu_count", lambda: 1)  # one batch after the other
    run(prepared, tmp_path, margin=0.1)
    monkeypatch.setattr(pairs, "write_jpeg", stop_later)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()
    monkeypatch.setattr(pairs, "write_jpeg", write)
    run(prepared, tmp_path)
    assert [widths[0] for widths in seen[2:]] == [322, 323, 323]
    assert contents(tmp_path) == contents(cropped[0])


def test_other_pictures_are_cropped_anew_and_the_cleaner_removes_its_own_alone(prepared, tmp_path):
    faces, out = tmp_path / "faces", tmp_path / "out"
    run(prepared, out)
    before = contents(out)
    kept = {"NoPain/mine.jpg": b"a", "batches/mine.json": b"b", "notes.csv": b"c"}
    half_written = {"NoPain/.1000003846_left-x1y2.jpg": b"d", ".manifest-x1y2.csv": b"e"}
    for name, data in {**kept, **half_written}.items():
        (out / name).write_bytes(data)
    paths = set(mirrored(prepared, faces, rows=slice(4))["path"])
    run(faces, out)
    left = contents(out)
    assert kept.items() <= left.items()
    assert not [path for path in paths if left[path] == before[path]]
    records = {name for name in left.keys() - before.keys() if name.startswith("batches/")}
    assert left.keys() == {*kept, *records, *paths, "manifest.csv"}


def test_bad_input_is_one_sentence(prepared, tmp_path):
    faces, out = tmp_path / "faces", tmp_path / "out"
    table = mirrored(prepared, faces)
    wrong_size = table.assign(width=[322, 9] + 6 * [323])
    for other, words in ((wrong_size, f"{table['path'][1]} has not the size"),
                         (table.drop(columns="sha256"), "lacks the column sha256"),
                         (table.iloc[:0], "lists no faces")):  # fmt: skip
        write_csv(faces / "manifest.csv", other)
        with pytest.raises(StudyError, match=words):
            run(faces, out)
    write_csv(faces / "manifest.csv", table)
    (faces / table["path"][0]).write_bytes(b"")
    with pytest.raises(StudyError, match=rf"{table['path'][0]} cannot be read \(empty_file\)"):
        run(faces, out)
    with pytest.raises(StudyError, match=r"nowhere .* does not exist"):
        run(tmp_path / "nowhere", out)
    with pytest.raises(StudyError, match="both prepared_dir and out_dir"):
        run(prepared, prepared)


class Fake:
    """Stands in for MTCNN: a person whose box ends at 18 + grey / 100, and a poster.

    It finds nothing in a white picture, and stumbles over a black one.
    """

    min_face_size = 20

    def __init__(self):
        self.calls = []

    def detect(self, images, landmarks):
        assert landmarks
        self.calls.append([image.width for image in images])
        greys = [image.getpixel((0, 0))[0] for image in images]
        if 0 in greys:
            raise IndexError
        nothing, rest = (None, [None], None), (np.array([0.9, 0.8]), np.stack([UPRIGHT, UPRIGHT]))
        return zip(*[(self.boxes(g), *rest) if g < 255 else nothing for g in greys], strict=True)

    def boxes(self, grey):
        return np.array([[10, 8, 20, 18 + grey / 100], [0, 0, 3, 3]])


def picture(grey, width=40, height=30):
    return Image.new("RGB", (width, height), (grey, grey, grey))


def test_pictures_of_one_size_go_together_and_each_gets_its_own_answer():
    fake = Fake()
    images = [picture(i + 1, 50 if i % 3 == 2 else 40) for i in range(100)]
    assert [face.box[3] for face in crops.detect(fake, images)] == list(np.arange(1801, 1901) / 100)
    assert sorted(map(sorted, fake.calls)) == [3 * [40], 32 * [40], 32 * [40], [50], 32 * [50]]
    fake.calls.clear()
    crops.detect(fake, [picture(9, 4000, 3000)] * 2)
    assert fake.calls == [[4000], [4000]]
    found = crops.detect(fake, [picture(5), picture(0), picture(255), picture(7)])
    assert [face and face.box[3] for face in found] == [18.05, None, None, 18.07]


@pytest.fixture(scope="module")
def half(prepared):
    return Image.open(prepared / "NoPain/1000003846_left.jpg")


def middle(face):
    return (face.box[:2] + face.box[2:]) / 2


@pytest.mark.parametrize("angle", [-25, 25])
def test_a_face_that_leans_is_found_and_levelled(half, angle):
    detector = crops.make_detector(80, "cpu")
    [upright] = crops.detect(detector, [half])
    turned = half.rotate(angle, Image.Resampling.BICUBIC, center=tuple(middle(upright)))
    [face] = crops.detect(detector, [turned])
    assert face.tilt - upright.tilt == pytest.approx(-angle, abs=7)
    [again] = crops.detect(detector, [align_crop(turned, face, 256, 0.6)[0]])
    assert abs(again.tilt) < 7
