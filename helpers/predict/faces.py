"""From a picture to the face that a network is shown, as in training, and what is odd about it.

Chapters 1 and 2 write a half and a crop as JPEG before the next step reads them; here the same is
done in memory, so that the network sees the same pixels. Needs no torch.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from helpers.cropping.align import Face, choose_face, crop_centre, crop_face
from helpers.dataset.pictures import PictureError
from helpers.dataset.seams import find_seam, split_at
from helpers.predict.face_spec import FaceSpec

# As notebook 02 has it: see `detector` and `mtcnn`, which need torch.
FULL_SIZE, SMALLEST_FACE, STEP, WINDOW = 512, 20, 0.709, 12
# As notebook 01 has it: width to height of a pair, and the least side of a half, in pixels.
NARROWEST, WIDEST, SMALLEST_HALF = 1.4, 2.6, 64
# MTCNN is rarely as sure of something that is no face.
_SURE = 0.95
# See `sharpness`. Of 100 faces of the stand-in and 18 of SynPAIN the least had 0.033; blurred by a
# Gaussian of 2 % of the crop's width the most had 0.0033.
BLURRED = 0.01
_BLUR_SIDE = 128
_MOST_PIXELS = 2_000_000  # of a level of the pyramid, where small faces are looked for

NO_FACE, SEVERAL, SMALL, BLUR = "no_face", "several_faces", "small_face", "blurred"


@dataclass(frozen=True)
class Seen:
    """What was found in a picture.

    `face`: the chosen one, in pixels of the picture, or None; `count`: how many there are;
    `image`: (side, side, 3), uint8, what the network is given, None without a face; `warnings`:
    of `NO_FACE`, `SEVERAL`, `SMALL`, `BLUR`.
    """

    face: Face | None
    count: int
    image: np.ndarray | None
    warnings: tuple[str, ...]


class FaceFinder:
    """Finds the faces of a picture with MTCNN's cascade, searched as in chapter 2."""

    def __init__(self, cascade: Callable, min_face_size: float) -> None:
        """Take a `mtcnn.Cascade` or an `onnx_mtcnn.OnnxCascade`, and the smallest face."""
        self._cascade, self.min_face_size = cascade, min_face_size

    def __call__(self, pixels: np.ndarray, smallest: float | None = None) -> list[Face]:
        """Return the faces of at least `smallest` pixels in `pixels` (height, width, 3), uint8.

        Coordinates are rounded to 0.01 pixels. A picture is searched by itself: the answer does
        not depend on what else is searched.
        """
        smallest = self.min_face_size if smallest is None else smallest
        height, width = pixels.shape[:2]
        if min(height, width) < smallest:  # MTCNN fails where no face can fit
            return []
        full_size = min(height, width) >= FULL_SIZE
        begin = min(SMALLEST_FACE, smallest) if full_size else smallest
        scales = levels(height, width, smallest, begin)
        ((boxes, probabilities, points),) = self._cascade(
            pixels[None], scales, to_the_bit=not full_size
        )
        return [
            Face(_rounded(box), _rounded(five), round(float(probability), 4))
            for box, five, probability in zip(boxes, points, probabilities, strict=True)
        ]


def levels(height: int, width: int, smallest: float, begin: float) -> list[float]:
    """Return the scales of MTCNN's pyramid; see `mtcnn.levels`, which needs torch."""
    scale, scales = WINDOW / begin, []
    side = min(height, width) * scale
    while side >= WINDOW - 1e-6:
        scales.append(scale)
        scale, side = scale * STEP, side * STEP
    return [s for s in scales if WINDOW / (s * STEP) > smallest]


