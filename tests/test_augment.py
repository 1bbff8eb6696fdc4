"""The augmentations against torchvision's, and the views' own invariants."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, ks_2samp, spearmanr
from torchvision.transforms import ColorJitter, RandomResizedCrop, RandomRotation
from torchvision.transforms import functional as reference

from helpers.training import augment
from helpers.training.augment import Views, draw_crops, draw_views, jitter, plain_view


def still_views(count: int, **changes) -> Views:
    parts = {
        "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1),
        "flip": torch.ones(count),
        "angle": torch.zeros(count),
        "colour": torch.ones(count, 3),
    }
    return Views(**(parts | changes))


def picture(side: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8)


def denormalise(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (
        torch.tensor(x)[None, :, None, None] for x in (augment.IMAGENET_MEAN, augment.IMAGENET_STD)
    )
    return pixels * std + mean


def test_crops_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    image, count = torch.empty(3, 4000, 4000), 20000
    theirs = (
        np.array(
            [
                RandomResizedCrop.get_params(image, augment.CROP_SCALE, augment.CROP_RATIO)
                for _ in range(count)
            ]
        )
        / 4000
    )
    x, y, width, height = draw_crops(count, np.random.default_rng(0)).T
    ours = [(1 + y - height) / 2, (1 + x - width) / 2, height, width, width / height]
    theirs = np.column_stack([theirs, theirs[:, 3] / theirs[:, 2]])
    for mine, reference_column in zip(ours, theirs.T, strict=True):
        assert ks_2samp(mine, reference_column).pvalue > 0.001


def test_a_crop_that_never_fits_is_the_whole_picture_as_torchvisions(monkeypatch):
    monkeypatch.setattr(augment, "CROP_SCALE", (0.99, 1.0))
    monkeypatch.setattr(augment, "CROP_RATIO", (0.5, 2.0))
    crops = draw_crops(300, np.random.default_rng(0))
    torch.manual_seed(0)
    image = torch.empty(3, 4000, 4000)
    theirs = [RandomResizedCrop.get_params(image, (0.99, 1.0), (0.5, 2.0)) for _ in range(300)]
    whole = (crops == [0, 0, 1, 1]).all(1).mean()
    assert whole > 0.5
    assert whole == pytest.approx(np.mean([crop == (0, 0, 4000, 4000) for crop in theirs]), abs=0.1)


def test_angles_flips_and_colours_are_distributed_as_torchvisions():
    torch.manual_seed(1)
    count, degrees = 20000, [-augment.ROTATION_DEGREES, augment.ROTATION_DEGREES]
    views = draw_views(count, seed=1, epoch=3)
    angles = [RandomRotation.get_params(degrees) for _ in range(count)]
    assert ks_2samp(views.angle.rad2deg(), angles).pvalue > 0.001
    theirs = ColorJitter(augment.JITTER, augment.JITTER, augment.JITTER)
    ranges = (theirs.brightness, theirs.contrast, theirs.saturation, None)
    factors = np.array([ColorJitter.get_params(*ranges)[1:4] for _ in range(count)], np.float32)
    for mine, reference_column in zip(views.colour.T, factors.T, strict=True):
        assert ks_2samp(mine, reference_column).pvalue > 0.001
    assert binomtest(int((views.flip < 0).sum()), count, 0.5).pvalue > 0.001


def test_the_parts_of_a_view_are_independent_of_one_another():
    views = draw_views(20000, seed=2, epoch=1)
    # place against size would depend on one another, as in torchvision
    parts = [views.crop[:, 2:].prod(1), views.flip, views.angle, *views.colour.T]
    pvalues = spearmanr(torch.stack(parts, 1)).pvalue
    assert pvalues[~np.eye(len(parts), dtype=bool)].min() > 0.001


def test_views_stay_inside_and_have_the_protocols_ranges():
    views = draw_views(5000, seed=0, epoch=1)
    x, y, width, height = views.crop.unbind(1)
    assert ((x.abs() + width) <= 1 + 1e-6).all()
    assert ((y.abs() + height) <= 1 + 1e-6).all()
    assert 0.45 < (views.flip < 0).float().mean() < 0.55
    degrees = views.angle.rad2deg()
    assert degrees.abs().max() <= 10
    assert degrees.std() == pytest.approx(20 / 12**0.5, rel=0.05)


def test_views_depend_on_seed_and_epoch_alone():
    first = draw_views(50, seed=1, epoch=2)
    torch.testing.assert_close(first.crop, draw_views(50, seed=1, epoch=2).crop)
    for other in (draw_views(50, seed=2, epoch=2), draw_views(50, seed=1, epoch=3)):
        assert not torch.equal(first.crop, other.crop)
        assert not torch.equal(first.colour, other.colour)


def test_no_change_gives_the_picture_itself():
    image = picture()
    out = denormalise(augment.augment(image, still_views(1), 64))
    torch.testing.assert_close(out, image / 255, atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right():
    image = picture()
    out = denormalise(augment.augment(image, still_views(1, flip=torch.tensor([-1.0])), 64))
    torch.testing.assert_close(out, image.flip(3) / 255, atol=1e-5, rtol=0)


def test_a_rotation_is_torchvisions():
    image = picture()
    views = still_views(1, angle=torch.tensor([8.0]).deg2rad())
    out = denormalise(augment.augment(image, views, 64))
    theirs = reference.rotate(image, 8.0, reference.InterpolationMode.BILINEAR) / 255
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    assert (out - theirs)[inside].abs().max() < 0.02


def test_a_crop_is_torchvisions():
    image = picture()
    # rows 8..56 and columns 4..52 of 64: centre (28, 32), half side 24
    views = still_views(1, crop=torch.tensor([[28 / 32 - 1, 0.0, 0.75, 0.75]]))
    out = denormalise(augment.augment(image, views, 48))
    theirs = reference.resized_crop(image, 8, 4, 48, 48, [48, 48]) / 255
    assert (out - theirs).abs().max() < 0.01


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
@pytest.mark.parametrize("degrees", [-9.0, 6.0])
def test_crop_flip_and_rotation_follow_one_another_as_torchvisions(mirrored, degrees):
    image = picture()
    # rows 6..58 and columns 10..54 of 64: centre (32, 32), half sides 26 and 22
    views = still_views(
        1,
        crop=torch.tensor([[0.0, 0.0, 22 / 32, 26 / 32]]),
        flip=torch.tensor([mirrored]),
        angle=torch.tensor([degrees]).deg2rad(),
    )
    out = denormalise(augment.augment(image, views, 64))
    theirs = reference.resized_crop(image / 255, 6, 10, 52, 44, [64, 64])
    theirs = reference.hflip(theirs) if mirrored < 0 else theirs
    theirs = reference.rotate(theirs, degrees, reference.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(10, 54), slice(10, 54))
    difference = (out - theirs)[inside].abs()
    assert difference.max() < 0.03
    assert difference.mean() < 0.005


OPERATIONS = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
)


def adjusted(pixels: torch.Tensor, colour: torch.Tensor, order=(0, 1, 2)) -> torch.Tensor:
    """torchvision's own operations on (3, H, W), in `order`."""
    for place in order:
        pixels = OPERATIONS[place](pixels, colour[place].item())
    return pixels


