"""The detector against facenet-pytorch itself, and on the faces that a half may show."""

import math

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from helpers.cropping import mtcnn
from helpers.cropping.align import Face, choose_face, crop_face
from helpers.cropping.detector import FaceDetector
from helpers.dataset.pictures import read_rgb
from helpers.dataset.seams import find_seam, split_at
from helpers.files import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def halves():
    """Four rendered halves, cut to one size."""
    pairs = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    pictures = [read_rgb(path) for path in (pairs[0], pairs[-1])]
    cut = [half for picture in pictures for half in split_at(picture, find_seam(picture))]
    height, width = np.min([half.shape[:2] for half in cut], axis=0)
    return [np.ascontiguousarray(half[:height, :width]) for half in cut]


@pytest.fixture(scope="module")
def large(halves):
    return [np.asarray(Image.fromarray(half).resize((656, 736))) for half in halves]


@pytest.fixture(scope="module")
def detect():
    torch.set_num_threads(1)
    return FaceDetector(80, "cpu")


def package_faces(pictures, **options):
    """All faces that facenet-pytorch finds in each picture."""
    found = zip(*MTCNN(**options).detect(np.stack(pictures), landmarks=True), strict=True)
    return [
        []
        if boxes is None
        else [
            Face(*map(np.float64, face))
            for face in zip(boxes, landmarks, probabilities, strict=True)
        ]
        for boxes, probabilities, landmarks in found
    ]


@pytest.mark.parametrize("to_the_bit", [True, False])
@pytest.mark.parametrize("smallest", [24, 80])
def test_the_cascade_finds_what_the_package_finds(halves, smallest, to_the_bit):
    noise = np.random.default_rng(0).integers(0, 255, halves[0].shape, dtype=np.uint8)
    blurred = Image.fromarray(halves[0]).reduce(8).resize(noise.shape[1::-1])
    veiled = [Image.blend(blurred, Image.fromarray(noise), share) for share in (0.42, 0.44, 0.48)]
    pictures = [*halves, noise, np.full_like(noise, 90), np.flip(halves[0], 0), *veiled]
    scales = mtcnn.levels(*noise.shape[:2], smallest, smallest)
    found = mtcnn.Cascade(CPU)(np.stack(pictures), scales, to_the_bit)
    expected = package_faces(pictures, min_face_size=smallest)
    assert sum(map(len, expected)) >= 4
    for (boxes, probabilities, landmarks), faces in zip(found, expected, strict=True):
        assert len(boxes) == len(faces)
        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        for i, face in zip(order, faces, strict=True):
            assert boxes[i] == pytest.approx(face.box, abs=0.003)
            assert landmarks[i] == pytest.approx(face.landmarks, abs=0.003)
            assert probabilities[i] == pytest.approx(float(face.probability), abs=1e-4)


def test_halves_of_full_size_get_the_boxes_of_the_default_settings(large, detect):
    expected = [choose_face(faces, 656, 736) for faces in package_faces(large)]
    for face, other in zip(detect(large), expected, strict=True):
        assert face.box == pytest.approx(other.box, abs=0.02)
        assert face.landmarks == pytest.approx(other.landmarks, abs=0.02)
        assert face.probability == pytest.approx(float(other.probability), abs=2e-4)


def test_levels_are_those_of_the_default_pyramid_without_the_finest():
    sizes = 12 / np.array(mtcnn.levels(736, 656, 80, 20))
    assert sizes[:2] == pytest.approx([20 / 0.709**4, 20 / 0.709**5])
    assert sizes[0] == pytest.approx(79.15, abs=0.01)
    assert sizes[-1] <= 656 < sizes[-1] / 0.709
    assert 12 / np.array(mtcnn.levels(736, 656, 20, 20)) == pytest.approx(
        [20 / 0.709**n for n in range(11)]
    )
    assert mtcnn.levels(100, 90, 80, 80) == pytest.approx([12 / 80])


