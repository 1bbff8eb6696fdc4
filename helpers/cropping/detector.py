"""Where the face is, in a batch of pictures of one size."""

import numpy as np

from helpers.cropping.align import Face, choose_face
from helpers.cropping.mtcnn import SMALLEST_FACE, Cascade, levels
from helpers.devices import pick_device

# Halves of full size are searched on levels of MTCNN's default pyramid: on others its networks see
# other pixels, and find the same faces with other boxes (IoU down to 0.8). Smaller pictures, which
# the default settings have no part in, are searched from `min_face_size` itself on.
_FULL_SIZE = 512


class FaceDetector:
    """MTCNN with its shipped weights; finds faces of at least `min_face_size` pixels.

    In a picture whose shorter side has 512 pixels or more, the faces of that size are those that
    `facenet_pytorch.MTCNN.detect` finds there with its default settings.
    """

    def __init__(self, min_face_size: float, device: str = "auto") -> None:
        """Load the three networks. Raises `StudyError` for `cuda` without a GPU."""
        self.min_face_size = min_face_size
        self._cascade = Cascade(pick_device(device)).eval()

    def __call__(self, pictures: list[np.ndarray]) -> list[Face | None]:
        """Return the chosen face of each picture, None where there is none.

        `pictures`: arrays (height, width, 3) of uint8, all of one size. Coordinates are in their
        pixels, rounded to 0.01. The last bits of the arithmetic, and with them now and then the
        last digit, depend on which pictures are given together.
        """
        height, width = pictures[0].shape[:2]
        if min(height, width) < self.min_face_size:  # MTCNN fails where no face can fit
            return [None] * len(pictures)
        full_size = min(height, width) >= _FULL_SIZE
        begin = min(SMALLEST_FACE, self.min_face_size) if full_size else self.min_face_size
        scales = levels(height, width, self.min_face_size, begin)
        found = self._cascade(np.stack(pictures), scales, to_the_bit=not full_size)
        return [choose_face(_faces(*parts), width, height) for parts in found]


def _faces(boxes: np.ndarray, probabilities: np.ndarray, landmarks: np.ndarray) -> list[Face]:
    return [
        Face(_rounded(box), _rounded(points), round(float(probability), 4))
        for box, points, probability in zip(boxes, landmarks, probabilities, strict=True)
    ]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(values, dtype=float), 2)
