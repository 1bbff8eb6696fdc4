"""Paths relative to the project, files that are whole or absent, errors that are one sentence."""

import errno
import gzip
import hashlib
import json
import os
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent


class StudyError(Exception):
    """Something that a user can mend: the message is one sentence, with the thing and the way out.

    IPython shows the sentence alone.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def project_path(path: str | Path) -> Path:
    """Return `path` made absolute; a relative one counts from the project's root.

    So a notebook finds the same folder from JupyterLab (which starts in `notebooks/`) and from
    papermill (which starts where it is called).
    """
    return ROOT / Path(path).expanduser()


def short_path(path: str | Path) -> str:
    """Return `path` relative to the project's root where it lies below it, for display."""
    path = project_path(path)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def existing_folder(path: str | Path, holds: str) -> Path:
    """Return the folder `path`, or raise `StudyError` where it is missing or empty.

    `holds` says what was expected in it, e.g. "side-by-side pairs".
    """
    folder = project_path(path)
    if not folder.is_dir():
        raise StudyError(f"The folder {folder} ({holds}) does not exist.")
    if not any(folder.iterdir()):
        raise StudyError(f"The folder {short_path(folder)} ({holds}) is empty.")
    return folder


@contextmanager
def command(name: str, about: str) -> Iterator[ArgumentParser]:
    """Yield the parser of `python -m helpers.<name>`; what a user can mend ends it in one sentence.

    A word that the terminal's encoding lacks is printed as an escape.
    """
    sys.stdout.reconfigure(errors="backslashreplace")
    form = {"description": about, "formatter_class": RawDescriptionHelpFormatter}
    try:
        yield ArgumentParser(f"python -m helpers.{name}", **form)
    except (StudyError, OSError, KeyboardInterrupt) as error:
        raise SystemExit(str(error) or "Stopped: the same command goes on.") from None


@contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`.

    A reader sees the old file or the new one, never half of it. The temporary name keeps the
    suffix, because libraries choose the format by it. `durable`: the bytes are on the disk before
    the name changes, so that a power cut leaves one of both. Raises `StudyError` where the disk is
    full; what was there stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        said = f"The disk is full, so {short_path(path)} could not be written"
        way = "what was there is kept: make room and call again"
        raise StudyError(f"{said}; {way}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> dict:
    """Read a JSON file; raise `StudyError` where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"The file {short_path(path)} does not exist.") from None
    except ValueError as error:
        raise StudyError(f"The file {short_path(path)} is not JSON: {error}.") from error


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write `table` to `path` without its index, whole or not at all.

    A path that ends in `.gz` is compressed; the same table gives the same bytes.
    """
    text = table.to_csv(index=False, lineterminator="\n").encode()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text, mtime=0) if temporary.suffix == ".gz" else text)


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a table in which `image_id` and `identity` are text (an ID is no number).

    Raises `StudyError` where the file is missing or holds no table.
    """
    path = project_path(path)
    if not path.is_file():
        raise StudyError(f"The file {short_path(path)} does not exist.")
    try:
        return pd.read_csv(path, dtype={"image_id": str, "identity": str})
    except (ValueError, OSError, EOFError) as error:
        raise StudyError(f"The file {short_path(path)} is not a table: {error}.") from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def side_by_side(function: Callable, items: Sequence, description: str, unit: str) -> Iterator:
    """Yield `function(item)` for each item, in order, computed by up to four threads, with a bar.

    Threads suffice where Pillow decodes and encodes: it lets go of Python's lock. An error in
    `function` ends the run at its item; what was not begun by then is not begun.
    """
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        results = pool.map(function, items)
        yield from tqdm(results, description, len(items), unit=unit, mininterval=2, delay=2)
    finally:
        pool.shutdown(cancel_futures=True)
