"""What an ONNX file says of itself: the network's `face_spec`, and what it is not."""

from dataclasses import replace
from pathlib import Path

import onnx

from helpers.errors import StudyError
from helpers.predict.face_spec import KEY, FaceSpec

NOTICE = "Not a medical device. P(pain) of a study's network is no measurement of pain."


def describe(model: onnx.ModelProto, spec: FaceSpec) -> None:
    """Write `spec` into the metadata of an ONNX model, in place of what stands there."""
    onnx.helper.set_model_props(model, {KEY: spec.to_json()})
    model.doc_string = f"{NOTICE} Input: {spec.side} x {spec.side} RGB faces, uint8."


def made_of(path: Path, spec: FaceSpec) -> bool:
    """Return whether the ONNX file `path` is there and was made by this `spec`, precision aside."""
    if not path.is_file():
        return False
    props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    try:
        found = FaceSpec.from_json(props.get(KEY, ""))
    except StudyError:
        return False
    return replace(found, precision=spec.precision) == spec
