"""Pictures in, pictures out: whatever Pillow reads becomes RGB, and leaves as the same JPEG."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.files import replacing

# Named, because Pillow's other readers start programs (EPS) or read what is no photograph.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


class PictureError(ValueError):
    """A file that cannot be used as a picture; `reason` is a short name, the text one sentence.

    Reasons: `unreadable`, `empty_file`, `not_an_image`, `broken_image`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the short `reason` beside the sentence `detail`."""
        super().__init__(detail)
        self.reason = reason


def read_rgb(path: Path) -> np.ndarray:
    """Return the picture `path` as an array (height, width, 3) of uint8.

    The bytes decide the format, not the suffix. EXIF rotation is applied, transparency is laid on
    white, grey, CMYK, palette and 16-bit pictures are converted. Raises `PictureError`.
    """
    try:
        if path.stat().st_size == 0:
            raise PictureError("empty_file", "The file holds no bytes.")
        with Image.open(path, formats=_FORMATS) as image:
            return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not_an_image", "The bytes are not a picture's.") from error
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        raise PictureError("unreadable", f"The file cannot be read: {error.strerror}.") from error
    except Exception as error:  # Pillow's decoders raise many types where bytes are damaged
        detail = f"The picture is damaged: {type(error).__name__}: {error}."
        raise PictureError("broken_image", detail) from error


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write `pixels` (height, width, 3), uint8, as JPEG: quality 95, 4:4:4, no metadata.

    Every face of the study is written so, whatever its pair's format was: the format is no clue.
    """
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=95, subsampling=0)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep(np.asarray(image, dtype=np.float64))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep(values: np.ndarray) -> Image.Image:
    """Bring 16-bit or floating-point grey to 8 bits; the greatest value tells the scale."""
    scale = next((top for top in (1.0, 255.0, 65535.0) if values.max() <= top), values.max())
    grey = np.clip(values / scale * 255, 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