@example(side=47, more=0, smallest=47, begin=None)
@given(
    side=st.integers(20, 1000),
    more=st.integers(0, 400),
    smallest=st.integers(20, 400),
    begin=st.sampled_from([20, None]),
)
@settings(max_examples=60, deadline=None)
def test_a_face_of_the_smallest_size_has_a_level(side, more, smallest, begin):
    smallest = min(smallest, side)
    scales = mtcnn.levels(side, side + more, smallest, begin or smallest)
    assert scales == sorted(scales, reverse=True)
    assert 12 / scales[0] <= smallest * (1 + 1e-9)
    assert all(scale * side >= 12 * (1 - 1e-9) for scale in scales)


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    count=st.sampled_from([24, 48]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_means_are_those_of_torch(size, box, count, seed):
    """Over the grid of a level and over that of a candidate, smaller or larger than the grid."""
    picture = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    planes = torch.from_numpy(picture).permute(0, 3, 1, 2).float()
    sums = mtcnn.Cascade.__new__(mtcnn.Cascade)
    torch.nn.Module.__init__(sums)
    sums.device, sums._mine = CPU, mtcnn.threading.local()
    table = sums._summed(picture)
    (y0, y1), (x0, x1) = (
        sorted(int(share * (length - 1)) for share in pair)
        for pair, length in zip((box[:2], box[2:]), size, strict=True)
    )
    y1, x1 = y1 + 1, x1 + 1
    zero, all_pictures = torch.tensor([[0]]), torch.tensor([0])
    grid = mtcnn._means(
        table, all_pictures,
        mtcnn._bins(zero, size[0], 13, CPU), mtcnn._bins(zero, size[1], 17, CPU),
    )  # fmt: skip
    expected = interpolate(planes, size=(13, 17), mode="area").permute(0, 2, 3, 1)
    torch.testing.assert_close(grid, expected)
    bins = [
        tuple(side[None] for side in mtcnn._bins(start, end - start, count, CPU))
        for start, end in ((y0, y1), (x0, x1))
    ]
    seen = mtcnn._means(table, torch.tensor([0]), *bins)
    patch = planes[:, :, y0:y1, x0:x1]
    expected = interpolate(patch, size=(count, count), mode="area").permute(0, 2, 3, 1)
    torch.testing.assert_close(seen, expected)


def test_candidates_without_a_pixel_in_the_picture_are_dropped():
    boxes = torch.tensor([[10, 10, 30, 30], [101, 5, 120, 30], [-40, 5, -3, 30], [90, 50, 140, 99]])
    boxes = torch.cat((boxes, torch.ones(4, 1)), dim=1)
    kept, of, places = mtcnn._inside(boxes, torch.arange(4), 80, 100)
    assert of.tolist() == [0, 3]
    assert kept[:, 0].tolist() == [10, 90]
    assert [list(p) for p in places] == [[10, 50], [30, 80], [10, 90], [30, 100]]


def test_pictures_smaller_than_the_smallest_face_have_none(detect):
    assert detect([np.zeros((70, 300, 3), np.uint8)]) == [None]


def test_faceless_noise_does_not_stop_the_detector():
    noise = np.random.default_rng(0).integers(0, 255, (3, 100, 90, 3), dtype=np.uint8)
    assert len(FaceDetector(20, "cpu")(list(noise))) == 3


def test_a_picture_with_two_faces_beside_one_with_one_and_one_with_none(halves, detect):
    one, two, grey = halves[0], halves[2], np.full_like(halves[0], 128)
    width = one.shape[1]
    both, alone, none = detect(
        [np.hstack([one, two]), np.hstack([grey, two]), np.hstack([grey, grey])]
    )
    assert none is None
    assert alone.box[0] > width
    assert both is not None


def scene(*parts, size=(656, 736)):
    """A grey picture with halves pasted in: (half, share of its size, x, y)."""
    picture = Image.new("RGB", size, "grey")
    for half, share, x, y in parts:
        small = Image.fromarray(half)
        small = small.resize((round(small.width * share), round(small.height * share)))
        picture.paste(small, (x, y))
    return np.asarray(picture)


def middle(face):
    return (face.box[:2] + face.box[2:]) / 2


def test_of_several_faces_in_a_half_the_large_central_one_is_cropped(halves, detect):
    poster = (halves[2], 0.6, 0, 0)
    person = (halves[0], 1.2, 180, 200)
    several, alone = detect([scene(person, poster), scene(person)])
    assert len(package_faces([scene(person, poster)])[0]) == 2
    assert middle(several) == pytest.approx(middle(alone), abs=12)
    [small] = detect([scene(poster)])
    assert (middle(small) < (200, 220)).all()


def test_a_tiny_face_is_found_only_where_it_is_asked_for(halves, detect):
    picture = scene((halves[0], 0.25, 300, 300), size=(500, 500))
    assert detect([picture]) == [None]
    [face] = FaceDetector(20, "cpu")([picture])
    assert 25 < face.box[3] - face.box[1] < 60
    assert middle(face) == pytest.approx((300 + 40, 300 + 46), abs=12)


def test_without_a_face_there_is_none(detect):
    ramp = np.linspace(0, 255, 656).astype(np.uint8)
    pictures = [np.zeros((736, 656, 3), np.uint8), np.broadcast_to(ramp[:, None], (736, 656, 3))]
    assert detect(pictures) == [None, None]


@pytest.mark.parametrize("edge", ["left", "top", "bottom"])
def test_a_face_that_the_border_cuts_is_found_and_cropped(halves, detect, edge):
    """A sixth of it is beyond the border; MTCNN's box then reaches about as far beyond as well."""
    half = halves[0]
    x1, y1, x2, y2 = detect([half])[0].box.astype(int)
    cut_x, cut_y = x1 + (x2 - x1) // 6, y1 + (y2 - y1) // 6
    rest, visible = {
        "left": (half[:, cut_x:], (0, y1, x2 - cut_x, y2)),
        "top": (half[cut_y:], (x1, 0, x2, y2 - cut_y)),
        "bottom": (half[: y2 - cut_y + y1], (x1, y1, x2, y2 - cut_y + y1)),
    }[edge]
    [face] = detect([np.ascontiguousarray(rest)])
    low, high = np.maximum(face.box[:2], visible[:2]), np.minimum(face.box[2:], visible[2:])
    assert np.prod(high - low) > 0.85 * np.prod(np.subtract(visible[2:], visible[:2]))
    size = face.box[2:] - face.box[:2]
    assert (size < 1.4 * np.array([x2 - x1, y2 - y1])).all()
    crop, landmarks = crop_face(rest, face, 128, 0.4)
    assert crop.shape == (128, 128, 3)
    assert landmarks[0, 1] == pytest.approx(landmarks[1, 1])
    along, beyond = {
        "left": (1, crop[60:70, :4]), "top": (0, crop[:4, 60:70]), "bottom": (0, crop[-4:, 60:70])
    }[edge]  # fmt: skip
    assert np.ptp(beyond.astype(int), axis=along).max() <= 40  # the edge, repeated


@pytest.mark.parametrize("angle", [-25, 25])
def test_a_face_that_leans_is_found_and_levelled(halves, detect, angle):
    half = halves[0]
    [upright] = detect([half])
    centre = tuple(middle(upright))
    turned = np.asarray(
        Image.fromarray(half).rotate(angle, Image.Resampling.BICUBIC, center=centre)
    )
    [face] = detect([turned])
    assert face.tilt - upright.tilt == pytest.approx(-angle, abs=7)
    crop, _ = crop_face(turned, face, 256, 0.6)
    [again] = detect([crop])
    assert abs(again.tilt) < 7
    turn = np.exp(-1j * math.radians(angle))
    offset = (upright.landmarks[2] - centre) @ (1, 1j) * turn
    assert face.landmarks[2] @ (1, 1j) == pytest.approx(centre @ np.array([1, 1j]) + offset, abs=12)
