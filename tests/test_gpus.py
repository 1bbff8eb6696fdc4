"""Several GPUs on one machine: each run has one of its own."""

import subprocess
import sys

import pytest

from helpers.files import ROOT
from helpers.gpus import count_gpus, training_cores

# A process on a machine of two GPUs, of which the second has more free memory.
CLAIM = """
import sys
from types import SimpleNamespace

cuda = SimpleNamespace(
    device_count=lambda: 2,
    get_device_properties=lambda index: SimpleNamespace(uuid=f"GPU-{index}"),
    mem_get_info=lambda index: ((1, 5)[index], 10),
    set_device=lambda index: setattr(cuda, "chosen", index),
    current_device=lambda: cuda.chosen,
)
sys.modules["torch"] = SimpleNamespace(cuda=cuda)
from helpers.gpus import claim_gpu

print(claim_gpu(sys.argv[1]), claim_gpu(sys.argv[1]), cuda.chosen, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claim(tmp_path):
    """Start a process that claims a GPU and holds it; return it and the indices it said."""
    started = []

    def start():
        command = [sys.executable, "-c", CLAIM, str(tmp_path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=ROOT, **pipes)
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_each_process_has_a_gpu_of_its_own_until_it_ends(claim):
    first, said = claim()
    assert said == ["0", "0", "0"]
    assert claim()[1] == ["1", "1", "1"]
    first.kill()
    first.wait()
    assert claim()[1] == ["0", "0", "0"]


def test_where_all_are_taken_it_is_the_one_with_the_most_free_memory(claim):
    claim(), claim()
    assert claim()[1][0] == "1"


@pytest.mark.parametrize(("visible", "cores"), [("0,1", 8), ("2", 16), ("", 16), ("-1", 16)])
def test_a_training_has_its_share_of_the_cores(monkeypatch, visible, cores):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert training_cores(16) == cores


def test_gpus_are_counted_as_the_driver_lists_them(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus() == 0
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-a)'\necho 'GPU 1: A (UUID: GPU-b)'\n")
    driver.chmod(0o755)
    assert count_gpus() == 2
    assert training_cores(1) == 1
