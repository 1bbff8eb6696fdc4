"""The study at its smallest on a SLURM cluster of one node, with a job killed in the middle.

    python benchmarks/slurm_study.py --work /tmp/slurm-study

Needs Debian's slurm-wlm and munge, and no root: both run as whoever calls it, with their files in
the work folder. Makes a few pairs of the stand-in into a study of its own, runs it here, then by
the profile config/slurm through sbatch. In that run the job of the first teacher is killed with
SIGKILL once it has finished an epoch. Says whether the two end with the same results and the
killed run went on where it was; the exit status is 1 where not.
"""

import argparse
import contextlib
import filecmp
import json
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

from helpers.errors import StudyError
from helpers.files import ROOT
from helpers.parameters import read_config

DAEMONS = ("munged", "slurmctld", "slurmd")
# Enough steps for a job to be killed in the middle of them.
SMALL = {"image_size": 64, "batch_size": 8, "teacher_epochs": 6, "student_epochs": 3}
SMALL |= {"allow_weak_teacher": True, "bootstrap_samples": 50}
SMALL |= {"split_ratios": [0.5, 0.25, 0.25]}
CONFIG = "small"
KILLED = f"runs/{CONFIG}/teacher/resnet50/seed0"
# Measured times, and what is computed from them.
TIMES = ("seconds", "per_second", "latency", "ms", "_times")
PROFILE = ROOT / "config/slurm"
_PATIENCE = 1800  # seconds
_MEMORY_MB = 4000  # of a job


