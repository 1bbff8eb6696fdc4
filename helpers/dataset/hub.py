"""The dataset from the Hugging Face hub, at one commit."""

import errno
import glob
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects
from tqdm import tqdm

from helpers.dataset.dataset_files import Tree, Wanted, not_needed, unsafe
from helpers.dataset.tree import Rejection
from helpers.errors import StudyError

REPOSITORY = "TaatiTeam/SynPAIN"
FOLDER = "SynPain"  # the dataset's folder within the repository
PATTERNS = [
    *(f"{FOLDER}/Images/*.{kind}" for kind in ("[jJ][pP][gG]", "[jJ][pP][eE][gG]", "[pP][nN][gG]")),
    *(f"{FOLDER}/Videos/*.{kind}" for kind in ("[jJ][pP][gG]", "[jJ][pP][eE][gG]", "[pP][nN][gG]")),
    *(f"{FOLDER}/SynPain.txt", f"{FOLDER}/SynPain_folds.txt"),
]

_TIMEOUT = 30  # seconds, to an answer of the hub's first page
_WAYS_OUT = (
    "try again later (what was fetched is kept), or name a folder or zips that you have: "
    'make synpain-data FROM="/path/a.zip /path/b.zip"'
)
# Besides HTTP's errors: a lost disk or line, and answers that are no hub's (a login page's, say).
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Listing:
    """What the hub holds at one commit: files to fetch and files to leave, with the reasons."""

    commit: str
    wanted: list[Wanted]
    skipped: list[Rejection]


def survey(revision: str, endpoint: str | None = None) -> Listing:
    """Ask the hub which files the dataset has at `revision` (a branch, a tag or a commit).

    `endpoint` is the hub's address, None for the environment's `HF_ENDPOINT` or the public hub.
    Raises `StudyError` where the hub cannot be reached or does not know the revision.
    """
    api = HfApi(endpoint=endpoint)
    try:
        info = api.dataset_info(REPOSITORY, revision=revision, timeout=_TIMEOUT)
        if info.sha is None:
            raise ValueError("the answer names no commit")
        entries = api.list_repo_tree(
            REPOSITORY, repo_type="dataset", revision=info.sha, recursive=True
        )
        files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    except RevisionNotFoundError as error:
        raise StudyError(
            f"The hub's dataset {REPOSITORY} has no revision '{revision}': leave REVISION out for "
            "the newest, or name a commit of its history."
        ) from error
    except _FAILURES as error:
        raise _unreachable(error, endpoint) from error

    chosen = set(filter_repo_objects(files, allow_patterns=PATTERNS))
    wanted, skipped, tree = [], [], Tree()
    for path, entry in sorted(files.items()):
        detail = unsafe(path)
        if detail is not None:
            skipped.append(Rejection(path, "unsafe_name", detail))
        elif path not in chosen:
            skipped.append(not_needed(path))
        elif not tree.add(path):
            detail = "Another file's name differs from this one in case only."
            skipped.append(Rejection(path, "duplicate_name", detail))
        else:
            wanted.append(_wanted(path, entry))
    return Listing(info.sha, wanted, skipped)


def bring(listing: Listing, staging: Path, endpoint: str | None = None) -> None:
    """Download the wanted files of `listing` into `staging`/SynPain.

    huggingface_hub resumes a file after a broken line, keeps whole files for the next call, and
    fetches none that it has. Raises `StudyError` where the download does not come to its end.
    """
    leave = [glob.escape(skipped.path) for skipped in listing.skipped if _matches(skipped.path)]
    bars = []

    class Bar(tqdm):
        """A plain bar; snapshot_download leaves some open."""

        def __init__(self, *args, **settings):
            super().__init__(*args, **settings | {"mininterval": 1})
            bars.append(self)

    try:
        snapshot_download(
            REPOSITORY,
            repo_type="dataset",
            revision=listing.commit,
            local_dir=staging,
            allow_patterns=PATTERNS,
            ignore_patterns=leave,
            tqdm_class=Bar,
            endpoint=endpoint,
        )
    except _FAILURES as error:
        raise _unreachable(error, endpoint) from error
    finally:
        for bar in reversed(bars):
            bar.close()


def _matches(path: str) -> bool:
    return any(filter_repo_objects([path], allow_patterns=PATTERNS))


def _wanted(path: str, entry: RepoFile) -> Wanted:
    """Return what is known of a file: the hub keeps large ones by SHA-256, small ones as blobs."""
    path = path.removeprefix(f"{FOLDER}/")
    if entry.lfs is not None:
        return Wanted(path, entry.lfs.size, "sha256", entry.lfs.sha256)
    return Wanted(path, entry.size, "git-sha1", entry.blob_id)


def _unreachable(error: Exception, endpoint: str | None) -> StudyError:
    """Return the one sentence for whatever kept the hub from answering."""
    address = endpoint or constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return StudyError(
            f"The hub's dataset {REPOSITORY} asks for a login: accept its terms on {address}, run "
            "`.venv/bin/hf auth login`, and call again."
        )
    if isinstance(error, RepositoryNotFoundError):
        return StudyError(
            f"The hub at {address} has no dataset {REPOSITORY} that may be read without a login: "
            + _WAYS_OUT
            + "."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StudyError(
            "The disk became full: make room and call again (what was fetched is kept)."
        )
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    reason = str(first).strip().partition("\n")[0].rstrip(".:")
    why = f"{type(first).__name__}: {reason}" if reason else type(first).__name__
    # hf_xet, which talks to another host than the hub, says RuntimeError for all that goes wrong
    xet = ", or without that storage by HF_HUB_DISABLE_XET=1" if type(error) is RuntimeError else ""
    return StudyError(f"The hub at {address} could not be used ({why}): {_WAYS_OUT}{xet}.")
