"""Paths relative to the project, and files that are either whole or absent."""

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from helpers.errors import StudyError

ROOT = Path(__file__).resolve().parent.parent
# What a finished run's folder holds, the weights last.
RUN_FILES = (
    "params.json",
    "history.csv",
    "predictions.csv",
    "metrics.json",
    "model.safetensors",
)


def project_path(path: str | Path) -> Path:
    """Return `path` made absolute; a relative one counts from the project's root.

    So a notebook finds the same folder from JupyterLab (which starts in `notebooks/`) and from
    papermill (which starts where it is called).
    """
    return ROOT / Path(path).expanduser()


def short_path(path: str | Path) -> str:
    """Return `path` relative to the project's root where it lies below it, for display."""
    path = project_path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def existing_folder(path: str | Path, holds: str) -> Path:
    """Return the folder `path`, or raise `StudyError` where it is missing or empty.

    `holds` says what was expected in it, e.g. "side-by-side pairs".
    """
    folder = project_path(path)
    if not folder.is_dir():
        raise StudyError(f"The folder {short_path(folder)} ({holds}) does not exist.")
    if not any(folder.iterdir()):
        raise StudyError(f"The folder {short_path(folder)} ({holds}) is empty.")
    return folder


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`.

    A reader sees the old file or the new one, never half of it. The temporary name keeps the
    suffix, because libraries choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write `table` to `path` without its index, whole or not at all.

    A path that ends in `.gz` is compressed; the same table gives the same bytes.
    """
    with replacing(path) as temporary:
        if Path(path).suffix != ".gz":
            table.to_csv(temporary, index=False)
            return
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            table.to_csv(file, index=False)


def write_between(path: str | Path, start: str, end: str, text: str) -> None:
    """Replace what stands between the marks `start` and `end` in the text file `path`.

    Raises `StudyError` where a mark is missing.
    """
    path = project_path(path)
    before, first, rest = path.read_text(encoding="utf-8").partition(start)
    _, second, after = rest.partition(end)
    if not (first and second):
        raise StudyError(f"The file {short_path(path)} lacks the mark {end if first else start}.")
    write_text(path, f"{before}{start}\n\n{text}\n\n{end}{after}")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a table in which `image_id` and `identity` are text (an ID is no number).

    Raises `StudyError` where the file is missing.
    """
    path = project_path(path)
    if not path.is_file():
        raise StudyError(f"The file {short_path(path)} does not exist.")
    return pd.read_csv(path, dtype={"image_id": str, "identity": str})


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
