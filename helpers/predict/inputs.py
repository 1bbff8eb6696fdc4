"""Which pictures were meant: files and folders become one list, in which nothing is left out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.dataset.tree import printable


@dataclass(frozen=True)
class Item:
    """A file to look at, or what cannot be looked at and why.

    `name`: as the table shows it. `path`: where it lies. `drawing`: the name of its annotated
    picture, below the folder for these. `reason`, `detail`: empty, or a short name and a sentence.
    """

    name: str
    path: Path
    drawing: str
    reason: str = ""
    detail: str = ""

    @property
    def key(self) -> str:
        """What tells it from every other item; unlike a name it need not be printable."""
        return str(self.path)

    @property
    def state(self) -> list[int]:
        """Size and date of the file; a file with another is another picture."""
        try:
            found = self.path.stat()
        except OSError:
            return []
        return [found.st_size, found.st_mtime_ns]


def list_items(inputs: Sequence[str | Path], leave_out: Sequence[Path] = ()) -> list[Item]:
    """Return every file named by `inputs`, those of folders and their folders in sorted order.

    A file that is named twice is there once. Links to folders are followed, each real folder
    once, and none into `leave_out`, where results are written. What does not exist, cannot be
    opened or is no file is an item with its reason; so is a folder without files. Whether a file
    is a picture its bytes decide, later.
    """
    outputs = {Path(os.path.realpath(path)) for path in leave_out}
    items: dict[str, Item] = {}
    drawings: set[str] = set()

    def add(path: Path, below: Path, reason: str = "", detail: str = "") -> None:
        key = os.path.abspath(path)
        if key in items:
            return
        if not reason and not _exists(path):
            reason, detail = "missing", "The file does not exist."
        elif not reason and not path.is_file():
            reason, detail = "not_a_file", "This is neither a file nor a link to one."
        name = printable(str(path))
        drawing = _unused(printable(os.path.relpath(path, below)), drawings)
        items[key] = Item(name, path, drawing, reason, detail)

    for given in map(Path, inputs):
        if not _is_folder(given):
            add(given, given.parent)
            continue
        hollow, seen, closed = True, set(), []
        for place, folders, names in os.walk(given, followlinks=True, onerror=closed.append):
            real = Path(os.path.realpath(place))
            if real in seen or any(real.is_relative_to(output) for output in outputs):
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            for name in sorted(names):
                if Path(os.path.realpath(Path(place) / name)) not in outputs:
                    hollow = False
                    add(Path(place) / name, given.absolute().parent)
        for error in closed:
            detail = f"The folder cannot be opened: {error.strerror}."
            add(Path(error.filename), given.absolute().parent, "unreadable", detail)
        if hollow and not closed:
            add(given, given.parent, "empty_folder", "The folder holds no file of its own.")
    return list(items.values())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a link that leads to itself
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _unused(name: str, taken: set[str]) -> str:
    """Return `name` with a JPEG's suffix, numbered where that is taken, and take it."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in (".jpg", ".jpeg"):
        stem, suffix = name, ".jpg"
    count, chosen = 1, stem + suffix
    while chosen in taken:
        count += 1
        chosen = f"{stem}-{count}{suffix}"
    taken.add(chosen)
    return chosen
