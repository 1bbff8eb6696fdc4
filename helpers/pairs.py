"""A side-by-side pair: its picture whatever the suffix says, the seam, both halves, their hash."""

import io
import os
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.files import replacing
from helpers.naming import Unusable

# Named, because Pillow's other readers start programs (EPS) or read what is no photograph.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
# How their bytes begin: with less than that, a file is no damaged picture but none.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
# Forty times a pair of SynPAIN. More is a mistake or a decompression bomb, and fills the memory;
# phones have up to 200 million, which are read at a part of their size where that is asked for.
_MOST_PIXELS, _MOST_SHRUNK = 40_000_000, 210_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which lies between these
_MOST_BYTES = 256 * 2**20

_SMALLEST = 64  # width and height of a half, in pixels
# Width to height of a pair. SynPAIN's is 1.78; a half alone or a photograph of one person (4:3)
# lies below, three people side by side above.
_NARROWEST, _WIDEST = 1.4, 2.6
_REACH = 0.05  # how far from the middle the seam is sought, as a share of the picture's width
_WIDEST_SEAM = 0.03  # likewise
_BLEND = 2  # columns beside the seam that mix both sides or ring from JPEG


class PictureError(Unusable):
    """A file that cannot be used as a picture or as a pair.

    Reasons: `unreadable`, `empty_file`, `too_large`, `not_an_image`, `broken_image`; of a pair
    also `not_side_by_side`, `too_small`.
    """


class Picture(NamedTuple):
    """A picture, and what its file says of itself.

    `pixels`: (height, width, 3), uint8. `format`: "JPEG", "PNG", ..., which the bytes decide.
    `mode`: Pillow's name for the kind of pixel ("RGB", "RGBA", "I;16", ...). `shrunk`: how many
    times smaller than in the file width and height are.
    """

    pixels: np.ndarray
    format: str
    mode: str
    shrunk: int = 1


class Halves(NamedTuple):
    """A pair cut in two: `left` and `right`, both (height, width of the narrower one, 3), uint8.

    The columns `seam_start` to `seam_end` (exclusive) of the pair belong to neither. `seam` says
    why there: `white`, a light line; `edge`, no line but a change from one column to the next;
    `middle`, neither was found, so the pair is cut in the middle and no column is dropped.
    """

    left: np.ndarray
    right: np.ndarray
    seam: str
    seam_start: int
    seam_end: int


def read_bytes(path: str | Path) -> bytes:
    """Return a file's bytes; raise `PictureError` where it has none, too many, or is closed."""
    try:
        if not os.path.isfile(path):  # unlike Path's, it takes a link to itself for no file
            raise PictureError("unreadable", "This is neither a file nor a link to one.")
        if os.path.getsize(path) > _MOST_BYTES:
            raise PictureError("too_large", "The file has too many bytes for a pair.")
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError("unreadable", f"It cannot be read: {error.strerror}.") from error
    if not data:
        raise PictureError("empty_file", "The file holds no bytes.")
    return data


