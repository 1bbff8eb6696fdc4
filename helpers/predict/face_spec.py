"""What has to be known of a trained network to bring it faces as in its training.

It travels inside the ONNX file, so that the file alone is enough; it needs no torch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers.errors import StudyError
from helpers.files import project_path, short_path

DECISION, CLASS_HEAD, DISTILLATION_HEAD = (
    *("probability", "probability_class", "probability_distillation"),
)
KEY = "face_spec"  # of the entry in an ONNX file's metadata
DETECTOR = ("pnet", "rnet", "onet")  # MTCNN's networks, each an ONNX file beside the model's
# The protocol's, for crops whose settings are not known.
CROP_SIZE, MARGIN, MIN_FACE_SIZE = 256, 0.2, 80
# A store of faces holds 256 pixels where the network's view has 224; see `faces.load_faces`.
_SOURCE_SIZE, _VIEW_SIZE = 256, 224


@dataclass(frozen=True)
class FaceSpec:
    """How a face comes to a network, and what comes out.

    `model`: the arm, such as `deit_tiny-swin`; `seed`: of its run. `heads`: the outputs, each a
    P(pain), the decision first. `image_size`: side of the network's view in pixels; `side`: of the
    faces that it is given. `crop_size`, `margin`, `min_face_size`: those of chapter 2.
    `weights_sha256`: of the run's weights. `precision`: `float32` or `int8` in ONNX; that of the
    run in torch.
    """

    model: str
    seed: int
    heads: tuple[str, ...]
    image_size: int
    side: int
    crop_size: int
    margin: float
    min_face_size: int
    weights_sha256: str
    precision: str

    def to_json(self) -> str:
        """Return it as the text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "FaceSpec":
        """Return what `to_json` wrote; raise `StudyError` where it is something else."""
        try:
            values = json.loads(text)
            return cls(**values | {"heads": tuple(values["heads"])})
        except (ValueError, TypeError, KeyError) as error:
            raise StudyError("The model's description of its faces cannot be read.") from error


def heads_of(stage: str, distilled: bool) -> tuple[str, ...]:
    """Return the columns of `predictions.csv` that a run's network fills.

    A teacher has one head, the decision; the distillation head of a student without a teacher was
    never trained.
    """
    if stage == "teacher":
        return (DECISION,)
    return (DECISION, CLASS_HEAD, *((DISTILLATION_HEAD,) if distilled else ()))


def side_of(image_size: int, crop_size: int) -> int:
    """Return the side of the faces that training gave a network of `image_size`, in pixels."""
    return max(image_size, min(round(image_size * _SOURCE_SIZE / _VIEW_SIZE), crop_size))


def crop_settings(crops_dir: str | Path) -> dict:
    """Return `crop_size`, `margin` and `min_face_size` of a crops folder, by its journal.

    The protocol's where there is no journal. Raises `StudyError` where the journal is damaged.
    """
    settings = {"crop_size": CROP_SIZE, "margin": MARGIN, "min_face_size": MIN_FACE_SIZE}
    path = project_path(crops_dir) / "journal.jsonl"
    if not path.is_file():
        return settings
    with path.open(encoding="utf-8") as lines:
        first = lines.readline()
    try:
        found = json.loads(first)["settings"]
        return {name: found[name] for name in settings}
    except (ValueError, TypeError, KeyError) as error:
        raise StudyError(f"The file {short_path(path)} does not begin with settings.") from error
