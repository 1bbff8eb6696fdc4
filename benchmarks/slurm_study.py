"""The study at its smallest on a SLURM cluster of one node, with a job killed in the middle.

    python benchmarks/slurm_study.py /tmp/slurm-study

Needs Debian's slurm-wlm and munge, and no root: both run as whoever calls it, with their files in
the folder. Makes a few pairs of the stand-in into a study of its own, runs it here, then by the
profile config/slurm through sbatch. In that run the job of the first teacher is killed with SIGKILL
once it has finished an epoch. Ends with an error unless both end with the same predictions, weights
and tables, and the killed run went on where it was.
"""

import argparse
import contextlib
import filecmp
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
import yaml

from helpers.files import ROOT
from helpers.parameters import read_config

DAEMONS = {"munged": "--foreground", "slurmctld": "-D", "slurmd": "-D"}
# Enough epochs for a job to be killed in the middle of them.
SMALL = {"image_size": 64, "batch_size": 8, "teacher_epochs": 6, "student_epochs": 3}
SMALL |= {"allow_weak_teacher": True, "bootstrap_samples": 50, "split_ratios": [0.5, 0.25, 0.25]}
KILLED = "runs/small/teacher/resnet50/seed0"
PROFILE = ROOT / "config/slurm"


def main() -> None:
    """Run the study twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for all that is made")
    given = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [name for name in DAEMONS if not shutil.which(name)]:
        sys.exit(f"Missing: {', '.join(missing)}. apt install slurm-wlm munge")
    work = given.work.absolute()
    if work.is_dir() and any(work.iterdir()):
        sys.exit(f"The folder {work} is not empty.")
    here, cluster = (write_study(work / name) for name in ("here", "cluster"))
    finish(start(here, "--cores", "all", *threads()), here)
    print("Ran here.", flush=True)
    with slurm(work / "slurm"):
        epochs = run_on_cluster(cluster)
    if faults := resumed(cluster, epochs) + differences(here, cluster):
        sys.exit("\n".join(faults))
    print("The same results; the killed run went on where it was.")


def write_study(folder: Path, pairs: int = 80) -> Path:
    """Write the config and the pairs of a small study into `folder`, and return it."""
    (folder / "pairs").mkdir(parents=True)
    for kind in ("Pain", "NoPain"):
        found = sorted((ROOT / "data/standin/pairs").glob(f"*_{kind}_*.jpg"))
        for path in found[:: len(found) * 2 // pairs]:
            shutil.copy(path, folder / "pairs")
    config = read_config("config/quick.yaml") | SMALL | {"raw_dir": str(folder / "pairs")}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    return folder


def start(folder: Path, *options: str) -> subprocess.Popen:
    """Start Snakemake on the study of `folder`; it writes to `log.txt` there."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "small.yaml"), "--nolock"]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen([*command, *options], stdout=log, stderr=log)


def finish(study: subprocess.Popen, folder: Path) -> None:
    """Wait for the end of a study; where it failed, end with its last words."""
    if study.wait():
        sys.exit((folder / "log.txt").read_text()[-3000:])


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Keep a cluster of this one machine in `folder`; commands find it by the environment."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    settings = {"folder": folder, "host": socket.gethostname().partition(".")[0]}
    settings |= {"user": getpass.getuser(), "cores": os.cpu_count()}
    settings |= {"controller_port": free_port(), "node_port": free_port()}
    conf = folder / "slurm.conf"
    conf.write_text((ROOT / "benchmarks/slurm.conf").read_text().format(**settings))
    os.environ["SLURM_CONF"] = str(conf)
    # Snakemake clears SLURM's variables from its jobs, which call srun.
    srun = folder / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    os.environ["PATH"] = f"{srun.parent}:{os.environ['PATH']}"
    munge = ["--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    running = []
    try:
        for name, foreground in DAEMONS.items():
            command = [shutil.which(name), foreground, *(munge if name == "munged" else [])]
            with (folder / f"{name}.out").open("w") as out:
                running.append(subprocess.Popen(command, stdout=out, stderr=out))
            if name == "munged":
                wait_for((folder / "munge.socket").exists, "munged", 30)
        wait_for(lambda: ask("sinfo", "--format=%T").strip() == "idle", "the node", 60)
        yield
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(*command: str) -> str:
    """Return what one of SLURM's commands prints, without its heading."""
    return subprocess.run([*command, "--noheader"], capture_output=True, text=True).stdout


def wait_for(done: Callable[[], bool], what: str, seconds: float = 1800) -> None:
    """Return once `done()` holds; end after so many seconds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"Waited {seconds:.0f} s in vain for {what}.")
        time.sleep(0.2)


def threads() -> list[str]:
    """Return the option that gives every rule all cores: bits hang on their number."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    return ["--set-threads", *(f"{rule}={os.cpu_count()}" for rule in profile["set-threads"])]


def run_on_cluster(folder: Path) -> list[dict]:
    """Run the study by the profile, kill a job in the middle, and return its epochs until then."""
    options = ["--profile", str(PROFILE), *threads()]
    # This cluster keeps no accounts, and its jobs are short.
    options += ["--slurm-no-account", "--slurm-status-command", "squeue", "--latency-wait", "10"]
    study = start(folder, *options, "--slurm-init-seconds-before-status-checks", "3")
    try:
        checkpoint = folder / KILLED / "checkpoint.pt"
        wait_for(lambda: checkpoint.is_file() or study.poll() is not None, "a first checkpoint")
        queue = ask("squeue", "--format=%i %k", "--states=RUNNING").splitlines()
        (job,) = (line.split()[0] for line in queue if "train_teacher" in line)
        subprocess.run(["scancel", "--signal=KILL", "--full", job], check=True)
        epochs = torch.load(checkpoint, weights_only=True)["history"]
        print(f"Killed job {job} after epoch {len(epochs)}.", flush=True)
        finish(study, folder)
    finally:
        study.terminate()
    return epochs


def resumed(folder: Path, epochs: list[dict]) -> list[str]:
    """Return what speaks against the killed run having gone on: `epochs` it had kept.

    An epoch that was trained again would have taken another time.
    """
    kept, whole = pd.DataFrame(epochs), pd.read_csv(folder / KILLED / "history.csv")
    faults = []
    if not 0 < len(kept) < len(whole):
        faults.append("The job was not killed in the middle.")
    if not kept["seconds"].round(6).equals(whole["seconds"][: len(kept)].round(6)):
        faults.append("The killed run trained its finished epochs again.")
    if "Trying to restart job" not in (folder / "log.txt").read_text():
        faults.append("Snakemake did not submit the killed job again.")
    return faults


def differences(here: Path, there: Path) -> list[str]:
    """Return the files of predictions, weights and metrics in which two studies differ."""
    names = "seed*/predictions.csv model.safetensors results/metrics.csv differences.csv".split()
    found = [path.relative_to(here) for name in names for path in here.glob(f"runs/**/{name}")]
    print(f"Compared: {len(found)} files.", flush=True)
    differ = [path for path in found if not filecmp.cmp(here / path, there / path, shallow=False)]
    return [f"{path} differs." for path in differ] if found else ["There are no results."]


if __name__ == "__main__":
    main()
