"""`kill -9` at random moments of a preparation: the next call ends as if nothing had happened."""

import json
import random
import subprocess
import sys

import numpy as np
from PIL import Image

from helpers.files import ROOT

KILLS = 10

# One process that forks: importing pandas takes longer than the work that is to be killed.
_RUNS = """
import glob, json, os, random, signal, sys, time
from helpers.dataset.prepare import prepare_dataset

def start(raw, out):
    child = os.fork()
    if child == 0:
        prepare_dataset(raw, out, None, [0.7, 0.15, 0.15], 0)
        os._exit(0)
    return child

def written(out):
    return len(glob.glob(out + "/*/*.jpg"))

# The moment is a number of pictures, not of seconds: on a busy machine these say nothing.
def kill(child, out, pictures):
    while written(out) < pictures and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.0005)
    try:
        os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    except (ProcessLookupError, ChildProcessError):
        return False

raw, out, kills, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
assert os.waitpid(start(raw, out + "/whole"), 0)[1] == 0
rng, hit, partial = random.Random(seed), 0, 0
for n in range(kills):
    at = f"{out}/{n}"
    hit += kill(start(raw, at), at, rng.randrange(60))
    partial += written(at) > 0 and not os.path.exists(at + "/manifest.csv")
    assert os.waitpid(start(raw, at), 0)[1] == 0
print(json.dumps([hit, partial]))
"""


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_ten_kills_leave_no_trace(tmp_path):
    rng = np.random.default_rng(0)
    raw = tmp_path / "raw"
    raw.mkdir()
    for n in range(40):
        pain = n % 2
        small = rng.integers(0, 200, (8, 16, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((400, 220), Image.Resampling.BICUBIC))
        name = f"1{pain}00{n % 5}{n:05}_{('NoPain', 'Pain')[pain]}_man_Young.jpg"
        Image.fromarray(pixels).save(raw / name, ("PNG", "JPEG")[n % 3 == 0])
    (raw / "1000000099_NoPain_man_Young.jpg").write_bytes(b"broken")
    command = [sys.executable, "-c", _RUNS, raw, tmp_path, str(KILLS), str(random.randrange(10**6))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    hit, partial = json.loads(done.stdout)
    assert hit >= KILLS / 2
    assert partial >= 1
    whole = contents(tmp_path / "whole")
    assert len([name for name in whole if name.endswith(".jpg")]) == 80
    for n in range(KILLS):
        assert contents(tmp_path / str(n)) == whole
