"""The picture with its faces framed and what was said of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION = "A study's network, not a medical device"
# Blue and vermilion of `figures`, which needs matplotlib; neither is the red of an alarm.
_COLOURS = {"Pain": "#D55E00", "NoPain": "#0072B2", "": "#767676"}
_LINE, _TEXT, _LEAST_TEXT = 1 / 250, 1 / 26, 11  # of the picture's shorter side; in pixels


@dataclass(frozen=True)
class Mark:
    """What to write of one face, or of a half without one.

    `box`: x1, y1, x2, y2 in pixels of the picture, or None. `start`: first column of its half.
    """

    box: tuple[float, ...] | None
    start: int
    probability: float | None
    decision: str
    warnings: tuple[str, ...]

    @property
    def words(self) -> str:
        """What stands beside the frame."""
        said = [] if self.probability is None else [f"P(pain) {self.probability:.2f}"]
        return ", ".join([*said, *(warning.replace("_", " ") for warning in self.warnings)])


def annotate(pixels: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Return `pixels` (height, width, 3), uint8, with every mark, and the caption below it."""
    height, width = pixels.shape[:2]
    size = max(_LEAST_TEXT, round(min(height, width) * _TEXT))
    font = ImageFont.load_default(size)
    strip = round(1.8 * size)
    picture = Image.new("RGB", (width, height + strip), "#1F1F1F")
    picture.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(height, width) * _LINE))
    for mark in marks:
        colour = _COLOURS[mark.decision]
        x, y = mark.start + size // 3, size // 3
        if mark.box is not None:
            draw.rectangle(mark.box, outline=colour, width=line)
            x, y = mark.box[0], mark.box[1] - 1.4 * size
        room = round(draw.textlength(mark.words, font=font)) + size // 2
        x = min(max(x, 0), max(0, width - room))
        y = min(max(y, 0), height - 1.4 * size)
        draw.rectangle((x, y, x + room, y + 1.4 * size), fill=colour)
        draw.text((x + size // 4, y + 0.2 * size), mark.words, "white", font)
    draw.text((size // 3, height + 0.35 * size), CAPTION, "white", font)
    return np.asarray(picture)
