import io
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.files import ROOT
from helpers.pairs import PictureError, open_picture, picture_hash, read_rgb, split_pair
from helpers.prepare import MOST_BITS, near_duplicates


def scene(width, height, shade, background, seed):
    """A textured half: a background, a patterned head, and shoulders that reach both borders."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 60, (8, 5, 1), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), float(background))
    pixels[y > 0.8 * height] = shade
    head = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (width / 2.5) ** 2
    pixels[head] = shade + 40 + pattern[8 * y // height, 5 * x // width][head]
    return (pixels + rng.normal(0, 1, pixels.shape)).clip(0, 255).astype(np.uint8)


def pair(left=150, right=152, seam=4, height=160, background=(170, 160), seed=0):
    """A pair with a white seam of `seam` columns after `left` columns; the halves differ."""
    middle = np.full((height, seam, 3), 254, np.uint8)
    halves = [scene(left, height, 60, background[0], seed),
              scene(right, height, 90, background[1], seed + 1)]  # fmt: skip
    return np.concatenate([halves[0], middle, halves[1]], axis=1)


def encoded(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


@given(
    left=st.integers(142, 155),
    seam=st.integers(1, 9),
    background=st.sampled_from([(170, 160), (90, 200), (235, 235), (250, 120), (255, 255)]),
    seed=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_a_white_seam_is_found_wherever_it_is(left, seam, background, seed):
    found = split_pair(pair(left, 306 - left - seam, seam, background=background, seed=seed))
    assert found[2:] == ("white", left - 2, left + seam + 2)


def test_seams_without_a_line_or_on_a_light_wall():
    wall = np.full((160, 304, 3), 232, np.uint8)
    wall[:, 149:153] = 255
    assert split_pair(pair(145, 155, 0, background=(180, 140)))[2:] == ("edge", 143, 147)
    assert split_pair(pair(155, 145, 0, background=(180, 140)))[2:] == ("edge", 153, 157)
    assert split_pair(scene(301, 160, 60, 170, 0))[2:] == ("middle", 150, 150)
    assert split_pair(wall)[2:] == ("white", 147, 155)


@pytest.mark.parametrize(("left", "right"), [(150, 158), (158, 150)])
def test_halves_have_one_size_and_keep_their_outer_edges(left, right):
    pixels = pair(left, right, 4)
    found = split_pair(pixels)
    assert found.left.shape == found.right.shape == (160, 148, 3)
    assert (found.left == pixels[:, :148]).all()
    assert (found.right == pixels[:, -148:]).all()


def test_the_stand_in_is_cut_where_it_always_was():
    """Golden: `pairs.csv` of the code before the redesign, every fiftieth pair."""
    for path, *seam in pd.read_csv(ROOT / "tests/golden/seams.csv").to_numpy().tolist():
        assert split_pair(read_rgb(ROOT / "data/standin/pairs" / path))[2:] == tuple(seam)


@given(st.integers(1, 80), st.integers(1, 150), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_no_picture_is_too_odd_to_be_judged(height, width, shade):
    with pytest.raises(PictureError) as caught:
        split_pair(np.full((height, width, 3), shade, np.uint8)[:, :127])
    assert caught.value.reason in ("not_side_by_side", "too_small")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode):
    grey = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (32, 1))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(grey).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    pixels, *said = open_picture(encoded(image, form))
    assert said == [form, mode, 1]
    assert np.abs(pixels - grey[:, :, None].astype(int)).max() <= 4
    clear = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    assert (open_picture(encoded(clear))[0] == 255).all()  # transparency is laid on white


def test_sixteen_bits_of_which_a_camera_fills_fewer_are_not_dark():
    for bits in (10, 12, 14, 16):
        ramp = np.tile(np.linspace(0, 2**bits - 1, 64).astype(np.uint16), (32, 1))
        pixels = open_picture(encoded(Image.fromarray(ramp))).pixels
        assert np.abs(pixels[..., 0] - np.linspace(0, 255, 64)).max() <= 1


def test_what_phones_write_is_named_and_a_large_photograph_is_read_smaller_where_that_will_do():
    with pytest.raises(PictureError, match=r"HEIC's, .*: save it as JPEG"):
        open_picture(b"\0\0\0\x18ftypheic" + bytes(64))
    photo = encoded(Image.new("RGB", (8064, 6048), (200, 30, 30)), "JPEG")
    with pytest.raises(PictureError, match="too many pixels"):
        open_picture(photo)
    small = open_picture(photo, shrink=True)
    assert (small.shrunk, small.pixels.shape) == (2, (3024, 4032, 3))


def far(first, second):
    return (int(first, 16) ^ int(second, 16)).bit_count()


COPIES = {
    "compressed": lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=20))),
    "quarter size": lambda image: image.resize((image.width // 4, image.height // 4)),
    "cut by 1 %": lambda image: image.crop((image.width // 100, 0, image.width, image.height)),
}


def test_copies_of_a_half_are_near_it_and_other_people_are_not():
    paths = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))[::25]
    halves = [Image.fromarray(split_pair(read_rgb(path)).left) for path in paths]
    codes = [picture_hash(np.asarray(half)) for half in halves]
    assert min(far(a, b) for a, b in combinations(codes, 2)) > 1.4 * MOST_BITS
    for half, code in list(zip(halves, codes, strict=True))[::8]:
        for name, change in COPIES.items():
            assert far(code, picture_hash(np.asarray(change(half)))) <= MOST_BITS, name


def test_near_halves_tie_people_and_their_own_halves_do_not():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (600, 64), dtype=np.uint8)
    codes[300] = codes[7] ^ np.repeat([255, 15, 0], [7, 1, 56]).astype(np.uint8)  # 60 bits
    codes[599] = codes[300] ^ np.eye(64, dtype=np.uint8)[20]  # one bit more
    codes[2] = codes[1]
    names = [f"{max(n, 2):03}" for n in range(600)]  # the first three are one person's
    hashes = [bytes(code).hex() for code in codes]
    faces = pd.DataFrame({"identity": names, "side": "left", "hash": hashes})
    table, groups = near_duplicates(faces)
    assert [row[::2] for row in table.to_numpy().tolist()] == [
        ["007", "300", MOST_BITS],
        ["300", "599", 1],
    ]
    tied = {name: group for name, group in groups.items() if name != group}
    assert tied == {"300": "007", "599": "007"}