def main() -> int:
    """Run the study twice and compare; return 0 where both end the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="an empty folder for all that is made")
    parser.add_argument("--pairs", type=int, default=80, help="of the stand-in, half of them Pain")
    given = parser.parse_args()
    missing = [name for name in DAEMONS if _daemon(name) is None]
    if missing:
        print(f"Missing: {', '.join(missing)}. apt install slurm-wlm munge", file=sys.stderr)
        return 1
    work = Path(given.work).absolute()
    if work.exists() and any(work.iterdir()):
        print(f"The folder {work} is not empty.", file=sys.stderr)
        return 1
    local, cluster = (write_study(work / name, given.pairs) for name in ("local", "cluster"))
    begin = time.monotonic()
    call(snakemake(local, "--cores", "all", "--keep-going"), local / "log.txt")
    print(f"Here: {time.monotonic() - begin:.0f} s", flush=True)
    with slurm(work / "slurm") as environment:
        begin = time.monotonic()
        before = run_on_cluster(cluster, environment)
        print(f"On SLURM, with a kill: {time.monotonic() - begin:.0f} s", flush=True)
    faults = resumed(cluster, before) + differences(local, cluster)
    print("\n".join(faults) or "Same results; the killed run went on where it was.")
    return 1 if faults else 0


def write_study(folder: Path, pairs: int) -> Path:
    """Write the config and the pairs of a small study into `folder`, and return it."""
    found = sorted((ROOT / "data/standin/pairs").glob("*.jpg"))
    chosen = [path for path in found if "_Pain_" in path.name][: pairs // 2]
    chosen += [path for path in found if "_NoPain_" in path.name][: pairs // 2]
    for name in ("pairs", "config"):
        (folder / name).mkdir(parents=True)
    for path in chosen:
        shutil.copy(path, folder / "pairs")
    config = read_config("config/quick.yaml") | SMALL | {"raw_dir": str(folder / "pairs")}
    (folder / f"config/{CONFIG}.yaml").write_text(yaml.safe_dump(config))
    return folder


def snakemake(folder: Path, *options: str) -> list[str]:
    """Return the call that runs the study of `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / f"config/{CONFIG}.yaml")]
    return [*command, "--rerun-incomplete", "--nolock", *options]


def call(command: list[str], log: Path, environment: dict | None = None) -> None:
    """Run `command` to its end; raise `StudyError` with its last lines where it fails."""
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, env=environment).returncode
    if code:
        raise StudyError(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict]:
    """Start a cluster of this one machine in `folder`; yield the environment for its commands.

    It has this machine's cores and claims one GPU, so that jobs that ask for one are scheduled as
    on a cluster; nothing is bound to it. Raises `StudyError` where it does not come up.
    """
    folder.mkdir(parents=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    (folder / "slurm.conf").write_text(_slurm_conf(folder))
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    environment["PATH"] = f"{_srun(folder)}:{environment['PATH']}"
    munge = ["--force", "--key-file", str(key), "--socket", str(folder / "munge.socket")]
    munge += ["--pid-file", str(folder / "munged.pid"), "--log-file", str(folder / "munged.log")]
    munge += ["--seed-file", str(folder / "munged.seed"), "--foreground"]
    starts = {"munged": munge, "slurmctld": ["-D"], "slurmd": ["-D"]}
    running = []
    try:
        for name, options in starts.items():
            with (folder / f"{name}.out").open("w") as out:
                command = [_daemon(name), *options]
                running.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
            if name == "munged":
                wait_for(lambda: (folder / "munge.socket").exists(), "munged", 30)
        wait_for(lambda: _state(environment) == "idle", "the node", 60)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def _srun(folder: Path) -> Path:
    """Return a folder with an srun that knows this cluster: Snakemake clears SLURM's variables."""
    (folder / "bin").mkdir()
    srun = folder / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    return srun.parent


def _slurm_conf(folder: Path) -> str:
    host, user = socket.gethostname().partition(".")[0], _user()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    settings = {
        "ClusterName": "study",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmUser": user,
        "SlurmdUser": user,
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder / 'munge.socket'}",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "GresTypes": "gpu",
        "ReturnToService": 2,
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
    }
    node = f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory * 9 // 10}"
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines += [
        f"{node} Gres=gpu:1 State=UNKNOWN",
        "PartitionName=all Nodes=ALL Default=YES State=UP",
    ]
    return "\n".join(lines) + "\n"


def _daemon(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _state(environment: dict) -> str:
    command = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout.strip()


def wait_for(done: Callable[[], bool], what: str, seconds: float) -> None:
    """Return once `done()` holds; raise `StudyError` after so many seconds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise StudyError(f"Waited {seconds:.0f} s in vain for {what}.")
        time.sleep(0.2)


def run_on_cluster(folder: Path, environment: dict) -> list[dict]:
    """Run the study by the profile, kill one job in the middle, and return its epochs so far."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    threads = [f"{rule}={os.cpu_count()}" for rule in profile["set-threads"]]
    # The command line replaces what the profile asks for: all of it, but for this node's memory.
    asked = [
        f"{rule}:{name}={min(value, _MEMORY_MB) if name == 'mem_mb' else value}"
        for rule, resources in profile["set-resources"].items()
        for name, value in resources.items()
    ]
    command = snakemake(folder, "--profile", str(PROFILE))
    command += ["--set-threads", *threads, "--set-resources", *asked]
    # This cluster keeps no accounts, and its jobs are short.
    command += ["--slurm-no-account", "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10"]
    with (folder / "log.txt").open("w") as file:
        study = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        before = kill_a_job(folder, environment, lambda: study.poll() is not None)
        if study.wait(_PATIENCE):
            raise StudyError(f"The run failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    finally:
        if study.poll() is None:
            study.terminate()
            study.wait()
    return before


def kill_a_job(folder: Path, environment: dict, ended: Callable[[], bool]) -> list[dict]:
    """Kill the job of the run `KILLED` once an epoch is done; return the epochs it had kept."""
    checkpoint = folder / KILLED / "checkpoint.pt"
    wait_for(lambda: checkpoint.is_file() or ended(), "a first checkpoint", _PATIENCE)
    queue = ["squeue", "--noheader", "--format=%i %k", "--states=RUNNING"]
    jobs = subprocess.run(queue, capture_output=True, text=True, env=environment).stdout
    found = [line.split()[0] for line in jobs.splitlines() if "train_teacher" in line]
    if len(found) != 1:
        raise StudyError(f"One training was to be found in the queue, not:\n{jobs}")
    subprocess.run(["scancel", "--signal=KILL", "--full", found[0]], env=environment, check=True)
    print(f"Killed job {found[0]}, {KILLED}", flush=True)
    return torch.load(checkpoint, weights_only=True)["history"]


def resumed(folder: Path, before: list[dict]) -> list[str]:
    """Return what speaks against the killed run having gone on where it was.

    An epoch that was trained again would have taken another time.
    """
    history = pd.read_csv(folder / KILLED / "history.csv")
    kept, whole = [epoch["seconds"] for epoch in before], list(history["seconds"])
    print(f"Killed after epoch {len(kept)} of {len(whole)}", flush=True)
    log = (folder / "log.txt").read_text()
    faults = []
    if not 0 < len(kept) < len(whole):
        faults.append("The job was not killed in the middle.")
    if [round(s, 6) for s in whole[: len(kept)]] != [round(s, 6) for s in kept]:
        faults.append("The killed run trained its finished epochs again.")
    if "Trying to restart job" not in log:
        faults.append("Snakemake did not submit the killed job again.")
    return faults


def differences(here: Path, there: Path) -> list[str]:
    """Return where the results and the runs of two studies differ, times aside."""
    faults = []
    runs = sorted(path.parent for path in (here / f"runs/{CONFIG}").rglob("metrics.json"))
    for run in runs:
        name = run.relative_to(here)
        for file in ("predictions.csv", "model.safetensors"):
            if not filecmp.cmp(run / file, there / name / file, shallow=False):
                faults.append(f"{name / file} differs.")
        pair = [
            json.loads((folder / name / "metrics.json").read_text()) for folder in (here, there)
        ]
        if _without_times(pair[0]) != _without_times(pair[1]):
            faults.append(f"{name / 'metrics.json'} differs.")
    tables = sorted((here / f"results/{CONFIG}").glob("*.csv"))
    for table in tables:
        pair = [pd.read_csv(folder / table.relative_to(here)) for folder in (here, there)]
        kept = [[c for c in one if not any(t in c for t in TIMES)] for one in pair]
        if kept[0] != kept[1] or not pair[0][kept[0]].equals(pair[1][kept[1]]):
            faults.append(f"{table.relative_to(here)} differs.")
    print(f"Compared: {len(tables)} tables, {len(runs)} runs to the byte", flush=True)
    return faults if tables and runs else ["There are no results."]


def _without_times(metrics: dict) -> dict:
    return {key: value for key, value in metrics.items() if not any(t in key for t in TIMES)}


if __name__ == "__main__":
    sys.exit(main())
