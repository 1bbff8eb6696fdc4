"""A trained network as an ONNX file that stands by itself.

python -m helpers.export RUN_FOLDER... [--no-int8]

Writes into `<run>/onnx/`: `model.onnx`, `model_int8.onnx`, and MTCNN's three networks, so that
`helpers.predict` needs no torch.

The graph takes `crops`, (N, 3, side, side) uint8 RGB, faces aligned and cut as in chapter 2 and
resized to `side` (bicubic); shrinking to the network's view, ImageNet's normalisation and the
sigmoid are inside. It gives P(pain), (N,) float32, of the decision (`probability`) and of each
head that was trained (`probability_class`, `probability_distillation`). N is free. The metadata
entry `face_spec` says the rest; see `face_spec.FaceSpec`.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import Dim
from torch.nn.functional import interpolate
from tqdm import tqdm

from helpers.errors import StudyError
from helpers.export.metadata import describe, made_of
from helpers.files import replacing, short_path
from helpers.networks.models import CLASS, DISTILLATION, decision_logits, head_logits
from helpers.predict.face_spec import (
    CLASS_HEAD,
    DECISION,
    DETECTOR,
    DISTILLATION_HEAD,
    FaceSpec,
)
from helpers.predict.in_torch import spec_of_run
from helpers.predict.loading import FOLDER, MODEL
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD
from helpers.training.runs import Run, read_run
from helpers.training.trained import trained_model

OPSET = 18
_CHANNELS = (1, 3, 1, 1)


class Deployed(nn.Module):
    """A network between uint8 faces, (N, 3, side, side), and the probabilities of its heads."""

    def __init__(self, network: nn.Module, spec: FaceSpec) -> None:
        super().__init__()
        self.network, self.heads = network, spec.heads
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(_CHANNELS))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(_CHANNELS))
        # Shrinking is linear along each axis: two products say it in any runtime, where ONNX's own
        # antialiased resizing is neither torch's nor everywhere.
        shrink = None if spec.side == spec.image_size else shrinking(spec.side, spec.image_size)
        self.register_buffer("shrink", shrink)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return P(pain) of each head, (N,) each, the decision first."""
        pixels = crops.float() / 255
        if self.shrink is not None:
            pixels = self.shrink @ pixels @ self.shrink.T
        logits = head_logits(self.network, (pixels - self.mean) / self.std)
        found = {
            DECISION: decision_logits(logits, DISTILLATION_HEAD in self.heads),
            CLASS_HEAD: logits[:, CLASS],
            DISTILLATION_HEAD: logits[:, min(DISTILLATION, logits.shape[1] - 1)],
        }
        return tuple(found[head].sigmoid() for head in self.heads)


def shrinking(side: int, image_size: int) -> torch.Tensor:
    """Return the matrix (image_size, side) by which `augment.plain_view` resizes an axis."""
    eye = torch.eye(side)[None, None]
    return interpolate(eye, (image_size, side), mode="bilinear", antialias=True)[0, 0]


def export_network(network: nn.Module, spec: FaceSpec, path: Path) -> Path:
    """Write `network`, on the CPU, as the ONNX file `path`, and return it."""
    deployed = Deployed(network.float().eval(), spec).eval()
    crops = torch.zeros(2, 3, spec.side, spec.side, dtype=torch.uint8)
    with replacing(path) as temporary:
        _export(deployed, crops, temporary, "crops", list(spec.heads), {0: Dim("faces")})
        model = onnx.load(temporary)
        describe(model, replace(spec, precision="float32"))
        onnx.save(model, temporary)
    return path


def export_run(run: Run, folder: Path | None = None, crops_dir: str | Path | None = None) -> Path:
    """Write the network of `run` into `folder` (the run's `onnx/`), and return the file's path.

    A file that was made of the same weights is kept. `crops_dir`: where the run's crops are now,
    if not where they were. Raises `StudyError` without the weights.
    """
    spec = spec_of_run(run, crops_dir)
    path = (folder or run.folder / FOLDER) / MODEL
    if not made_of(path, spec):
        export_network(trained_model(run, torch.device("cpu")), spec, path)
    return path


def export_detector(folder: Path) -> list[Path]:
    """Write MTCNN's three networks into `folder`, and return the files' paths; what is there stays.

    Each takes `x`, (N, 3, height, width) float32 in -1..1; the first one a level of any size.
    """
    from facenet_pytorch import MTCNN

    paths = [folder / f"{name}.onnx" for name in DETECTOR]
    mtcnn = MTCNN(device="cpu")
    sizes = dict(zip(DETECTOR, (64, 24, 48), strict=True))
    for name, path in zip(DETECTOR, paths, strict=True):
        if path.is_file():
            continue
        example, free = torch.zeros(2, 3, sizes[name], sizes[name] + 8), {0: Dim("n")}
        if name == DETECTOR[0]:
            free |= {2: Dim("height", min=12), 3: Dim("width", min=12)}
        else:
            example = example[..., : sizes[name]]
        with replacing(path) as temporary:
            _export(getattr(mtcnn, name).eval(), example, temporary, "x", None, free)
    return paths


def _export(
    network: nn.Module,
    example: torch.Tensor,
    path: Path,
    name: str,
    outputs: list[str] | None,
    free: dict,
) -> None:
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=[name],
            output_names=outputs,
            dynamic_shapes=(free,),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    onnx.checker.check_model(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter says of its own steps."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 with one sentence."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m helpers.export", description=__doc__, formatter_class=about
    )
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--no-int8", action="store_true", help="float32 alone")
    given = parser.parse_args(arguments)
    from helpers.export.int8 import quantise_run

    try:
        for folder in tqdm(given.runs, desc="Exporting", unit="run"):
            run = read_run(Path(folder).absolute())
            paths = [export_run(run), *export_detector(run.folder / FOLDER)]
            if not given.no_int8:
                paths.insert(1, quantise_run(run, paths[0]))
            for path in paths:
                tqdm.write(f"{short_path(path)}: {path.stat().st_size / 2**20:.1f} MiB")
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
