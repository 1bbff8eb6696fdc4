"""The dataset from folders and zip files that the user has; what is in a zip is not trusted."""

import copy
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from helpers.dataset.dataset_files import Tree, Wanted, digests, not_needed, place, unsafe
from helpers.dataset.tree import Rejection
from helpers.errors import StudyError
from helpers.files import replacing

# What no honest zip of pictures and short tables comes near.
MOST_MEMBERS = 100_000
LARGEST_MEMBER = 256 * 2**20  # bytes, unpacked
LARGEST_RATIO = 200  # unpacked to packed, of a member above SMALL
SMALL = 10 * 2**20  # bytes, unpacked

_SYMBOLIC_LINK = 0x400  # FILE_ATTRIBUTE_REPARSE_POINT, in a zip made under Windows
_STEP = 2**18  # bytes, unpacked at a time
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


class MemberError(Exception):
    """A file of a source that is left out; `reason` is its short name, the text one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the short `reason` beside the sentence `detail`."""
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Member:
    """A file to bring: where it lies (`source`, `name`), and what it is to become.

    `info` is its entry in the zip `source`, None where `source` is a folder.
    """

    wanted: Wanted
    source: Path
    name: str
    info: zipfile.ZipInfo | None


def survey(sources: Sequence[str | Path]) -> tuple[list[Member], list[Rejection]]:
    """Return the needed files of folders and zips, and what else lies there with the reason.

    Nothing is unpacked. Of several files for one place the first counts. Raises `StudyError` for
    a source that is neither a folder nor a whole zip, and for a zip that was built to harm.
    """
    members, skipped, tree = [], [], Tree()
    for source in map(Path, sources):
        for name, found in _folder(source) if source.is_dir() else _zip(source):
            label = f"{source.name}/{_text(name)}"
            if isinstance(found, MemberError):
                skipped.append(Rejection(label, found.reason, str(found)))
                continue
            path = place(name)
            if path is None:
                skipped.append(not_needed(label))
            elif not tree.add(path):
                detail = f"Another file is already to lie at '{path}'."
                skipped.append(Rejection(label, "duplicate_name", detail))
            elif isinstance(found, zipfile.ZipInfo):
                wanted = Wanted(path, found.file_size, "crc32", f"{found.CRC:08x}")
                members.append(Member(wanted, source, name, found))
            else:
                members.append(Member(Wanted(path, found), source, name, None))
    return members, skipped


def bring(members: Sequence[Member], root: Path) -> list[Rejection]:
    """Write the members below `root` and return those that turned out unusable.

    Each file appears whole or not at all; one that is there already, with the right bytes, is
    kept. Raises `StudyError` where the disk is full.
    """
    skipped = []
    total = sum(member.wanted.size for member in members)
    bar = tqdm(total=total, desc="Bringing files", unit="B", unit_scale=True, mininterval=2)
    with bar, ExitStack() as stack:
        zips: dict[Path, zipfile.ZipFile] = {}
        for member in members:
            if member.info is not None and member.source not in zips:
                zips[member.source] = stack.enter_context(zipfile.ZipFile(member.source))
            target = root / member.wanted.path
            try:
                if not is_there(member, target):
                    target.unlink(missing_ok=True)
                    _write(member, zips.get(member.source), target)
            except MemberError as error:
                label = f"{member.source.name}/{member.name}"
                skipped.append(Rejection(label, error.reason, str(error)))
            bar.update(member.wanted.size)
    return skipped


def is_there(member: Member, target: Path) -> bool:
    """Tell whether `target` already holds the member's bytes.

    A folder's files carry no digest: as for rsync, size and time of change speak for them.
    """
    if not target.is_file() or target.stat().st_size != member.wanted.size:
        return False
    if member.info is not None:
        return digests(target).agree(member.wanted)
    source = member.source / member.name
    return source.is_file() and source.stat().st_mtime_ns == target.stat().st_mtime_ns


def _folder(folder: Path) -> Iterator[tuple[str, int | MemberError]]:
    """Yield the name and the size of each file below `folder`, or why it cannot be used.

    Links are followed (the hub's own cache is made of them), each real folder once.
    """
    seen = set()
    for place_, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(place_)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in sorted(names):
            path = Path(place_) / file
            name = path.relative_to(folder).as_posix()
            detail = unsafe(name)
            if detail is not None:
                yield name, MemberError("unsafe_name", detail)
            elif not path.is_file():
                yield name, MemberError("special_file", "This is neither a file nor a link to one.")
            elif not os.access(path, os.R_OK):
                yield name, MemberError("unreadable", "The file may not be read.")
            else:
                yield name, path.stat().st_size