@pytest.fixture
def torchvisions_grey(monkeypatch):
    """torchvision rounds red's weight to 0.2989 on tensors; PIL and we have 0.299."""
    monkeypatch.setattr(augment, "_LUMA", (0.2989, 0.587, 0.114))


@pytest.mark.usefixtures("torchvisions_grey")
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_each_part_of_the_colour_jitter_is_torchvisions(place, factor):
    pixels = picture() / 255
    colour = torch.ones(1, 3)
    colour[0, place] = factor
    theirs = OPERATIONS[place](pixels, factor)
    torch.testing.assert_close(jitter(pixels.clone(), colour), theirs, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("torchvisions_grey")
def test_the_whole_colour_jitter_is_torchvisions_face_by_face():
    pixels = (picture() / 255).repeat(8, 1, 1, 1) * torch.linspace(0.3, 1, 8)[:, None, None, None]
    colour = draw_views(8, seed=3, epoch=1).colour
    theirs = torch.stack([adjusted(*pair) for pair in zip(pixels, colour, strict=True)])
    torch.testing.assert_close(jitter(pixels.clone(), colour), theirs, atol=1e-6, rtol=0)


def test_the_colour_jitter_is_that_of_pictures_in_8_bits():
    """torchvision on PIL pictures: equal, but that PIL cuts off the fraction after each part."""
    image = picture()
    for colour in draw_views(8, seed=4, epoch=1).colour:
        theirs = Image.fromarray(image[0].permute(1, 2, 0).numpy())
        theirs = reference.to_tensor(adjusted(theirs, colour))
        out = jitter(image / 255, colour[None])[0]
        assert (out - theirs).abs().max() < 3.5 / 255


def test_the_order_of_the_colour_jitter_matters_only_where_values_are_clipped():
    pixels = picture()[0] / 255 * 0.5 + 0.2  # no factor within 10 % reaches 0 or 1
    for colour in draw_views(4, seed=5, epoch=1).colour:
        out = jitter(pixels[None].clone(), colour[None])[0]
        for order in permutations(range(3)):
            assert (adjusted(pixels, colour, order) - out).abs().max() < 1e-4


def test_a_batch_that_goes_through_in_parts_gives_the_same_bits(monkeypatch):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (7, 3, 40, 40), dtype=np.uint8))
    views = draw_views(7, seed=0, epoch=1)
    whole = augment.augment(images, views, 32)
    monkeypatch.setattr(augment, "_CACHED_VALUES", 1)
    torch.testing.assert_close(augment.augment(images, views, 32), whole, atol=0, rtol=0)


def test_the_plain_view_is_the_whole_picture():
    image = picture()
    out = denormalise(plain_view(image, 32))
    theirs = reference.resize(image / 255, [32, 32], antialias=True)
    torch.testing.assert_close(out, theirs, atol=1e-5, rtol=0)


def test_faces_of_one_batch_get_views_of_their_own():
    image = picture().repeat(4, 1, 1, 1)
    out = augment.augment(image, draw_views(4, seed=0, epoch=1), 32)
    for other in out[1:]:
        assert not torch.allclose(out[0], other, atol=0.05)


def test_views_are_weakened_towards_the_plain_picture_and_stay_flipped():
    images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
    views = draw_views(6, 0, 1)
    none, half, whole = (views.weakened(strength) for strength in (0.0, 0.5, 1.0))
    plain = plain_view(images, 40)
    expected = torch.where(views.flip[:, None, None, None] < 0, plain.flip(3), plain)
    assert torch.allclose(augment.augment(images, none, 40), expected, atol=1e-4)
    assert torch.equal(augment.augment(images, whole, 40), augment.augment(images, views, 40))
    assert torch.allclose(half.angle, views.angle / 2)
    assert torch.allclose(half.colour - 1, (views.colour - 1) / 2)
