"""Pictures in, pictures out: whatever Pillow reads becomes RGB, and leaves as the same JPEG."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.files import replacing

# Named, because Pillow's other readers start programs (EPS) or read what is no photograph.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
# Forty times a pair of SynPAIN. More is a mistake or a decompression bomb, and fills the memory.
_MOST_PIXELS = 40_000_000
_MOST_BYTES = 256 * 2**20
# How the bytes of a picture begin: with less than that, it is no damaged picture but none.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


class PictureError(ValueError):
    """A file that cannot be used as a picture; `reason` is a short name, the text one sentence.

    Reasons: `unreadable`, `empty_file`, `not_an_image`, `broken_image`, `too_large`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the short `reason` beside the sentence `detail`."""
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A picture that was read, and what its file said of itself.

    `pixels`, an array (height, width, 3) of uint8; `format`, that of the bytes ("JPEG", "PNG",
    ...); `mode`, Pillow's name for the kind of pixel ("RGB", "RGBA", "I;16", ...).
    """

    pixels: np.ndarray
    format: str
    mode: str


def read_picture(path: Path) -> Picture:
    """Return the picture `path` with its format and mode.

    The bytes decide the format, not the suffix. EXIF rotation is applied, transparency is laid on
    white, grey, CMYK, palette and 16-bit pictures are converted; of several frames the first
    counts. Raises `PictureError`, before decoding where a picture is too large to be a pair.
    """
    try:
        data = _read_bytes(path)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise _too_large(f"{image.width}×{image.height} pixels")
            file_format, mode = str(image.format), image.mode
            pixels = np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
        if data.startswith(b"\xff\xd8") and not _has_end(data):
            raise PictureError("broken_image", "The picture is damaged: its end is missing.")
        return Picture(pixels, file_format, mode)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        if data.startswith(_BEGINNINGS):
            detail = "The picture is damaged: it begins like one and cannot be opened."
            raise PictureError("broken_image", detail) from error
        raise PictureError("not_an_image", "The bytes are not a picture's.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("far too many pixels") from error
    except Exception as error:  # Pillow's decoders raise many types where bytes are damaged
        detail = f"The picture is damaged: {type(error).__name__}: {error}."
        raise PictureError("broken_image", detail) from error


def read_rgb(path: Path) -> np.ndarray:
    """Return the pixels of `read_picture`: an array (height, width, 3) of uint8."""
    return read_picture(path).pixels


def check_size(path: Path) -> int:
    """Return the size of the file `path` in bytes.

    Raises `PictureError` for an empty file, one too large to be a pair, or one out of reach.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(error) from error
    if size == 0:
        raise PictureError("empty_file", "The file holds no bytes.")
    if size > _MOST_BYTES:
        raise _too_large(f"{size:,} bytes")
    return size


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write `pixels` (height, width, 3), uint8, as JPEG: quality 95, 4:4:4, no metadata.

    Every face of the study is written so, whatever its pair's format was: the format is no clue.
    """
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=95, subsampling=0)


def _read_bytes(path: Path) -> bytes:
    check_size(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> PictureError:
    return PictureError("unreadable", f"The file cannot be read: {error.strerror}.")


def _too_large(size: str) -> PictureError:
    return PictureError("too_large", f"The picture has {size}, too many for a pair.")


def _has_end(jpeg: bytes) -> bool:
    """Tell whether the last scan of a JPEG ends.

    libjpeg fills up with grey where a download left zeros, and Pillow does not pass its warning on.
    """
    return b"\xff\xd9" in jpeg[jpeg.rfind(b"\xff\xda") :]


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep(np.asarray(image, dtype=np.float64))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep(values: np.ndarray) -> Image.Image:
    """Bring 16-bit or floating-point grey to 8 bits; the greatest value tells the scale."""
    values = np.nan_to_num(values)
    scale = next((top for top in (1.0, 255.0, 65535.0) if values.max() <= top), values.max())
    grey = np.clip(values / scale * 255, 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