def _zip(path: Path) -> Iterator[tuple[str, zipfile.ZipInfo | MemberError]]:
    """Yield the name and the entry of each file in a zip, or why it cannot be used."""
    if not path.is_file():
        raise StudyError(f"'{path}' is neither a folder nor a file.")
    try:
        with zipfile.ZipFile(path) as archive:
            infos, end = archive.infolist(), archive.start_dir
    except _BROKEN as error:
        raise StudyError(
            f"'{path.name}' is no whole zip file ({error}): download it again."
        ) from error
    _check_layout(path, infos, end)
    for info in infos:
        # zipfile cuts a name at a zero byte; the name as it was written is the one to judge
        detail = unsafe(info.orig_filename)
        if detail is not None:
            yield info.orig_filename, MemberError("unsafe_name", detail)
        elif not info.is_dir():
            error = _member_error(info)
            yield info.filename, info if error is None else error


def _check_layout(path: Path, infos: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse a zip with too many members, or with members that share their bytes."""
    if len(infos) > MOST_MEMBERS:
        raise StudyError(
            f"'{path.name}' is refused: it lists {len(infos)} members, SynPAIN has a few thousand."
        )
    following = end
    for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + zipfile.sizeFileHeader + info.compress_size > following:
            raise StudyError(
                f"'{path.name}' is refused: its member '{_text(info.filename)}' lies over the next "
                "one, as in a zip bomb."
            )
        following = info.header_offset


def _member_error(info: zipfile.ZipInfo) -> MemberError | None:
    """Return why an entry may not be unpacked, judged by what the zip's directory says of it."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.external_attr & _SYMBOLIC_LINK:
        return MemberError("special_file", "This is a link, a device or the like, not a file.")
    if info.flag_bits & 0x1:
        return MemberError("encrypted", "The member is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # bzip2 and LZMA members could be unpacked, but not in steps of bounded size
        detail = f"The member is packed by method {info.compress_type}: only Deflate is unpacked."
        return MemberError("unsupported_compression", detail)
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > LARGEST_MEMBER or (info.file_size > SMALL and ratio > LARGEST_RATIO):
        detail = f"{info.compress_size} bytes that unpack to {info.file_size} are a zip bomb."
        return MemberError("bomb", detail)
    return None


def _write(member: Member, archive: zipfile.ZipFile | None, target: Path) -> None:
    """Write one member to `target`, whole or not at all, or raise `MemberError`."""
    try:
        with replacing(target) as temporary:
            if archive is not None:
                _unpack(member, archive, temporary)
            else:
                _copy(member, temporary)
    except OSError as error:
        raise StudyError(
            f"Writing '{target}' failed ({error.strerror or error}): what was brought is kept, "
            "the same command goes on."
        ) from error


def _copy(member: Member, temporary: Path) -> None:
    source = member.source / member.name
    try:
        before = source.stat()
        with open(source, "rb") as read:
            read.peek(1)
    except OSError as error:
        detail = f"The file cannot be read: {error.strerror}."
        raise MemberError("unreadable", detail) from error
    shutil.copyfile(source, temporary)
    os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
    if temporary.stat().st_size != member.wanted.size:
        raise MemberError("damaged", "The file changed while it was copied.")


def _unpack(member: Member, archive: zipfile.ZipFile, temporary: Path) -> None:
    # zipfile cuts a member at its declared size; with more to go it shows what lies beyond
    info = copy.copy(member.info)
    info.file_size += 2 * _STEP
    written = 0
    with open(temporary, "wb") as file:
        for chunk in _chunks(archive, info):
            written += len(chunk)
            if written > member.wanted.size:
                detail = f"The member declares {member.wanted.size} bytes and holds more."
                raise MemberError("larger_than_declared", detail)
            file.write(chunk)
    if written < member.wanted.size:
        detail = f"The member declares {member.wanted.size} bytes and holds {written}."
        raise MemberError("damaged", detail)


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield a member's bytes; whatever is wrong with them is a `MemberError`."""
    try:
        with archive.open(info) as stream:
            while chunk := stream.read(_STEP):
                yield chunk
    except _BROKEN as error:
        raise MemberError("damaged", f"The member cannot be unpacked: {error}.") from error


def _text(name: str) -> str:
    """Return a name that can be written as UTF-8 on one line."""
    safe = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