def open_picture(data: bytes, shrink: bool = False) -> Picture:
    """Return the picture whose file's bytes are `data`.

    EXIF rotation is applied, transparency is laid on white, grey, CMYK, palette and 16-bit pictures
    are converted; of several frames the first counts. `shrink`: a picture that is too large to be a
    pair is read at a half of its size, or a third, and so on. Raises `PictureError`, before
    decoding where a picture is too large all the same.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if (size := image.width * image.height) > (_MOST_SHRUNK if shrink else _MOST_PIXELS):
                raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
            pixels, factor = _as_rgb(ImageOps.exif_transpose(image)), 1
            while size > _MOST_PIXELS * factor**2:
                factor += 1
            if factor > 1:
                pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        # Where a download left zeros libjpeg fills up with grey, and Pillow passes no warning on.
        if image.format == "JPEG" and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
            raise OSError("its end is missing")
        return Picture(pixels, image.format, image.mode, factor)
    except Exception as error:  # Pillow's decoders raise many types where bytes are damaged
        if isinstance(error, Image.DecompressionBombError):
            raise PictureError("too_large", f"It has too many pixels ({error}).") from error
        if isinstance(error, UnidentifiedImageError) and not data.startswith(_BEGINNINGS):
            phone = data[4:8] == b"ftyp"  # of the family of MP4, as phones write
            kind = "HEIC's, AVIF's or a video's: save it as JPEG" if phone else "not a picture's"
            raise PictureError("not_an_image", f"The bytes are {kind}.") from error
        detail = f"The picture is damaged ({type(error).__name__})."
        raise PictureError("broken_image", detail) from error


def read_rgb(path: str | Path) -> np.ndarray:
    """Return the picture `path` as (height, width, 3), uint8; raises as `open_picture`."""
    return open_picture(read_bytes(path))[0]


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write `pixels` (height, width, 3), uint8, as JPEG: quality 95, 4:4:4, no metadata.

    Every face of the study is written so, whatever its pair's format was: the format is no clue.
    """
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=95, subsampling=0)


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
        grey = np.asarray(image).clip(0, 65535)
        bits = max(8, grey.max().item().bit_length() + 1 & ~1)  # cameras have 10, 12 or 14 of them
        image = Image.fromarray((grey * (255 / (2**bits - 1))).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def split_pair(pixels: np.ndarray) -> Halves:
    """Cut a pair, (height, width, 3) uint8, at its seam.

    The wider half loses columns beside the seam, not at its outer edge. Raises `PictureError`
    (`not_side_by_side`, `too_small`).
    """
    height, width = pixels.shape[:2]
    size = f"The picture is {width}×{height} pixels"
    if not _NARROWEST * height <= width <= _WIDEST * height:
        raise PictureError("not_side_by_side", f"{size}: not two faces side by side.")
    seam, start, end = _find_seam(pixels) if height >= _SMALLEST else ("middle", 0, 0)
    least = min(start, width - end)
    if min(height, least) < _SMALLEST:
        raise PictureError("too_small", f"{size}: a half needs {_SMALLEST}×{_SMALLEST}.")
    return Halves(pixels[:, :least], pixels[:, width - least :], seam, start, end)


def _find_seam(pixels: np.ndarray) -> tuple[str, int, int]:
    """Return the seam's kind, first column, and last column + 1 (see `Halves`).

    A white seam is a run of columns, within 5 % of the width from the middle and at most 3 % wide,
    whose darkest rows are still near white: darkest, because a white background is bright too, but
    not where shoulders cross it. Two columns beside it go with it. Some pairs have no line; there
    the seam is the one step that most rows share.
    """
    width = pixels.shape[1]
    reach = min(max(8, round(_REACH * width)), width // 2)
    first = width // 2 - reach
    window = pixels[:, first : width // 2 + reach]
    kind, run = "white", _white_run(window, limit=max(6, round(_WIDEST_SEAM * width)))
    if run is None:
        kind, run = "edge", _step(window)
    if run is None:
        return "middle", width // 2, width // 2
    return kind, max(first + run[0] - _BLEND, 0), min(first + run[1] + _BLEND, width)


def _white_run(window: np.ndarray, limit: int) -> tuple[int, int] | None:
    """Return the white run nearest to the window's middle as (first, last + 1), or None.

    The threshold rises until the runs are narrow: on light backgrounds the seam is lighter still.
    The columns just beyond a run's blend must be darker than the run, on both sides.
    """
    whiteness = np.percentile(window.min(axis=2), 2, axis=0)
    beyond = np.pad(whiteness, _BLEND + 1, constant_values=np.inf)
    for threshold in (215, 230, 240, 248):
        light = (whiteness >= threshold).astype(int)
        ends = np.flatnonzero(np.diff(light, prepend=0, append=0)).reshape(-1, 2).tolist()
        runs = [
            (start, end)
            for start, end in ends
            if end - start <= limit
            and max(beyond[start], beyond[end + 2 * _BLEND + 1]) <= whiteness[start:end].max() - 12
        ]
        if runs:
            return min(runs, key=lambda run: abs(sum(run) - len(whiteness)))
    return None


def _step(window: np.ndarray) -> tuple[int, int] | None:
    """Return the columns within the one step that most rows share as (first, last + 1), or None."""
    grey = window.mean(axis=2)
    change = np.median(np.abs(np.diff(grey, axis=1)), axis=0)
    first = last = peak = int(change.argmax())
    if change[peak] < max(4, 4 * np.median(change)):
        return None
    part_of_it = change >= change[peak] / 4
    while first > 0 and part_of_it[first - 1]:
        first -= 1
    while last + 1 < len(change) and part_of_it[last + 1]:
        last += 1
    before, after = grey[:, max(first - 1, 0)], grey[:, min(last + 2, grey.shape[1] - 1)]
    lasting = np.median(np.abs(after - before)) >= 4
    return (first + 1, last + 1) if lasting else None


def picture_hash(pixels: np.ndarray) -> str:
    """Return the perceptual hash of a picture (height, width, 3): pHash and dHash of 256 bits each.

    As 128 hexadecimal digits. Sources: Zauner, "Implementation and benchmarking of perceptual image
    hash functions", 2010 (pHash); the package imagehash (dHash: each cell brighter than the last).
    """
    image = Image.fromarray(pixels)
    return f"{imagehash.phash(image, 16)}{imagehash.dhash(image, 16)}"
