"""What every network that says P(pain) of faces has, whatever it runs on."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from helpers.predict.face_spec import FaceSpec
from helpers.predict.faces import FaceFinder


@dataclass(frozen=True)
class Predictor:
    """A network, its detector and what both need to know.

    `score`: P(pain) of each of `spec.heads`, (N, heads) float32, for (N, side, side, 3) uint8.
    `finder`: makes the detector, for faces that do not come cropped. `note`: a sentence on how it
    scores. `alone`: a context for calls from several threads.
    """

    spec: FaceSpec
    runtime: str
    score: Callable[[np.ndarray], np.ndarray]
    finder: Callable[[], FaceFinder]
    note: str = ""
    alone: Callable[[], AbstractContextManager] = nullcontext
