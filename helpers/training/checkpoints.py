"""Checkpoints of a training: on the disk as a whole, verified when read, one kept in reserve.

A run folder holds `checkpoint.pt` and the one before it, `checkpoint.previous.pt`. Both are
PyTorch's zip archives, whose records carry CRC-32 checksums; they are read with `weights_only`,
so that a file can bring no code along.
"""

import os
import pickle
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.files import replacing, short_path

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError)
_DAMAGE += (zipfile.BadZipFile, pickle.UnpicklingError)


def write_checkpoint(folder: Path, state: dict) -> None:
    """Write `state` as the newest checkpoint of `folder`, and keep the one before it.

    The new file is whole and on the disk before a name changes, so a crash or a power cut at any
    moment leaves at least one good checkpoint. Raises `StudyError` where the disk does not take
    it; the checkpoints that were there stay.
    """
    newest = folder / NEWEST
    with disk_errors(f"The checkpoint {short_path(newest)}"), replacing(newest) as temporary:
        # By a file of Python's own, whose error names the cause.
        with open(temporary, "wb") as file:
            torch.save(state, file)
        sync_file(temporary)
        if newest.exists():
            newest.replace(folder / PREVIOUS)
    sync_folder(folder)


def read_checkpoint(folder: Path, identity: dict, keys: set[str]) -> dict | None:
    """Return the newest good checkpoint of `folder` that was made for `identity`, or None.

    A damaged file, or one that lacks one of `keys`, is named in one sentence and passed over for
    the previous one, which takes its place. A checkpoint of other parameters is not used. What a
    kill left of a file that was being written is removed.
    """
    for pattern in (".checkpoint-*.pt", ".model-*.safetensors"):
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = _load(path)
            if missing := sorted(keys - set(state)):
                raise ValueError(f"it lacks {missing[0]}")
        except _DAMAGE as error:
            reason = str(error).split("\n")[0].rstrip(". ")
            then = "the previous one is tried" if name == NEWEST else "the training starts anew"
            tqdm.write(f"The checkpoint {short_path(path)} is damaged ({reason}): {then}.")
            continue
        if state["identity"] != identity:
            continue
        if name == PREVIOUS:
            path.replace(folder / NEWEST)
        return state
    return None


def drop_previous(folder: Path) -> None:
    """Remove the reserve of a training that has come to its end."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def _load(path: Path) -> dict:
    # torch.load does not compare the checksums that torch.save wrote.
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"the checksum of {broken} does not fit")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a failed write of the file `what` into one sentence, a `StudyError`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch.save reports a full disk by an error of its own, with the system's as its context.
        cause = error if isinstance(error, OSError) else error.__context__ or error
        reason = getattr(cause, "strerror", None) or str(error).split("\n")[0].rstrip(". ")
        raise StudyError(
            f"{what} could not be written ({reason}): the last good state is kept, so make room "
            "and call again to go on."
        ) from error


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Yield a temporary path as `replacing` does, whose bytes are on the disk when it is renamed.

    A full disk is one sentence, see `disk_errors`.
    """
    with disk_errors(f"The file {short_path(path)}"), replacing(path) as temporary:
        yield temporary
        sync_file(temporary)


def sync_file(path: Path) -> None:
    """Bring the bytes of `path` to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def random_state(device: torch.device) -> dict:
    """Return the state of every random generator: torch on CPU and `device`, NumPy, Python."""
    name, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (name, words.tolist(), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def restore_random_state(state: dict, device: torch.device) -> None:
    """Put every random generator back to where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.array(words, np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
