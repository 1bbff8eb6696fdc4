"""SynPAIN from the Hugging Face hub, or from folders and zip files, into one folder.

python -m helpers.fetch --out data/raw/SynPain [--revision COMMIT] [-- FOLDER_OR_ZIP ...]

Files gather in a hidden folder beside the dataset's, which is renamed when all are there: the
dataset is whole or not there, and a call that was broken off goes on. `fetched.json` in it says
what came from where.
"""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HTTPError
from tqdm import tqdm

from helpers.files import StudyError, command, short_path, write_json
from helpers.naming import PICTURE_SUFFIXES

REPOSITORY, FOLDER = "TaatiTeam/SynPAIN", "SynPain"  # the dataset, and its folder there
_KEPT = (*PICTURE_SUFFIXES, ".mp4", ".txt")


def fetch(out: str | Path, sources: Sequence[str | Path] = (), revision: str = "main") -> dict:
    """Bring SynPAIN into the folder `out` and return its record, as written to `fetched.json`.

    Without `sources` it comes from the hub at `revision` (a branch, a tag or a commit), else from
    these folders and zips, each into a folder of its own: a folder whole, of a zip pictures, videos
    and texts. Raises `StudyError` where `out` is there already, a source cannot be used, or no
    picture came.
    """
    out = Path(out).absolute()
    if out.exists():
        raise StudyError(f"{short_path(out)} is there already: move it away to fetch anew.")
    staging = out.with_name(f".{out.name}.partial")
    root, commit = staging / FOLDER, None
    for number, source in enumerate(map(Path, sources), 1):
        _bring(source, root / f"{number}_{source.stem}")
    if not sources:
        commit = _download(staging, revision)
    pictures = sum(path.suffix.lower() in PICTURE_SUFFIXES for path in root.rglob("*"))
    if not pictures:
        raise StudyError(f"No picture came; what did come lies in {short_path(staging)}.")
    names = [Path(source).name for source in sources] or REPOSITORY
    record = {"source": names, "commit": commit, "pictures": pictures}
    write_json(root / "fetched.json", record)
    root.rename(out)
    shutil.rmtree(staging, ignore_errors=True)
    return record


def _download(folder: Path, revision: str) -> str:
    """Download the dataset at `revision` into `folder`; return its commit.

    The commit is asked for first: without an answer `snapshot_download` takes a folder that a
    broken call left for the whole.
    """
    try:
        commit = HfApi().dataset_info(REPOSITORY, revision=revision).sha
        what = {"repo_type": "dataset", "revision": commit, "allow_patterns": f"{FOLDER}/*"}
        snapshot_download(REPOSITORY, local_dir=folder, **what)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        said = f"The hub did not give {REPOSITORY} at '{revision}' ({reason})"
        way = "or name folders or zips that you have: make synpain-data FROM=/a.zip"
        raise StudyError(f"{said}: try again later, what came is kept; {way}.") from error
    return commit


def _bring(source: Path, target: Path) -> None:
    """Copy a folder, without what is hidden, or unpack what is needed of a zip, below `target`.

    zipfile keeps every member below `target`, whatever its name says. A member that an earlier
    call unpacked is known by its checksum.
    """
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(_KEPT)]
            for member in tqdm(members, f"Unpacking {source.name}", unit="file"):
                path = target / member.filename
                if not path.is_file() or zlib.crc32(path.read_bytes()) != member.CRC:
                    archive.extract(member, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise StudyError(f"{source} is neither a folder nor a whole zip file: {error}.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; where the user has to do something, end with one sentence."""
    with command("fetch", __doc__) as parser:
        parser.add_argument("sources", nargs="*", help="folders or zips; none: the hub")
        parser.add_argument("--out", default="data/raw/SynPain", help="the dataset's folder")
        parser.add_argument("--revision", default="main", help="the hub's branch, tag or commit")
        record = fetch(**vars(parser.parse_args(arguments)))
        print(f"{record['pictures']:,} pictures; SynPAIN has 5,355 pairs.")


if __name__ == "__main__":
    main()
