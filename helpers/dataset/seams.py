"""Where the left half of a pair ends and the right half begins."""

from dataclasses import dataclass

import numpy as np

_REACH = 0.05  # how far from the middle the seam is sought, as a share of the picture's width
_WIDEST = 0.03  # the widest seam, likewise
_BLEND = 2  # columns beside the seam that mix both sides or ring from JPEG


@dataclass(frozen=True)
class Seam:
    """The columns `start` to `end` (exclusive) that belong to neither half.

    `kind`: `white`, a light line; `edge`, no line but a change from one column to the next;
    `middle`, neither was found, so the picture is cut in the middle and no column is dropped.
    """

    kind: str
    start: int
    end: int


def find_seam(pixels: np.ndarray) -> Seam:
    """Return the seam of a pair; `pixels` (height, width, 3), uint8.

    A white seam is a run of columns, within 5 % of the width from the middle and at most 3 % wide,
    whose darkest rows are still near white: darkest, because a white background is bright too, but
    not where shoulders cross it. Two columns beside it go with it. Some pairs have no line; there
    the seam is the one step that most rows share.
    """
    width = pixels.shape[1]
    reach = min(max(8, round(_REACH * width)), width // 2)
    first = width // 2 - reach
    window = pixels[:, first : width // 2 + reach]
    run = _white_run(window, limit=max(6, round(_WIDEST * width)))
    kind = "white"
    if run is None:
        run, kind = _step(window), "edge"
    if run is None:
        return Seam("middle", width // 2, width // 2)
    return Seam(kind, max(first + run[0] - _BLEND, 0), min(first + run[1] + _BLEND, width))


def split_at(pixels: np.ndarray, seam: Seam) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right half, both (height, width of the narrower one, 3).

    The wider half loses columns beside the seam, not at its outer edge.
    """
    width = min(seam.start, pixels.shape[1] - seam.end)
    return pixels[:, :width], pixels[:, pixels.shape[1] - width :]


def _white_run(window: np.ndarray, limit: int) -> tuple[int, int] | None:
    """Return the white run nearest to the window's middle as (first, last + 1), or None.

    The threshold rises until the runs are narrow: on light backgrounds the seam is lighter still.
    """
    whiteness = np.percentile(window.min(axis=2), 2, axis=0)
    middle = len(whiteness) / 2
    for threshold in (215, 230, 240, 248):
        light = np.concatenate([[0], whiteness >= threshold, [0]]).astype(int)
        starts, ends = np.flatnonzero(np.diff(light) == 1), np.flatnonzero(np.diff(light) == -1)
        runs = [
            (int(start), int(end))
            for start, end in zip(starts, ends, strict=True)
            if end - start <= limit and _stands_out(whiteness, start, end)
        ]
        if runs:
            return min(runs, key=lambda run: abs(sum(run) / 2 - middle))
    return None


def _stands_out(whiteness: np.ndarray, start: int, end: int) -> bool:
    """Tell whether the columns just beyond a run's blend are darker than the run, on both sides."""
    left, right = start - 1 - _BLEND, end + _BLEND
    if left < 0 or right >= len(whiteness):
        return False
    return max(whiteness[left], whiteness[right]) <= whiteness[start:end].max() - 12


def _step(window: np.ndarray) -> tuple[int, int] | None:
    """Return the columns within the one step that most rows share as (first, last + 1), or None."""
    grey = window.mean(axis=2)
    change = np.median(np.abs(np.diff(grey, axis=1)), axis=0)
    peak = int(change.argmax())
    if change[peak] < max(4, 4 * np.median(change)):
        return None
    part_of_it = change >= change[peak] / 4
    first = last = peak
    while first > 0 and part_of_it[first - 1]:
        first -= 1
    while last + 1 < len(change) and part_of_it[last + 1]:
        last += 1
    before, after = grey[:, max(first - 1, 0)], grey[:, min(last + 2, grey.shape[1] - 1)]
    lasting = np.median(np.abs(after - before)) >= 4
    return (first + 1, last + 1) if lasting else None
