"""Where the arithmetic happens: device, precision, determinism."""

import ctypes
import os
import sys

import torch

from helpers.files import StudyError


def pick_device(device: str) -> torch.device:
    """Return the device that `auto` (the fastest there is), `cpu`, `cuda` or `mps` names.

    Of several GPUs it is the first that `CUDA_VISIBLE_DEVICES` shows. Raises `StudyError` for a
    device that torch does not find.
    """
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "cpu": torch.cpu}
    found = [name for name, backend in backends.items() if backend.is_available()]
    device = found[0] if device == "auto" else device
    if device not in found:
        raise StudyError(f"torch finds no device '{device}' here: set device to auto or cpu.")
    # glibc gives large freed blocks back to the system, and a training, which asks for the same
    # ones at each step, then waits for zeroed pages: a fifth of its time on a CPU. Let it keep them
    if sys.platform == "linux":
        for option in (-1, -3):  # malloc.h's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
            ctypes.CDLL(None).mallopt(option, 2**30)
    return torch.device(device)


def precision(device: torch.device, amp: bool) -> torch.dtype:
    """Return the type of autocast: bfloat16 where the hardware has it, float16 on an older GPU.

    Without `amp`, on Apple's GPU, and on a CPU that would emulate bfloat16 slowly, it is float32.
    """
    if not amp or device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    # builds of torch without oneDNN, as Apple's, lack the operator that tells
    has_bfloat16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.bfloat16 if has_bfloat16 and has_bfloat16() else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return autocast to `dtype`, or nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seed torch, and let it use deterministic algorithms alone if `deterministic`.

    Call it before anything is computed on a GPU: cuBLAS reads its setting when it starts.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic)
    # Else every new tensor is filled with NaN first, in case something reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not deterministic
