"""Where the arithmetic happens: device, precision, determinism."""

import contextlib
import os
from collections.abc import Iterator

import torch

from helpers.errors import StudyError
from helpers.gpus import claim_gpu


def pick_device(device: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` names.

    Of several GPUs it is one that no other process of the study has; see `gpus.claim_gpu`. Raises
    `StudyError` for `cuda` without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError("The parameter device is cuda, and torch finds no CUDA device here.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        claim_gpu()
    return torch.device(device)


def precision(device: torch.device, amp: bool) -> torch.dtype:
    """Return the type of autocast: bfloat16 where the hardware has it, float16 on an older GPU.

    Without `amp`, and on a CPU that would emulate bfloat16 slowly, it is float32.
    """
    if not amp:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Return autocast to `dtype`, or nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seed torch, and let it use deterministic algorithms alone if `deterministic`."""
    if deterministic:
        # cuBLAS reads it when it starts; without it torch refuses some operations on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic)
    # Else every new tensor is filled with NaN first, in case something reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not deterministic


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give each of torch's operations on the CPU one thread, for work that goes on side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
