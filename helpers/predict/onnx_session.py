"""An ONNX file opened with onnxruntime."""

from pathlib import Path

from helpers.errors import StudyError
from helpers.files import short_path
from helpers.predict.face_spec import KEY, FaceSpec

try:
    import onnxruntime
except ImportError:  # where only torch is installed
    onnxruntime = None


def open_session(path: Path, threads: int = 1) -> "onnxruntime.InferenceSession":
    """Return a session on the CPU with so many threads.

    Raises `StudyError` where onnxruntime or the file is missing, or the file is no ONNX model.
    """
    if onnxruntime is None:
        raise StudyError("The package onnxruntime is missing: pip install onnxruntime.")
    if not path.is_file():
        raise StudyError(f"The ONNX file {short_path(path)} does not exist.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own, none of them public
        raise StudyError(f"The file {short_path(path)} is no ONNX model that runs here.") from error


def read_spec(session: "onnxruntime.InferenceSession", path: Path) -> FaceSpec:
    """Return what the ONNX file `path` says of its faces.

    Raises `StudyError` where it was not made by `export`.
    """
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise StudyError(f"The file {short_path(path)} was not made by helpers.export.")
    return FaceSpec.from_json(text)
