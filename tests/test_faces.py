"""The store of decoded crops, in memory and mapped from disk."""

import os
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.errors import StudyError
from helpers.networks.models import build_teacher
from helpers.training import faces as store
from helpers.training.faces import free_memory, load_faces
from helpers.training.inference import predict


@pytest.fixture
def crops(crops_dir, tmp_path):
    return shutil.copytree(crops_dir, tmp_path / "crops")


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(store, "free_memory", lambda: 1000)


def decoded(crops) -> list[str]:
    return sorted(os.listdir(crops / ".decoded")) if (crops / ".decoded").is_dir() else []


@pytest.mark.parametrize("image_size", [32, 35, 64])
def test_mapped_and_in_memory_are_the_same_tensors(crops, monkeypatch, image_size):
    in_memory = load_faces(crops, image_size)
    assert decoded(crops) == []
    monkeypatch.setattr(store, "free_memory", lambda: 1000)
    for _ in range(2):  # decoded now, found decoded
        mapped = load_faces(crops, image_size)
        assert mapped.images.dtype == torch.uint8
        assert torch.equal(in_memory.images, mapped.images)
        rows = np.array([5, 0, 17])
        assert torch.equal(in_memory.images[rows], mapped.images[rows])
        assert torch.equal(in_memory.labels, mapped.labels)
        assert in_memory.manifest_sha256 == mapped.manifest_sha256
    assert len(decoded(crops)) == 1


def test_one_split_is_its_part_of_all_faces(crops, monkeypatch):
    every = load_faces(crops, 32)
    for memory in (10**9, 1000):
        monkeypatch.setattr(store, "free_memory", lambda free=memory: free)
        for split in ("test", "train"):
            rows, part = every.rows(split), load_faces(crops, 32, split)
            assert torch.equal(part.images, every.images[rows])
            assert torch.equal(part.labels, every.labels[rows])
            ids = every.table["image_id"].iloc[rows]
            assert part.table["image_id"].tolist() == ids.tolist()
            assert part.manifest_sha256 == every.manifest_sha256
    with pytest.raises(StudyError, match="no face of the split 'other'"):
        load_faces(crops, 32, "other")


def test_more_crops_than_are_decoded_at_a_time_keep_their_order(crops, monkeypatch):
    every = load_faces(crops, 32)
    monkeypatch.setattr(store, "_BLOCK", 5)
    assert torch.equal(load_faces(crops, 32).images, every.images)


def test_the_pictures_are_the_crops(crops):
    """At the crops' own size, pixel by pixel."""
    faces = load_faces(crops, 40)
    assert faces.images.shape == (48, 3, 40, 40)
    for row in (0, 17):
        with Image.open(crops / faces.table["path"][row]) as image:
            pixels = np.array(image).transpose(2, 0, 1)
        assert (faces.images[row].numpy() == pixels).all()


def test_the_share_of_memory_decides(crops, monkeypatch):
    size = load_faces(crops, 32).images.numel()
    monkeypatch.setattr(store, "free_memory", lambda: 4 * size)
    load_faces(crops, 32)
    assert decoded(crops) == []
    monkeypatch.setattr(store, "free_memory", lambda: 4 * size - 4)
    load_faces(crops, 32)
    assert len(decoded(crops)) == 1


def test_what_is_decoded_is_not_decoded_again(crops, little_memory, monkeypatch):
    load_faces(crops, 32)

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(store, "_decode", never)
    load_faces(crops, 32)
    with pytest.raises(AssertionError, match="decoded again"):
        load_faces(crops, 64)


def test_a_map_never_changes_its_file(crops, little_memory):
    mapped = load_faces(crops, 32)
    path = crops / ".decoded" / decoded(crops)[0]
    before = path.read_bytes()
    mapped.images[0] = 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("hashed", [True, False])
def test_other_crops_are_decoded_anew_and_the_old_ones_removed(crops, little_memory, hashed):
    """A manifest with hashes, as notebook 02 writes, and one without."""
    manifest = crops / "manifest.csv"
    if hashed:
        lines = manifest.read_text().splitlines()
        lines = [line + (",sha256" if not row else f",{row}") for row, line in enumerate(lines)]
        manifest.write_text("\n".join(lines) + "\n")
    first = load_faces(crops, 32)
    name = decoded(crops)
    path = crops / first.table["path"][0]
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(path)
    if hashed:
        manifest.write_text(manifest.read_text().replace(",1\n", ",1000\n", 1))
    else:
        os.utime(path, ns=(1, 1))
    second = load_faces(crops, 32)
    assert (second.images[0] == 7).all()
    assert torch.equal(first.images[1:], second.images[1:])
    assert len(decoded(crops)) == 1
    assert decoded(crops) != name


def test_a_file_that_was_cut_off_is_made_anew(crops, little_memory):
    whole = load_faces(crops, 32).images.clone()
    path = crops / ".decoded" / decoded(crops)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(load_faces(crops, 32).images, whole)


def test_a_crop_that_cannot_be_read_leaves_no_file(crops, little_memory):
    broken = next(crops.glob("*_right.png"))
    broken.write_bytes(b"no picture")
    with pytest.raises(StudyError, match=rf"{broken.name} cannot be read"):
        load_faces(crops, 32)
    assert decoded(crops) == []


def test_a_full_disk_is_one_sentence(crops, little_memory):
    """A limit on the size of a file is what a test can have of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StudyError, match=r"decoded/.* could not be written \(File too"):
            load_faces(crops, 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert decoded(crops) == []


def test_free_memory_is_what_psutil_says_or_the_containers_share():
    known = pytest.importorskip("psutil").virtual_memory()
    assert 0 < free_memory() <= known.total
    assert free_memory() <= 1.2 * known.available


def test_rows_are_predicted_as_if_taken_out_first(crops):
    faces = load_faces(crops, 32)
    model, _ = build_teacher("resnet50", "scratch", 32)
    rows = faces.rows("validation")[::-1].copy()
    by_rows = predict(model, faces.images, 32, torch.float32, rows)
    assert torch.equal(by_rows, predict(model, faces.images[rows], 32, torch.float32))
    assert by_rows.shape == (len(rows), 1)
