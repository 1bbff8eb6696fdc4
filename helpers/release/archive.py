"""A release's archive: the same bytes for the same files, and read as if a stranger had sent it.

All files lie in one folder of a gzipped tar, `SHA256SUMS` last, in the format of `sha256sum`.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from helpers.dataset.dataset_files import Tree, unsafe
from helpers.dataset.tree import printable
from helpers.errors import StudyError
from helpers.files import replacing, sha256, short_path

SUMS = "SHA256SUMS"
# What no honest release comes near.
MOST_MEMBERS = 50_000
LARGEST_MEMBER = 2 * 2**30  # bytes; the largest network's weights are 350 MB
LARGEST_RATIO = 20  # unpacked to packed, above SMALL; weights hardly shrink
SMALL = 64 * 2**20  # bytes, unpacked

# Of weights a higher level saves half a percent more, and takes twice as long.
_LEVEL = 1
_STEP = 2**20  # bytes, read at a time
_PADDING = 2**16  # bytes; a tar is filled up with zeros behind its last file
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class BundleError(StudyError):
    """An archive that is not unpacked; `faults` has a sentence on each reason."""

    def __init__(self, faults: list[str]) -> None:
        """Keep the sentences in `faults`."""
        super().__init__(" ".join(faults))
        self.faults = faults


def write_archive(files: Mapping[str, Path | bytes], folder: str, out: Path) -> Path:
    """Write `files` and their checksums below `folder` as the archive `out`, and return it.

    The bytes depend on names and contents alone: no times, no owners, the order is that of names.

    Args:
        files: the content of each, or where it lies, by its path below `folder`.
        folder: the one folder that everything lies in.
        out: a `.tar.gz`, which appears whole or not at all.

    Raises:
        StudyError: where a file cannot be read, or the disk is full.
    """
    sums = {}
    total = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in files.values())
    bar = tqdm(total=total, desc="Packing", unit="B", unit_scale=True, mininterval=1)
    try:
        with replacing(out) as temporary, open(temporary, "wb") as raw, bar:
            packed = gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0)
            with packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name in sorted(files):
                    sums[name] = _add(tar, f"{folder}/{name}", files[name], bar)
                _add(tar, f"{folder}/{SUMS}", checksum_lines(sums).encode(), bar)
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(f"The release {short_path(out)} cannot be written: {reason}.") from error
    return out


def checksum_lines(sums: Mapping[str, str]) -> str:
    """Return SHA-256s by path as `sha256sum` writes and reads them."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


class _Hashed(io.RawIOBase):
    """A file that hashes, and tells the bar, what is read from it."""

    def __init__(self, file: io.BufferedIOBase, bar: tqdm) -> None:
        self.file, self.bar, self.digest = file, bar, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read as the file itself does."""
        data = self.file.read(size)
        self.digest.update(data)
        self.bar.update(len(data))
        return data


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes, bar: tqdm) -> str:
    """Write one file, and return the SHA-256 of what was written."""
    info = tarfile.TarInfo(name)  # its own defaults: time 0, user 0, group 0, mode 644
    if isinstance(content, bytes):
        info.size, file = len(content), io.BytesIO(content)
    else:
        info.size, file = content.stat().st_size, open(content, "rb")  # noqa: SIM115
    with file:
        hashed = _Hashed(file, bar)
        tar.addfile(info, hashed)
    return hashed.digest.hexdigest()


def unpack(archive: str | Path, into: Path) -> Path:
    """Unpack a release into the empty folder `into`, and return the one folder that it holds.

    Raises:
        BundleError: names every member that is no plain file with a path inside that folder, or
            is there twice, or too large. Nothing is written outside `into`.
        StudyError: for a file that is no whole archive, or a full disk.
    """
    path = Path(archive)
    if not path.is_file():
        raise StudyError(f"The bundle {short_path(path.absolute())} does not exist.")
    try:
        with _opened(path) as (tar, stream):
            top = _unpack(tar, into)
            if stream.read(_PADDING).strip(b"\0") or stream.read(1):
                raise BundleError(["Behind the last member there is something more."])
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise StudyError(f"The bundle {path.name} is no whole .tar.gz ({reason}).") from error
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(f"The bundle {path.name} cannot be unpacked: {reason}.") from error
    return into / top


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, "_Bounded"]]:
    size = path.stat().st_size
    bar = tqdm(total=size, desc="Unpacking", unit="B", unit_scale=True, mininterval=1)
    with bar, open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
        stream = _Bounded(unpacked, max(LARGEST_RATIO * size, SMALL), raw, bar)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            yield tar, stream


class _Bounded:
    """What a gzip file holds, as far as `most` bytes: a small file can hold any number."""

    def __init__(self, unpacked: gzip.GzipFile, most: int, raw: io.BufferedReader, bar: tqdm):
        self.unpacked, self.most, self.raw, self.bar = unpacked, most, raw, bar
        self.tell = unpacked.tell

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; a tar that asks for a large header at once is refused."""
        if size > 16 * _STEP:
            raise BundleError([f"A header of {size} bytes is more than any release has."])
        data = self.unpacked.read(size)
        return self._bounded(data)

    def seek(self, place: int) -> int:
        """Go to `place`, as the tar does from one member to the next."""
        return self._bounded(self.unpacked.seek(min(place, self.most + 1)))

    def _bounded(self, answer):
        if self.unpacked.tell() > self.most:
            raise BundleError([f"It unpacks to more than {self.most} bytes, as a bomb does."])
        self.bar.update(self.raw.tell() - self.bar.n)
        return answer


