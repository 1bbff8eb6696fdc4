"""The files below a folder of pairs, each accounted for: a candidate by its name, or rejected."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from helpers.dataset.naming import PICTURE_SUFFIXES, NamingError, PairName, parse_name

# A file of another kind is no failed pair: it is counted apart.
IGNORED = "other_file"
_FOLDS_NAME = re.compile(r"(?:.*[^a-z])?folds\.(?:txt|csv|tsv|json)", re.IGNORECASE)


@dataclass(frozen=True)
class Rejection:
    """A file that is not used: its path below the folder, a short reason and a sentence."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Tree:
    """All that lies below a folder of pairs.

    `candidates`, the paths of each pair by what their names say, in the order of identities;
    `rejections`, all others; `folds_files`, those of the others that are named like a folds file.
    """

    candidates: list[tuple[PairName, list[str]]]
    rejections: list[Rejection]
    folds_files: list[str]

    @property
    def n_found(self) -> int:
        """Files in the tree, and folders that could not be opened."""
        return len(self.rejections) + sum(len(paths) for _, paths in self.candidates)


def walk(folder: Path, leave_out: Path) -> Tree:
    """Sort all files below `folder` by their names.

    Links to folders are followed, each real folder once, and none leads into `leave_out`: outputs
    would become inputs. A folder that cannot be opened is a rejection of its own.
    """
    candidates: dict[PairName, list[str]] = {}
    found, rejections = _files(folder, leave_out)
    for path in found:
        suffix = Path(path).suffix.lower()
        if suffix not in PICTURE_SUFFIXES:
            kind = f"of type '{printable(suffix)}'" if suffix else "without a type"
            detail = f"A file {kind} is no pair of faces."
            rejections.append(Rejection(path, IGNORED, detail))
        elif not _is_file(folder / path):
            detail = "This is neither a file nor a link to one."
            rejections.append(Rejection(path, "unreadable", detail))
        else:
            try:
                candidates.setdefault(parse_name(Path(path).name), []).append(path)
            except NamingError as error:
                rejections.append(Rejection(path, error.reason, printable(str(error))))
    ordered = sorted(candidates.items(), key=lambda item: item[0].identity)
    return Tree(ordered, rejections, [p for p in found if _FOLDS_NAME.fullmatch(Path(p).name)])


def printable(text: str) -> str:
    """Return `text` as one line of UTF-8: a file's name may be any bytes and hold line breaks."""
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _files(folder: Path, leave_out: Path) -> tuple[list[str], list[Rejection]]:
    """Return all that is no folder, as sorted relative paths, and the folders that stay closed."""
    found, closed, seen = [], [], set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=closed.append):
        real = Path(os.path.realpath(place))
        if real in seen or real.is_relative_to(leave_out.resolve()):
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
    rejections = [
        Rejection(
            Path(error.filename).relative_to(folder).as_posix(),
            "unreadable",
            f"The folder cannot be opened: {error.strerror}.",
        )
        for error in closed
    ]
    return sorted(found), rejections


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
