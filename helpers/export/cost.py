"""What a network costs where it is used: size, multiply-adds, latency, throughput."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.export.onnx_file import Deployed
from helpers.networks.models import TEACHERS, build_student, build_teacher, count_macs
from helpers.predict.face_spec import FaceSpec
from helpers.predict.in_torch import spec_of_run
from helpers.predict.onnx_session import open_session
from helpers.training.runs import Run
from helpers.training.trained import trained_model

FORMS = ("torch", "onnx", "int8")
THREADS = (1, 2)
# Parameters and multiply-adds at 224 pixels with 1000 classes: He et al. 2016, Liu et al. 2021
# (table 1), Touvron et al. 2021 (table 5); where they round or are silent, timm's model cards.
PUBLISHED = {
    "resnet50": (25.6e6, 4.1e9),
    "swin": (28.3e6, 4.5e9),
    "swin_base": (87.8e6, 15.4e9),
    "deit_tiny": (5.7e6, 1.26e9),
    "deit_small": (22.1e6, 4.6e9),
    "deit_base": (86.6e6, 17.6e9),
}
_BATCH = 32
_WARM_UP, _ROUNDS, _SECONDS = 3, 5, 1.0

Score = Callable[[np.ndarray], object]


def architecture_of(run: Run) -> str:
    """Return the name by which a run's network is built: `swin`, `deit_tiny`."""
    return run.name if run.stage == "teacher" else run.params["parameters"]["student"]


def macs_as_published(architecture: str) -> int:
    """Return our count of multiply-adds at 224 pixels, to be held against `PUBLISHED`.

    It has one class instead of 1000, which is 0.1 % of it at most.
    """
    build = build_teacher if architecture in TEACHERS else build_student
    return count_macs(build(architecture, "scratch", 224)[0], 224)


def time_forms(run: Run, paths: Mapping[str, Path], seconds: float = _SECONDS) -> pd.DataFrame:
    """Return latency and throughput of a run's network, one row a form and number of threads.

    `paths`: the file of each form but torch. `ms`: median time of one face, with its quartiles
    `ms_low` and `ms_high`; `images_per_second`: in batches of 32. From uint8 faces to P(pain), in
    float32 unless int8. The forms take turns, in rounds of `seconds` each, so that a machine that
    slows down slows all of them.
    """
    spec, rows = spec_of_run(run), []
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (_BATCH, 3, spec.side, spec.side), dtype=np.uint8)
    before = torch.get_num_threads()
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            calls = {"torch": torch_call(run, spec)}
            calls |= {form: onnx_call(path, threads) for form, path in paths.items()}
            single = time_calls(calls, crops[:1], seconds)
            batch = time_calls(calls, crops, seconds)
            for form in calls:
                low, middle, high = np.quantile(single[form], (0.25, 0.5, 0.75)) * 1000
                row = {"form": form, "threads": threads}
                row |= {"ms": middle, "ms_low": low, "ms_high": high}
                rows.append(row | {"images_per_second": _BATCH / float(np.median(batch[form]))})
    finally:
        torch.set_num_threads(before)
    return pd.DataFrame(rows)


def torch_call(run: Run, spec: FaceSpec) -> Score:
    """Return the run's network in torch, in float32, as a call on (N, 3, side, side) uint8."""
    network = trained_model(run, torch.device("cpu")).to(memory_format=torch.channels_last)
    deployed = Deployed(network, spec).eval()

    def call(crops: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.stack(deployed(torch.from_numpy(crops)), dim=1).numpy()

    return call


def onnx_call(path: Path, threads: int = 1) -> Score:
    """Return an ONNX file as a call on (N, 3, side, side) uint8."""
    session = open_session(path, threads)
    return lambda crops: np.column_stack(session.run(None, {"crops": crops}))


def time_calls(
    calls: Mapping[str, Score], crops: np.ndarray, seconds: float
) -> dict[str, list[float]]:
    """Return the seconds of each call on `crops`, by name; at least one a round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(_WARM_UP):
            call(crops)
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            end = time.perf_counter() + seconds / _ROUNDS
            while True:
                begin = time.perf_counter()
                call(crops)
                now = time.perf_counter()
                times[name].append(now - begin)
                if now >= end:
                    break
    return times
