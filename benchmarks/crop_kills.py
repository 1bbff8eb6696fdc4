"""Kill notebook 02's work again and again; what it ends with must be what an undisturbed run gives.

    python benchmarks/crop_kills.py [--pairs 60] [--kills 10]

Each call is a process of its own, ended by SIGKILL at a random moment after its start-up; the next
one takes up the same folder. After each kill the crops that the journal calls finished are noted:
the calls that follow may not write them again. At the end every file is compared with those of an
undisturbed run.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from crop_halves import prepare_standin

from helpers.files import ROOT, sha256

_CALL = """
import sys
from helpers.cropping import crops
print("begin", flush=True)
crops.crop_faces(*sys.argv[1:], 256, 0.2, 80, "cpu")
"""


def main() -> None:
    """Read the command line, kill and compare; end with an error where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="bundled pairs, enlarged")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare_standin(work, options.pairs)
        prepared = work / "standin"
        process, started = _start(prepared, work / "whole")
        process.wait()
        seconds = time.monotonic() - started
        finished: dict[str, int] = {}
        for n in range(options.kills):
            process, started = _start(prepared, work / "killed")
            time.sleep(seconds / options.kills * moments.uniform(0.1, 1.9))
            process.kill()
            code = process.wait()
            lasted = time.monotonic() - started
            _check_kept(work / "killed", finished)
            finished = _finished(work / "killed")
            print(f"kill {n + 1}: after {lasted:.2f} s, exit {code}, {len(finished)} crops done")
        process, _ = _start(prepared, work / "killed")
        code = process.wait()
        _check_kept(work / "killed", finished)
        same = _contents(work / "killed") == _contents(work / "whole")
        print(f"last call: exit {code}, {len(_finished(work / 'killed'))} crops done")
        print(f"undisturbed: {seconds:.2f} s; all files equal: {same}")
        if code or not same:
            sys.exit(1)


def _start(prepared: Path, out: Path) -> tuple[subprocess.Popen, float]:
    """Start a call; return it, and when its imports were done."""
    command = [sys.executable, "-c", _CALL, str(prepared), str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
    )
    process.stdout.readline()
    return process, time.monotonic()


def _finished(out: Path) -> dict[str, int]:
    """Return the crops that are whole and journalled, and when each was written (ns)."""
    journal = out / "journal.jsonl"
    written = {path.stem: path for path in out.glob("*/*.jpg") if not path.name.startswith(".")}
    done = {}
    for line in journal.read_bytes().splitlines() if journal.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        path = written.get(row.get("key"))
        if path is not None and row["entry"].get("sha256") == sha256(path):
            done[row["key"]] = path.stat().st_mtime_ns
    return done


def _check_kept(out: Path, finished: dict[str, int]) -> None:
    now = _finished(out)
    again = [key for key, written in finished.items() if now.get(key) != written]
    if again:
        sys.exit(f"{len(again)} finished crops were made again, the first is {again[0]}.")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


if __name__ == "__main__":
    main()
