"""Which GPU of several: each process takes one that no other process of the study has."""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

# The file that holds the lock of this process, which ends with the process.
_held: IO | None = None


def count_gpus() -> int:
    """Return how many GPUs a process may use, without loading torch; 0 without a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def training_cores(cores: int) -> int:
    """Return the cores of one training out of `cores`: a share for each GPU, all without one."""
    return max(1, cores // max(1, count_gpus()))


def claim_gpu(folder: str | Path | None = None) -> int:
    """Make one GPU the current device of this process, and return its index.

    The first that no other process has claimed; where all are taken, the one with the most free
    memory. The claim is a lock on a file in `folder` (the system's folder for temporary files),
    which the system releases when the process ends, however it ends. A further call returns the
    same GPU.
    """
    import torch  # slow, and the Snakefile asks only how many GPUs there are

    global _held
    if _held is not None:
        return torch.cuda.current_device()
    count = torch.cuda.device_count()
    chosen = 0
    if count > 1:
        chosen = _first_free(count, Path(folder or tempfile.gettempdir()))
    torch.cuda.set_device(chosen)
    return chosen


def _first_free(count: int, folder: Path) -> int:
    import torch

    global _held
    for index in range(count):
        name = f"pain-distillation-{os.getuid()}-{torch.cuda.get_device_properties(index).uuid}"
        file = (folder / name).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _held = file
        return index
    return max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0])