def see(pixels: np.ndarray, find: FaceFinder, spec: FaceSpec, centre: bool = False) -> Seen:
    """Return the face of a picture (height, width, 3), uint8, aligned and cut as in training.

    Where there is none of at least `spec.min_face_size` pixels, a smaller one is looked for; one
    that is smaller, or smaller than the network's view, is flagged. Where there is none at all
    nothing is cut, unless by `centre` the central square, as in training: a network says something
    of that too, and it means nothing.
    """
    height, width = pixels.shape[:2]
    faces = find(pixels)
    if not faces:
        faces = find(pixels, _least(height, width, spec))
    face = choose_face(faces, width, height)
    if face is None and not centre:
        return Seen(None, 0, None, (NO_FACE,))
    if face is None:
        return _shown(as_stored(crop_centre(pixels, spec.crop_size)), None, 0, [NO_FACE], spec)
    warnings = []
    others = [one for one in faces if one is not face and one.probability >= _SURE]
    warnings += [SEVERAL] if others else []
    longer = max(face.box[2:] - face.box[:2])
    if longer < spec.min_face_size or longer * (1 + 2 * spec.margin) < spec.image_size:
        warnings.append(SMALL)
    crop, _ = crop_face(pixels, face, spec.crop_size, spec.margin)
    return _shown(as_stored(crop), face, 1 + len(others), warnings, spec)


def _least(height: int, width: int, spec: FaceSpec) -> float:
    """Return the smallest face that is looked for at all: less would fill the memory."""
    finest = WINDOW * math.sqrt(height * width / _MOST_PIXELS)
    return min(max(SMALLEST_FACE, finest), spec.min_face_size)


def see_cropped(pixels: np.ndarray, spec: FaceSpec) -> Seen:
    """Return a picture that is a face's crop already; of one that is no square, the middle."""
    height, width = pixels.shape[:2]
    warnings = [SMALL] if min(height, width) < spec.image_size else []
    if height != width:
        pixels = as_stored(crop_centre(pixels, spec.crop_size))
    return _shown(pixels, None, 1, warnings, spec)


def halves(pixels: np.ndarray) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
    """Return each half of a side-by-side pair, as chapter 1 stores it, and its first column.

    Raises `PictureError` for a picture that is not two faces side by side, or too small.
    """
    height, width = pixels.shape[:2]
    if not NARROWEST * height <= width <= WIDEST * height:
        detail = f"The picture is {width}×{height} pixels: not two faces side by side."
        raise PictureError("not_side_by_side", detail)
    parts = [pixels[:, :0]] * 2
    if min(height, width) >= SMALLEST_HALF:
        parts = split_at(pixels, find_seam(pixels))
    if min(parts[0].shape[:2]) < SMALLEST_HALF:
        detail = f"The picture is {width}×{height} pixels: a half needs {SMALLEST_HALF} each way."
        raise PictureError("too_small", detail)
    left, right = map(as_stored, parts)
    return (left, 0), (right, width - right.shape[1])


def as_stored(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` as they are once `pictures.write_jpeg` has written and a reader read them."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=95, subsampling=0)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def sharpness(image: np.ndarray) -> float:
    """Return the share of a face's contrast that is in its finest detail, about 0 to 0.3.

    That is the variance of the difference to a copy at a quarter of the size, over the whole
    variance, of the grey picture at 128 × 128. `image`: (height, width, 3), uint8.
    """
    grey = Image.fromarray(image).convert("L")
    grey = grey.resize((_BLUR_SIDE, _BLUR_SIDE), Image.Resampling.LANCZOS)
    small = grey.resize((_BLUR_SIDE // 4,) * 2, Image.Resampling.LANCZOS)
    rough = np.asarray(small.resize(grey.size, Image.Resampling.BICUBIC), float)
    fine = np.asarray(grey, float)
    return float(np.var(fine - rough) / max(np.var(fine), 1.0))


def _shown(
    crop: np.ndarray, face: Face | None, count: int, warnings: list[str], spec: FaceSpec
) -> Seen:
    if sharpness(crop) < BLURRED:
        warnings.append(BLUR)
    image = Image.fromarray(crop).resize((spec.side, spec.side), Image.Resampling.BICUBIC)
    return Seen(face, count, np.asarray(image), tuple(warnings))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(values, dtype=float), 2)
