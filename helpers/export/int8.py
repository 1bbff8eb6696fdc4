"""A network's int8 twin: onnxruntime's static quantisation, calibrated on training crops.

Weights are int8, one scale a channel; activations uint8, one scale a tensor, by the range that
they had on the calibration crops. Layers with weights are quantised, but for the heads, whose few
products cost nothing; preprocessing and the products of attention, which have no weights, stay in
float32. Processors without VNNI instructions (Intel before 2019) may saturate: measure there.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from helpers.errors import StudyError
from helpers.export.metadata import describe, made_of
from helpers.files import project_path, replacing, short_path
from helpers.predict.face_spec import FaceSpec
from helpers.predict.in_torch import spec_of_run
from helpers.predict.loading import INT8
from helpers.training.faces import read_manifest
from helpers.training.runs import Run

CALIBRATION = 128  # training crops
_QUANTISED = ("Conv", "Gemm", "MatMul")
_BATCH, _SEED = 16, 0


def quantise_run(run: Run, source: Path, crops_dir: str | Path | None = None) -> Path:
    """Write the int8 twin of the ONNX file `source` of `run` beside it, and return its path.

    One that was made of the same weights is kept. Raises `StudyError` where the run's crops
    (`crops_dir`, where they are elsewhere now) are missing.
    """
    spec, path = spec_of_run(run, crops_dir), source.with_name(INT8)
    if not made_of(path, spec):
        crops = calibration_crops(crops_dir or run.params["crops_dir"], spec)
        quantise(source, path, crops, spec)
    return path


def calibration_crops(crops_dir: str | Path, spec: FaceSpec) -> np.ndarray:
    """Return up to `CALIBRATION` training crops, drawn evenly, (n, 3, side, side) uint8."""
    folder = project_path(crops_dir)
    table = read_manifest(folder)
    train = table.loc[table["split"] == "train", "path"].to_numpy()
    drawn = np.random.default_rng(_SEED).permutation(train)[:CALIBRATION]
    return read_crops([folder / path for path in drawn], spec.side)


def read_crops(paths: list[Path], side: int) -> np.ndarray:
    """Return crops as `faces.load_faces` has them, (n, 3, side, side) uint8.

    Raises `StudyError` for none at all, or one that cannot be read.
    """
    crops = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except OSError as error:
            raise StudyError(f"The crop {short_path(path)} cannot be read: {error}.") from error
        crops.append(np.asarray(image).transpose(2, 0, 1))
    if not crops:
        raise StudyError("There is no crop to read.")
    return np.stack(crops)


def quantise(source: Path, path: Path, crops: np.ndarray, spec: FaceSpec) -> Path:
    """Write the int8 twin of the ONNX file `source` to `path`, and return it.

    `crops`: (n, 3, side, side), uint8, by which the activations' ranges are found.
    """
    with replacing(path) as temporary, TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        # Symbolic shape inference is for graphs whose exporter left shapes out; torch's does not.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            temporary,
            _Batches(crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=kept_in_float(onnx.load(prepared).graph),
        )
        model = onnx.load(temporary)
        describe(model, replace(spec, precision="int8"))
        onnx.save(model, temporary)
    return path


def kept_in_float(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the layers that are not quantised.

    All before the first convolution (the preprocessing), products of two activations (attention),
    and the last layer before each output (the heads).
    """
    weights = {tensor.name for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    first = next(place for place, node in enumerate(graph.node) if node.op_type == "Conv")
    kept = {node.name for node in graph.node[:first]}
    for node in graph.node:
        if node.op_type in _QUANTISED and not weights & set(node.input):
            kept.add(node.name)
    for output in graph.output:
        kept |= _last_layers(output.name, makers)
    return sorted(kept)


def _last_layers(name: str, makers: dict[str, onnx.NodeProto]) -> set[str]:
    """Return the layers with weights that `name` is computed from without another in between."""
    found, names, seen = set(), [name], set()
    while names:
        node = makers.get(names.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _QUANTISED:
            found.add(node.name)
        else:
            names += node.input
    return found


class _Batches(CalibrationDataReader):
    """Gives the calibration crops to onnxruntime, a few at a time."""

    def __init__(self, crops: np.ndarray) -> None:
        self._parts = self._batches(crops)

    @staticmethod
    def _batches(crops: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(crops), _BATCH):
            yield {"crops": np.ascontiguousarray(crops[start : start + _BATCH])}

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return next(self._parts, None)
