"""Which files belong to SynPAIN, where each goes, and whether one is what it should be."""

import hashlib
import unicodedata
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from helpers.dataset.naming import NamingError, parse_name
from helpers.dataset.tree import Rejection

PAIRS = 5355  # of the whole dataset
PICTURES = (".jpg", ".jpeg", ".png")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")

_TEXTS = {name.lower(): name for name in ("SynPain.txt", "SynPain_folds.txt")}
_FOLDERS = {"images", "videos"}
_LONGEST = 200  # bytes of one part of a path: file systems end at 255, temporary names need some
_BLOCK = 4096  # bytes; a file system hands out whole blocks


@dataclass(frozen=True)
class Wanted:
    """A file that the dataset needs: its `path` below the dataset's folder and its `size` in bytes.

    `algorithm` and `digest` (hexadecimal) say what its bytes must give, None where the source
    knows no digest: `sha256`, `git-sha1` (a git blob's object ID) or `crc32`.
    """

    path: str
    size: int
    algorithm: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Digests:
    """A file's size in bytes, and what its bytes give, by algorithm in hexadecimal."""

    size: int
    values: dict[str, str]

    def agree(self, wanted: Wanted) -> bool:
        """Tell whether these are the bytes of `wanted`."""
        known = wanted.algorithm is None or self.values[wanted.algorithm] == wanted.digest
        return self.size == wanted.size and known


@dataclass
class Tree:
    """The paths taken so far, so that no two files and no file and folder share one.

    Names that differ only in case or in their Unicode form count as one: some disks cannot hold
    both.
    """

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def add(self, path: str) -> bool:
        """Take `path`, or return False where another file stands in its way."""
        key = unicodedata.normalize("NFC", path).casefold()
        parents = {str(parent) for parent in PurePosixPath(key).parents} - {"."}
        if key in self.files | self.folders or parents & self.files:
            return False
        self.files.add(key)
        self.folders |= parents
        return True


def unsafe(name: str) -> str | None:
    """Return why `name` may not become a path below a folder, None where it may."""
    parts = name.split("/")
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        return "The name is absolute."
    if "\\" in name:
        return "The name holds a backslash, which some systems read as a separator."
    if ".." in parts:
        return "The name leads out of its folder by '..'."
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "The name holds control characters or bytes that are no text."
    if any(len(part.encode()) > _LONGEST for part in parts) or len(name.encode()) > 1024:
        return "The name is too long for common file systems."
    return None


def place(name: str) -> str | None:
    """Return where a file goes below the dataset's folder, None where it is not needed.

    Needed are pictures, wherever they lie, and the dataset's two text files, which go to the top.
    Of a picture's folders those from `Images` or `Videos` on are kept, or those below `SynPain`,
    or, where there is none of these names, all: the same tree from the hub, a zip or a folder.
    """
    path = PurePosixPath(name)
    folders = [part.lower() for part in path.parts[:-1]]
    if path.name.startswith("._") or "__macosx" in folders:
        return None
    if path.name.lower() in _TEXTS:
        return _TEXTS[path.name.lower()]
    if path.suffix.lower() not in PICTURES:
        return None
    start = next((index for index, part in enumerate(folders) if part in _FOLDERS), None)
    if start is None:
        start = folders.index("synpain") + 1 if "synpain" in folders else 0
    return "/".join(path.parts[start:])


def not_needed(name: str) -> Rejection:
    """Return the entry of a file for which `place` has no place."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in ARCHIVES:
        detail = "An archive inside is not opened: unpack it, or give it by itself."
        return Rejection(name, "nested_archive", detail)
    if PurePosixPath(name).name.startswith("._") or "__macosx" in name.lower().split("/"):
        return Rejection(name, "system_file", "macOS keeps notes on a file here, not the file.")
    kind = f"of type '{suffix}'" if suffix else "without a type"
    return Rejection(name, "not_needed", f"The study has no use for this file {kind}.")


def is_pair(path: str) -> bool:
    """Tell whether a file is named like a pair of SynPAIN."""
    try:
        parse_name(PurePosixPath(path).name)
    except NamingError:
        return False
    return True


def digests(path: str | Path) -> Digests:
    """Read a file once and return its size and all digests that a `Wanted` can name."""
    size = Path(path).stat().st_size
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
            crc = zlib.crc32(chunk, crc)
    values = {"sha256": sha256.hexdigest(), "git-sha1": blob.hexdigest(), "crc32": f"{crc:08x}"}
    return Digests(size, values)


def disk_need(sizes: list[int]) -> int:
    """Return the bytes that files of these sizes occupy: whole blocks, and one more for each."""
    return sum((-(-size // _BLOCK) + 1) * _BLOCK for size in sizes)


def readable(size: int) -> str:
    """Return a number of bytes for people, in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless there is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
