"""Kill a training with SIGKILL at random moments, and compare how it ends with undisturbed runs.

    python benchmarks/kill_training.py [--kills 20] [--seed 0]

A DeiT-Ti student learns from a live ResNet-50 on 64 made-up faces of 32 pixels, on one thread and
with a checkpoint every 0.3 seconds, so that kills hit steps, checkpoints and validation alike. Each
training is killed and called again until it comes to its end, then the next one begins, until there
were as many kills as asked for. Prints one line a kill and ends with an error unless every finished
run has the same `predictions.csv` and `model.safetensors` as two undisturbed runs, and a run of
another seed has not.
"""

import argparse
import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RECIPE = {
    **{"batch_size": 8, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0},
    **{"schedule": "one_cycle", "lr_step": 1, "lr_gamma": 0.5, "clip_norm": 1.0},
    **{"image_size": 32, "init": "scratch", "amp": True, "deterministic": True, "device": "cpu"},
}
EPOCHS, LONGEST_LIFE = 12, 6.0  # seconds after the training has begun to prepare itself


def make_crops(folder: Path, people: int = 48) -> None:
    """Write made-up crops: noise, and a bright bar for pain."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    for person in range(people):
        identity = f"1{int(person % 2 == 0)}000{person:05d}"
        split = "train" if person < 32 else "validation" if person < 40 else "test"
        for side in ("left", "right"):
            pain = person % 2 == 0 and side == "right"
            pixels = rng.integers(60, 200, (40, 40, 3), dtype=np.uint8)
            pixels[14:26] += np.uint8(30 if pain else 0)
            image_id = f"{identity}_{side}"
            Image.fromarray(pixels).save(folder / f"{image_id}.png")
            row = {"image_id": image_id, "path": f"{image_id}.png", "identity": identity}
            row |= {"side": side, "label": "Pain" if pain else "NoPain", "split": split}
            rows.append(row | {"width": 40, "height": 40})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def train(work: Path, run: Path, seed: int) -> None:
    """What a child process does: prepare the teacher where it is not there, train the student."""
    import torch

    from helpers.training import engine
    from helpers.training.experiments import distil_student, train_teacher

    torch.set_num_threads(1)
    engine.CHECKPOINT_SECONDS = 0.3
    parameters = RECIPE | {"crops_dir": str(work / "crops"), "teacher": "resnet50"}
    teacher = SimpleNamespace(**parameters, seed=0, teacher_epochs=2)
    train_teacher(teacher, work / "teacher")
    print("ready", flush=True)
    parameters |= {"teacher_dir": str(work / "teacher"), "student": "deit_tiny", "seed": seed}
    parameters |= {"distillation": "soft", "temperature": 3.0, "teacher_labels": "online"}
    parameters |= {"allow_weak_teacher": True, "student_epochs": EPOCHS}
    distil_student(SimpleNamespace(**parameters), run)


def start(work: Path, run: Path, seed: int = 0) -> subprocess.Popen:
    """Start a child process, and return it when it is about to train the student."""
    words = [sys.executable, __file__, "--child", str(work), str(run), "--seed", str(seed)]
    child = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if child.stdout.readline().strip() != "ready":
        raise SystemExit(child.stderr.read())
    return child


def finish(child: subprocess.Popen) -> None:
    """Wait for a child's end; end with its error if it failed."""
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(errors)


def digest(run: Path) -> str:
    """Return the hash of a run's predictions and weights."""
    both = b"".join((run / name).read_bytes() for name in ("predictions.csv", "model.safetensors"))
    return hashlib.sha256(both).hexdigest()


def where(run: Path) -> str:
    """Say where the newest checkpoint of a run stands."""
    import torch

    if not (run / "checkpoint.pt").is_file():
        return "no checkpoint"
    try:
        state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # it is the training's task to bear this
        return f"unreadable ({type(error).__name__})"
    position = state["position"] or {"epoch": len(state["history"]), "step": "end"}
    return f"epoch {position['epoch']}, step {position['step']}"


def main(kills: int, seed: int) -> None:
    """Kill, resume, compare."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="kill-training-") as name:
        work = Path(name)
        make_crops(work / "crops")
        for run, own in (("undisturbed", 0), ("again", 0), ("another seed", 1)):
            finish(start(work, work / run, own))
        expected = digest(work / "undisturbed")
        if digest(work / "again") != expected:
            raise SystemExit("two processes gave two results")
        if digest(work / "another seed") == expected:
            raise SystemExit("another seed gave the same result")
        print(f"undisturbed, twice: {expected[:16]}", flush=True)
        done, finished, writing = 0, 0, 0
        while done < kills:
            run = work / f"killed {finished}"
            while not (run / "metrics.json").is_file():
                child = start(work, run)
                if done < kills:
                    life = rng.uniform(0, LONGEST_LIFE)
                    try:
                        child.communicate(timeout=life)
                    except subprocess.TimeoutExpired:
                        child.send_signal(signal.SIGKILL)
                        child.communicate()
                        done += 1
                        half = sum(path.name.startswith(".checkpoint") for path in run.glob(".*"))
                        writing += half
                        place = where(run)
                        note = ", while one was being written" if half else ""
                        print(f"kill {done} after {life:.2f} s: {place}{note}", flush=True)
                        continue
                finish(child)
            finished += 1
            same = digest(run) == expected
            print(f"run {finished} finished, identical: {same}", flush=True)
            if not same:
                raise SystemExit("a killed and resumed run ended otherwise")
    print(f"{done} kills ({writing} in a checkpoint), {finished} runs, all identical")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        train(*chosen.child, chosen.seed)
    else:
        began = time.monotonic()
        main(chosen.kills, chosen.seed)
        print(f"{time.monotonic() - began:.0f} s")
