"""SynPAIN from the hub, or from folders and zips, into one folder: whole or not there.

python -m helpers.dataset.fetch --out data/raw/SynPain [--revision COMMIT] [FOLDER or ZIP ...]

Files gather in a hidden folder beside the dataset's, `.SynPain.partial`; that one is renamed when
every file is there and checked. `fetched.json` in it says what came from where, `fetched.sha256`
is for `sha256sum -c`.
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub.utils import WeakFileLock
from tqdm import tqdm

from helpers.dataset import archives, hub
from helpers.dataset.dataset_files import (
    PAIRS,
    Digests,
    Wanted,
    counted,
    digests,
    disk_need,
    is_pair,
    readable,
)
from helpers.dataset.tree import Rejection
from helpers.errors import StudyError
from helpers.files import project_path, short_path, write_json, write_text

RECORD = "fetched.json"
SUMS = "fetched.sha256"
NEWEST = "main"


def fetch(
    out: str | Path,
    sources: Sequence[str | Path] = (),
    revision: str = NEWEST,
    endpoint: str | None = None,
) -> dict:
    """Bring SynPAIN into the folder `out` and return its record, as written to `fetched.json`.

    Without `sources` it comes from the hub at `revision` (a branch, a tag or a commit; see
    `helpers.dataset.hub`), else from these folders and zips (see `helpers.dataset.archives`).
    Nothing is done where `out` is whole already; where files are gone from it, they are brought
    again. Raises `StudyError` where it does not fit the disk, a source cannot be used, a file is
    not what it should be, or `out` was not made by this function; what was brought is kept for the
    next call.
    """
    out = project_path(out).resolve()  # behind a link to another disk: work on that disk
    staging = out.with_name(f".{out.name}.partial")
    root = staging / hub.FOLDER
    if not revision.strip() or (sources and revision != NEWEST):
        raise StudyError(
            "REVISION names a commit of the hub's dataset: it can be neither empty nor given "
            "together with FROM."
        )
    if (record := _finished(out, revision)) is not None:
        if not root.exists():
            shutil.rmtree(staging, ignore_errors=True)
        return record
    sources = [Path(source).expanduser().absolute() for source in sources]
    _check_apart(sources, out, staging)
    with _alone(staging):
        if (record := _finished(out, revision)) is not None:
            return record
        if out.is_dir():
            _reopen(out, root)
        if sources:
            record, wanted, skipped = _from_files(sources, root)
        else:
            record, wanted, skipped = _from_hub(revision, staging, endpoint)
        sums = _check(wanted, root)
        record |= {
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": len(wanted),
            "pairs": sum(is_pair(file.path) for file in wanted),
            "bytes": sum(file.size for file in wanted),
            "skipped": [asdict(entry) for entry in skipped],
        }
        _keep_only({file.path for file in wanted}, root)
        write_text(root / SUMS, "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)))
        write_json(root / RECORD, record)
        root.rename(out)
        shutil.rmtree(staging, ignore_errors=True)
    _tell(record, skipped, out)
    return record


def _from_hub(
    revision: str, staging: Path, endpoint: str | None
) -> tuple[dict, list[Wanted], list[Rejection]]:
    root = staging / hub.FOLDER
    listing = hub.survey(revision, endpoint)
    print(f"SynPAIN on the hub, commit {listing.commit}.")
    _check_content(listing.wanted, listing.skipped, f"The hub's dataset {hub.REPOSITORY}")
    there = [_size(root / file.path) == file.size for file in listing.wanted]
    _check_disk(listing.wanted, there, root)
    hub.bring(listing, staging, endpoint)
    record = {"source": hub.REPOSITORY, "revision": revision, "commit": listing.commit}
    return record, listing.wanted, listing.skipped


def _from_files(sources: Sequence[Path], root: Path) -> tuple[dict, list[Wanted], list[Rejection]]:
    members, skipped = archives.survey(sources)
    names = ", ".join(f"'{source.name}'" for source in sources)
    print(f"SynPAIN from {names}.")
    _check_content([member.wanted for member in members], skipped, f"What lies in {names}")
    there = [_size(root / member.wanted.path) == member.wanted.size for member in members]
    _check_disk([member.wanted for member in members], there, root)
    unusable = archives.bring(members, root)
    left_out = {entry.path for entry in unusable}
    wanted = [m.wanted for m in members if f"{m.source.name}/{m.name}" not in left_out]
    skipped += unusable
    _check_content(wanted, skipped, f"What lies in {names}")
    record = {"source": [source.name for source in sources], "revision": None, "commit": None}
    return record, wanted, skipped


def _finished(out: Path, revision: str) -> dict | None:
    """Return the record of a folder that is whole, None where there is something to do.

    Raises `StudyError` where the folder is another revision's, or nobody knows what it is.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        listed, size = _listed(out), record["bytes"]
        names = (NEWEST, record["revision"], record["commit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{short_path(out)} is there already, but not from a finished fetch (it has no "
            f"{RECORD} and {SUMS}): use it as it is, or move it away to fetch anew."
        ) from error
    if revision not in names:
        raise StudyError(
            f"{short_path(out)} holds {_origin(record)}: move it away to fetch revision "
            f"'{revision}'."
        )
    sizes = [_size(out / path) for path in listed]
    if None in sizes or sum(sizes) != size:
        return None
    print(
        f"{short_path(out)} is whole: {counted(len(listed), 'file')}, {readable(size)}, from "
        f"{_origin(record)}, fetched {record['fetched']}. Nothing to do."
    )
    return record


def _listed(out: Path) -> list[str]:
    """Return the paths in `fetched.sha256`."""
    lines = (out / SUMS).read_text(encoding="utf-8").splitlines()
    return [line.partition("  ")[2] for line in lines]


def _origin(record: dict) -> str:
    if record["commit"] is not None:
        return f"{record['source']} at commit {record['commit']}"
    return ", ".join(record["source"])


def _reopen(out: Path, root: Path) -> None:
    """Make a folder that lost files an unfinished one again, so that it does not look whole."""
    if not any(out.iterdir()):
        out.rmdir()
        return
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    extra = sorted(found - {*_listed(out), RECORD, SUMS})
    if extra:
        raise StudyError(
            f"Files are gone from {short_path(out)}, and {len(extra)} others that the fetch did "
            f"not bring lie there ('{extra[0]}'): move those away, then call again."
        )
    print(f"Files are gone from {short_path(out)}: they are brought again.")
    if root.exists():
        shutil.rmtree(root)
    out.rename(root)


def _check_content(wanted: list[Wanted], skipped: list[Rejection], what: str) -> None:
    """Raise `StudyError` where there is not one pair."""
    if any(is_pair(file.path) for file in wanted):
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in _reasons(skipped).items()) or "nothing"
    hint = ""
    if any(entry.reason == "nested_archive" for entry in skipped):
        hint = " Unpack the archive inside, or give it by itself."
    raise StudyError(
        f"{what} holds no pair named [ID]_[Pain|NoPain]_[Man|Woman]_[Young|Old].jpg "
        f"({len(wanted)} other pictures and texts; left out: {reasons}).{hint}"
    )