def _unpack(tar: tarfile.TarFile, into: Path) -> str:
    """Write the members; after the first that is refused the others are only looked at."""
    faults, tree, tops = [], Tree(), set()
    for place, member in enumerate(tar):
        if place == MOST_MEMBERS:
            faults.append(f"It has more than {MOST_MEMBERS} members.")
            break
        reason = _refused(member) or (None if tree.add(member.name) else "It is there twice.")
        if reason:
            faults.append(f"Refused {printable(member.name)!r}: {reason}")
            continue
        tops.add(member.name.partition("/")[0])
        if not faults:
            _write(tar, member, into / member.name)
    if not faults and len(tops) != 1:
        faults.append(f"It holds {len(tops)} folders at its top, and a release has one.")
    if faults:
        raise BundleError(faults)
    return tops.pop()


def _refused(member: tarfile.TarInfo) -> str | None:
    """Return why a member is not unpacked, None where it may be."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        return "This is a link, a folder, a device or the like, not a file."
    if reason := unsafe(member.name):
        return reason
    parts = member.name.split("/")
    if len(parts) < 2 or {"", "."} & set(parts):
        return "It does not lie in the release's folder."
    if not 0 <= member.size <= LARGEST_MEMBER:
        return f"{member.size} bytes are more than any file of a release has."
    return None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with tar.extractfile(member) as source, open(path, "xb") as target:
        while left:
            data = source.read(min(_STEP, left))
            if not data:
                raise tarfile.ReadError("it ends too early")
            target.write(data)
            left -= len(data)


def checksum_faults(folder: Path) -> tuple[list[str], int]:
    """Compare the files below `folder` with its `SHA256SUMS`.

    Returns a sentence on each file that is missing, extra or changed, and how many were compared.
    """
    listed, faults = _listed(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found -= {SUMS}
    faults += [f"{name} is in {SUMS} and missing." for name in sorted(set(listed) - found)]
    faults += [f"{name} is not in {SUMS}." for name in sorted(found - set(listed))]
    both = sorted(found & set(listed))
    for name in tqdm(both, desc="Checksums", unit="file", mininterval=1):
        if sha256(folder / name) != listed[name]:
            faults.append(f"{name} is not as {SUMS} says.")
    return faults, len(both)


def _listed(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return the SHA-256 of each path in `SHA256SUMS`, and the lines that are none."""
    path, found, faults = folder / SUMS, {}, []
    if not path.is_file():
        return {}, [f"{SUMS} is missing."]
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, mark, name = line.partition("  ")
        if not mark or len(digest) != 64 or name in found:
            faults.append(f"{SUMS} has a line that is none, or a file twice: {printable(line)!r}.")
        found[name] = digest
    return found, faults
