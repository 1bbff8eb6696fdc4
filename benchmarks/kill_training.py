"""Kill a training with SIGKILL in every kind of place; compare its end with undisturbed runs.

    python benchmarks/kill_training.py

A DeiT-Ti student learns from a live ResNet-50 on 40 made-up faces of 32 pixels. A process is made
to kill itself at one of `PLACES`, then it is called again and killed at the next one, until the run
comes to its end. Prints a line a kill, and ends with an error unless the run has the same
`predictions.csv` and `model.safetensors`, bit by bit, as two undisturbed runs, and a run of another
seed has not.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from helpers.files import ROOT, sha256
from helpers.parameters import read_config

# What is about to happen for the n-th time in a process: a step of the optimiser, the second half
# of a checkpoint's bytes, a finished file's name.
PLACES = [("step", 1), ("step", 8), ("half", 1), ("half", 2), ("checkpoint.pt", 1), ("step", 7)]
PLACES += [("model.safetensors", 1), ("predictions.csv", 1), ("metrics.json", 1)]
RECIPE = read_config("config/quick.yaml") | {"optimizer": "adam", "batch_size": 8}
RECIPE |= {"image_size": 32, "init": "scratch", "device": "cpu", "teacher": "resnet50"}
RECIPE |= {"teacher_epochs": 1, "student_epochs": 5, "allow_weak_teacher": True}


def make_crops(folder: Path) -> None:
    """Write made-up crops of 64 people: noise, and a bright bar for pain."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    for person, split in enumerate(["train"] * 40 + ["validation", "test"] * 12):
        pixels = rng.integers(60, 200, (40, 40, 3), dtype=np.uint8)
        pixels[14:26] += np.uint8(30 * (person % 2))
        row = {"image_id": f"{person}_right", "path": f"{person}.png", "identity": str(person)}
        row |= {
            "side": "right",
            "label": ["NoPain", "Pain"][person % 2],
            "split": split,
            "width": 40,
        }
        Image.fromarray(pixels).save(folder / row["path"])
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def die_at(place: str, count: int) -> None:
    """Have this process killed when `place` is reached for the `count`-th time."""
    import torch

    step, write, rename = torch.optim.Adam.step, Path.write_bytes, Path.replace
    left = [count]

    def reached(where: str) -> bool:
        left[0] -= where == place
        return where == place and left[0] == 0

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_step(self, *given, **named):
        return kill() if reached("step") else step(self, *given, **named)

    def dying_write(self, content):
        if self.name.startswith(".checkpoint") and reached("half"):
            write(self, content[: len(content) // 2])
            kill()
        return write(self, content)

    def dying_rename(self, target):
        return kill() if reached(Path(target).name) else rename(self, target)

    torch.optim.Adam.step = dying_step
    Path.write_bytes, Path.replace = dying_write, dying_rename


def train(work: Path, run: Path, seed: int) -> None:
    """Train the student of `seed` into `run`; its teacher, in `work`, is made where it is not."""
    from helpers.train import distil_student, train_teacher

    given = RECIPE | {"crops_dir": str(work / "crops")}
    if not (work / "teacher/metrics.json").is_file():
        train_teacher(SimpleNamespace(**given, seed=0), work / "teacher")
    given |= {"student": "deit_tiny", "teacher_dir": str(work / "teacher"), "seed": seed}
    distil_student(SimpleNamespace(**given), run)


def call(work: Path, run: str, seed: int, place: str = "", count: int = 0) -> int:
    """Call the training in a process of its own; return its exit status, negative if killed."""
    words = [sys.executable, __file__, "--child", work, work / run, seed, place, count]
    child = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    if child.returncode not in (0, -signal.SIGKILL):
        sys.exit(child.stderr)
    return child.returncode


def main() -> None:
    """Kill, call again, compare."""
    with tempfile.TemporaryDirectory(prefix="kill-training-") as name:
        work = Path(name)
        make_crops(work / "crops")

        def result(run: str) -> list[str]:
            return [sha256(work / run / file) for file in ("predictions.csv", "model.safetensors")]

        for run, seed in (("undisturbed", 0), ("again", 0), ("another seed", 1)):
            call(work, run, seed)
        expected = result("undisturbed")
        if result("again") != expected or result("another seed") == expected:
            sys.exit("Two processes of one seed differ, or two seeds do not.")
        for place, count in PLACES:
            if not call(work, "killed", 0, place, count):
                sys.exit(f"The run ended before it was killed at {place} {count}.")
            print(f"killed at {place} {count}", flush=True)
        call(work, "killed", 0)
        if result("killed") != expected:
            sys.exit("The killed and resumed run ended otherwise.")
        print(f"{len(PLACES)} kills, identical: {expected[1][:16]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    if given := parser.parse_args().child:
        folder, run_folder, own_seed, place, count = given
        if place:
            die_at(place, int(count))
        train(Path(folder), Path(run_folder), int(own_seed))
    else:
        main()
