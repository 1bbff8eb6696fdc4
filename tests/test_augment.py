"""The augmentations against torchvision's, and the views' own invariants."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference

from helpers import augment
from helpers.augment import Views, draw_crops, draw_views, jitter, plain_view


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


@pytest.mark.parametrize(
    ("place", "adjust"),
    [
        (0, reference.adjust_brightness),
        (1, reference.adjust_contrast),
        (2, reference.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_colour_jitter_is_torchvisions(place, adjust, factor):
    pixels = picture() / 255
    colour = torch.ones(1, 3)
    colour[0, place] = factor
    torch.testing.assert_close(
        jitter(pixels.clone(), colour), adjust(pixels, factor), atol=2e-3, rtol=0
    )


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
