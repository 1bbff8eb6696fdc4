"""The store, the augmentations against torchvision's, and the batches of an epoch."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, ks_2samp
from torchvision.transforms import ColorJitter, RandomResizedCrop, RandomRotation
from torchvision.transforms import functional as reference

from helpers import faces as store
from helpers.faces import FaceStore, Feed, Views, augment, draw_views, jitter, load_faces
from helpers.files import ROOT, StudyError

ORDER = json.loads((ROOT / "tests/golden/engine.json").read_text())["order"]


def still(crop=(0.0, 0.0, 1.0, 1.0), flip=1.0, degrees=0.0):
    """One view, that of the whole picture unless told."""
    parts = (crop, flip, math.radians(degrees), (1.0,) * 3)
    return Views(*(torch.tensor([part]) for part in parts))


def picture(side=64):
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8)


def pixels_of(views):
    mean, std = (torch.tensor(x)[:, None, None] for x in (store.IMAGENET_MEAN, store.IMAGENET_STD))
    return views * std + mean


def test_views_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    count, shape = 5000, (torch.empty(3, 4000, 4000), store.CROP_SCALE, store.CROP_RATIO)
    views = draw_views(count, seed=1, epoch=3)
    x, y, width, height = views.crop.numpy().T
    ours = [(1 + y - height) / 2, (1 + x - width) / 2, height, width, width / height]
    theirs = np.array([RandomResizedCrop.get_params(*shape) for _ in range(count)]) / 4000
    theirs = [*theirs.T, theirs[:, 3] / theirs[:, 2]]
    degrees, strength = store.ROTATION_DEGREES, store.JITTER
    ours += [views.angle.rad2deg(), *views.colour.T]
    theirs.append([RandomRotation.get_params([-degrees, degrees]) for _ in range(count)])
    ranges = [1 - strength, 1 + strength]
    factors = [ColorJitter.get_params(*[ranges] * 3, None)[1:4] for _ in range(count)]
    theirs += list(np.array(factors, np.float32).T)
    pairs = zip(ours, theirs, strict=True)
    assert min(ks_2samp(mine, reference_).pvalue for mine, reference_ in pairs) > 0.001
    assert binomtest(int((views.flip < 0).sum()), count, 0.5).pvalue > 0.001
    again, *others = (draw_views(count, *key) for key in ((1, 3), (2, 3), (1, 2)))
    assert torch.equal(views.colour, again.colour)
    assert not any(torch.equal(views.crop, other.crop) for other in others)


def test_each_part_of_a_view_is_torchvisions():
    image = picture()
    out = pixels_of(augment(image, still(), 64))
    torch.testing.assert_close(out, image / 255, atol=1e-5, rtol=0)
    for mirrored, degrees in ((1.0, -9.0), (-1.0, 6.0)):
        # rows 6..58 and columns 10..54 of 64
        crop = (0.0, 0.0, 22 / 32, 26 / 32)
        out = pixels_of(augment(image, still(crop, mirrored, degrees), 64))
        theirs = reference.resized_crop(image / 255, 6, 10, 52, 44, [64, 64])
        theirs = reference.hflip(theirs) if mirrored < 0 else theirs
        theirs = reference.rotate(theirs, degrees, reference.InterpolationMode.BILINEAR)
        assert (out - theirs)[:, :, 10:54, 10:54].abs().max() < 0.03
    theirs = reference.resize(image / 255, [32, 32], antialias=True)
    torch.testing.assert_close(pixels_of(store.plain_view(image, 32)), theirs, atol=1e-5, rtol=0)


def test_the_colour_jitter_is_torchvisions_face_by_face(monkeypatch):
    # torchvision rounds red's weight to 0.2989 on tensors; PIL and we have 0.299
    monkeypatch.setattr(store, "_LUMA", (0.2989, 0.587, 0.114))
    pixels = (picture() / 255).repeat(8, 1, 1, 1) * torch.linspace(0.3, 1, 8)[:, None, None, None]
    colour = draw_views(8, seed=3, epoch=1).colour
    out = jitter(pixels.clone(), colour)
    for face, factors, mine in zip(pixels, colour.tolist(), out, strict=True):
        theirs = reference.adjust_brightness(face, factors[0])
        theirs = reference.adjust_contrast(theirs, factors[1])
        theirs = reference.adjust_saturation(theirs, factors[2])
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_mapped_and_in_memory_are_the_same_tensors(crops_dir, monkeypatch):
    in_memory = load_faces(crops_dir, 35)
    monkeypatch.setattr(store, "_IN_MEMORY", 1000)
    assert torch.equal(in_memory.images, load_faces(crops_dir, 35).images)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StudyError, match=r"more than is free in .*: make room, or name"):
        load_faces(crops_dir, 35)


def test_the_pictures_are_the_crops(crops_dir):
    faces = load_faces(crops_dir, 40)
    with Image.open(crops_dir / faces.table["path"][17]) as image:
        assert (faces.images[17].numpy() == np.array(image).transpose(2, 0, 1)).all()


def feed(count=21, batch=8, seed=0, **options):
    """Faces of one colour each, with a lighter left half."""
    images = torch.arange(30, dtype=torch.uint8)[:, None, None, None] * 5 + 60
    images = images.repeat(1, 3, 40, 40)
    images[:, :, :, :20] += 20
    faces = FaceStore(pd.DataFrame(index=range(30)), images, (torch.arange(30) % 3 == 0) + 0.0, "")
    recipe = SimpleNamespace(seed=seed, batch_size=batch, image_size=32)
    return Feed(faces, np.arange(count), recipe, torch.device("cpu"), **options)


def test_an_epoch_has_the_frozen_order_and_each_place_a_view_of_its_own():
    for key, order in ORDER.items():
        seed, epoch = map(int, key.split(","))
        assert feed(seed=seed).order(epoch, 2).ravel().tolist() == order
    mine, views = feed(taught=True), draw_views(16, 0, 2)
    for step, batch in enumerate(mine.batches(2, 2)):
        part = Views(*(found[8 * step : 8 * step + 8] for found in views))
        assert torch.equal(batch.images, augment(mine.images[batch.rows], part, 32))


def test_few_faces_fill_whole_batches_evenly_and_each_time_in_another_view():
    mine = feed(count=5)
    seen = np.bincount(mine.order(1, 7).ravel(), minlength=5)
    assert seen.max() - seen.min() <= 1
    (batch,) = mine.batches(1, 1)
    for row in range(5):
        first, *others = batch.images[torch.from_numpy(batch.rows == row)]
        assert all((first - other).abs().max() > 0.01 for other in others)


def test_half_of_a_batch_is_labelled_and_half_is_the_teachers():
    for batch in feed(20, taught=True, labelled=np.arange(20) < 3).batches(1, 5):
        assert (batch.labelled, batch.taught) == (slice(4), slice(4, None))
        assert (batch.rows[batch.labelled] < 3).all()
        assert (batch.rows[batch.taught] >= 3).all()
