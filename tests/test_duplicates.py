"""The perceptual hash: copies of a picture are near it, other pictures are not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.dataset.duplicates import HASH_BITS, MOST_BITS, find_near_duplicates, picture_hash, tie
from helpers.dataset.pictures import read_rgb
from helpers.dataset.seams import find_seam, split_at
from helpers.files import ROOT


def halves(count):
    """Halves of `count` people of the stand-in, two each, by (identity, side)."""
    made = {}
    for path in sorted((ROOT / "data/standin/pairs").glob("*.jpg"))[:: 1000 // count]:
        pixels = read_rgb(path)
        pair = split_at(pixels, find_seam(pixels))
        made |= {(path.name[:10], side): h for side, h in zip(("left", "right"), pair, strict=True)}
    return made


def saved(image, quality):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


COPIES = {
    "compressed": lambda image: saved(image, 20),
    "quarter size": lambda image: image.resize((image.width // 4, image.height // 4)),
    "double size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut by 1 %": lambda image: image.crop((image.width // 100, 0, image.width, image.height)),
}


def distance(a, b):
    return (int(a, 16) ^ int(b, 16)).bit_count()


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_copies_of_a_half_are_near_it(change):
    for pixels in list(halves(20).values())[::4]:
        copy = np.asarray(change(Image.fromarray(pixels)).convert("RGB"))
        assert distance(picture_hash(pixels), picture_hash(copy)) <= MOST_BITS


def test_different_people_are_far_apart():
    hashes = {key: picture_hash(pixels) for key, pixels in halves(100).items()}
    near = find_near_duplicates(hashes)
    least = min(
        distance(a, b)
        for (i, _), a in hashes.items()
        for (j, _), b in hashes.items()
        if i < j
    )  # fmt: skip
    assert near.table.empty
    assert near.nearest == least > 1.5 * MOST_BITS
    assert near.groups == {identity: identity for identity, _ in hashes}


def test_halves_of_one_person_are_no_duplicates():
    pixels = next(iter(halves(1).values()))
    code = picture_hash(pixels)
    near = find_near_duplicates({("a", "left"): code, ("a", "right"): code})
    assert near.table.empty
    assert near.nearest is None


def test_a_picture_of_one_shade_is_compared_with_nothing():
    flat = np.full((160, 140, 3), 128, np.uint8)
    assert picture_hash(flat) is None
    near = find_near_duplicates({("a", "left"): None, ("b", "left"): None})
    assert near.groups == {"a": "a", "b": "b"}


def test_more_pictures_than_are_compared_at_a_time():
    rng = np.random.default_rng(0)
    codes = [rng.bytes(HASH_BITS // 8) for _ in range(600)]
    far = bytearray(codes[7])
    far[:11] = bytes(b ^ 0xFF for b in far[:11])  # 88 bits
    further = bytearray(far)
    further[11] ^= 1
    codes[300], codes[599] = bytes(far), bytes(further)
    near = find_near_duplicates({(f"{n:03}", "left"): c.hex() for n, c in enumerate(codes)})
    assert near.table.to_numpy().tolist() == [
        ["007", "left", "300", "left", 88],
        ["300", "left", "599", "left", 1],
    ]
    assert near.nearest == 89
    assert {i for i, group in near.groups.items() if group == "007"} == {"007", "300", "599"}


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_ties_make_connected_groups(ties):
    names = [f"{n:02}" for n in range(20)]
    groups = tie(names, [(names[a], names[b]) for a, b in ties])
    ends = np.array(ties, dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(20, 20))
    _, parts = connected_components(graph, directed=False)
    least = {part: min(n for n in range(20) if parts[n] == part) for part in parts}
    assert groups == {names[n]: names[least[parts[n]]] for n in range(20)}