def _check_disk(wanted: list[Wanted], there: list[bool], root: Path) -> None:
    """Say what the dataset needs; raise `StudyError` where the disk has less."""
    missing = [file.size for file, done in zip(wanted, there, strict=True) if not done]
    need = disk_need(missing)
    folder = next(parent for parent in root.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    print(
        f"{counted(len(wanted), 'file')}, {readable(sum(file.size for file in wanted))}; still to "
        f"bring: {counted(len(missing), 'file')}, {readable(sum(missing))}. Needed on the disk: "
        f"{readable(need)}; free: {readable(free)}."
    )
    if need > free:
        raise StudyError(
            f"SynPAIN needs {readable(need)} and the disk of {short_path(root.parent.parent)} has "
            f"{readable(free)} free: free {readable(need - free)}, or name a folder on another "
            "disk by OUT=/path/SynPain (and as raw_dir in the config)."
        )


def _check(wanted: list[Wanted], root: Path) -> dict[str, str]:
    """Read every file back; return its SHA-256 by path, or raise `StudyError` for wrong ones.

    Wrong files are removed, so that the next call brings them again.
    """
    wrong, sums = [], {}
    total = sum(file.size for file in wanted)
    with tqdm(total=total, desc="Checking", unit="B", unit_scale=True, mininterval=2) as bar:
        for file in wanted:
            path = root / file.path
            found = digests(path) if path.is_file() else Digests(-1, {})
            if found.size == file.size and found.agree(file):
                sums[file.path] = found.values["sha256"]
            else:
                wrong.append(file.path)
                path.unlink(missing_ok=True)
            bar.update(file.size)
    if wrong:
        raise StudyError(
            f"{len(wrong)} of {len(wanted)} files are missing or not what they should be "
            f"('{wrong[0]}'): call again, only these are brought."
        )
    return sums


def _keep_only(paths: set[str], root: Path) -> None:
    """Remove what an earlier attempt left below `root` (of another revision, or half written)."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder) / name
            if path.relative_to(root).as_posix() not in paths:
                path.unlink()
        if Path(folder) != root and not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _check_apart(sources: Sequence[Path], out: Path, staging: Path) -> None:
    """Raise `StudyError` where the target is a mount point, or a source holds it or lies in it."""
    if out.is_mount():
        raise StudyError(f"{short_path(out)} is a mount point: name a folder below it by OUT=.")
    for source in (path.resolve() for path in sources):
        for target in (out.resolve(), staging.resolve()):
            if source.is_relative_to(target) or target.is_relative_to(source):
                raise StudyError(
                    f"'{source.name}' and {short_path(out)} must not lie one within the other."
                )


@contextmanager
def _alone(staging: Path) -> Iterator[None]:
    """Hold the unfinished folder against a second fetch at the same time."""
    staging.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(staging / "lock", timeout=0.1))
        except TimeoutError as error:
            raise StudyError(
                f"Another fetch is at work in {short_path(staging)}: wait for it."
            ) from error
        try:
            yield
        finally:
            if staging.is_dir() and [path.name for path in staging.iterdir()] == ["lock"]:
                shutil.rmtree(staging)  # nothing was brought


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _reasons(skipped: Sequence[Rejection]) -> Counter:
    return Counter(entry.reason for entry in skipped)


def _tell(record: dict, skipped: list[Rejection], out: Path) -> None:
    files, pairs = counted(record["files"], "file"), counted(record["pairs"], "pair")
    print(f"{short_path(out)}: {files}, {pairs}, all checked.")
    if record["pairs"] != PAIRS:
        print(f"SynPAIN has {PAIRS:,} pairs: this is not all of it, or not only it.")
    for reason, count in _reasons(skipped).items():
        first = next(entry for entry in skipped if entry.reason == reason)
        print(f"Left out: {count} {reason}, such as '{first.path}'. {first.detail}")
    if skipped:
        print(f"All that was left out is in {short_path(out / RECORD)}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 with one sentence where the user has to do something."""
    parser = argparse.ArgumentParser(prog="python -m helpers.dataset.fetch", description=__doc__)
    parser.add_argument("sources", nargs="*", help="folders or zips; none: the hub")
    parser.add_argument("--out", default="data/raw/SynPain", help="the dataset's folder")
    parser.add_argument("--revision", default=NEWEST, help="the hub's branch, tag or commit")
    given = parser.parse_args(arguments)
    try:
        fetch(given.out, given.sources, given.revision)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The fetch stopped ({error}): what was brought is kept.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: what was brought is kept, the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
