"""A network that says P(pain) of faces: from a run folder in torch, or from an ONNX file.

All that needs torch is in `in_torch`, which is imported where it is asked for.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from helpers.errors import StudyError
from helpers.files import ROOT, short_path
from helpers.predict.face_spec import DETECTOR
from helpers.predict.faces import FaceFinder
from helpers.predict.onnx_mtcnn import OnnxCascade
from helpers.predict.onnx_session import open_session, read_spec
from helpers.predict.predictor import Predictor

RUNTIMES = ("auto", "torch", "onnx")
_TORCH = ("torch", "timm", "safetensors", "facenet_pytorch")
FOLDER, MODEL, INT8 = "onnx", "model.onnx", "model_int8.onnx"  # written by `export`


def load_predictor(model: str | Path, runtime: str = "auto", device: str = "auto") -> Predictor:
    """Return the network of a run folder, of an ONNX file or of a folder that `export` wrote.

    `model` counts from the working directory, else from the project's root. With `auto` a run
    folder is opened in torch where torch is installed, else the export within it. `device`: of
    torch. Raises `StudyError` where the model, the package or a file is missing.
    """
    if runtime not in RUNTIMES:
        raise StudyError(f"Unknown runtime '{runtime}': choose one of {', '.join(RUNTIMES)}.")
    path = _existing(model)
    is_run = path.is_dir() and (path / "params.json").is_file()
    if runtime == "torch" and not is_run:
        raise StudyError(f"torch needs a run folder, and {short_path(path)} is none.")
    if runtime == "torch" and not has_torch():
        raise StudyError(f"The runtime torch needs the packages {', '.join(_TORCH)}.")
    if runtime == "torch" or (runtime == "auto" and is_run and has_torch()):
        from helpers.predict.in_torch import torch_predictor

        return torch_predictor(path, device)
    if path.is_dir():
        path = path / FOLDER / MODEL if is_run else path / MODEL
        if is_run and not path.is_file():
            run = short_path(path.parent.parent)
            raise StudyError(f"The run {run} has no export: python -m helpers.export {run}.")
    return _onnx_predictor(path)


def has_torch() -> bool:
    """Return whether all that a run folder is opened with can be imported."""
    return all(find_spec(package) is not None for package in _TORCH)


def _existing(model: str | Path) -> Path:
    path = Path(model).expanduser()
    found = next((p for p in (Path.cwd() / path, ROOT / path) if p.exists()), None)
    if found is None:
        raise StudyError(f"The model {path} does not exist.")
    return found


def _onnx_predictor(path: Path) -> Predictor:
    session = open_session(path)
    spec = read_spec(session, path)

    def score(images: np.ndarray) -> np.ndarray:
        crops = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return np.column_stack(session.run(list(spec.heads), {"crops": crops}))

    def finder() -> FaceFinder:
        lacking = [name for name in DETECTOR if not (path.parent / f"{name}.onnx").is_file()]
        if lacking and has_torch():
            from helpers.predict.in_torch import torch_finder

            return torch_finder("cpu", spec)
        return FaceFinder(OnnxCascade(path.parent), spec.min_face_size)

    note = f"Scored with {path.name} in onnxruntime ({spec.precision})."
    return Predictor(spec, "onnx", score, finder, note)
