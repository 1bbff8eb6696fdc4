"""Brow, eyes, nose and mouth of a crop by MTCNN's five points, and what of a map lies in each.

The bounds are a choice, in units of the distance between the eyes, so that they grow with the
face. They follow where pain shows (Prkachin and Solomon 2008, Pain 139, 267–274): a lowered brow;
closed or tightened lids and raised cheeks, hence the eyes' margin downwards and outwards; a
wrinkled nose. The mouth, which often opens or stretches as well, is added.
"""

import numpy as np
import pandas as pd

from helpers.errors import StudyError

REGIONS = ("brow", "eyes", "nose", "mouth")
ELSEWHERE = "elsewhere"
_POINTS = 5
# Of the eyes' distance. Across from the line through the middle of the face; down from the eyes,
# for the mouth from its corners.
_BROW, _EYES = (-0.65, -0.2), (-0.2, 0.3)
_FACE_HALF, _NOSE_HALF = 0.85, 0.4
_BELOW_NOSE = 0.15
_MOUTH, _BESIDE_MOUTH = (-0.3, 0.45), 0.15


def read_landmarks(table: pd.DataFrame, image_size: int) -> np.ndarray:
    """Return MTCNN's points in pixels of the network's input, (N, 5, 2) float64.

    `table`: rows of a crops manifest. A face that MTCNN did not find has NaN. Order: see
    `align.Face`. Raises `StudyError` for a missing column, or points that are not five.
    """
    for name in ("detected", "landmarks", "width"):
        if name not in table:
            raise StudyError(f"The crops' manifest lacks the column {name}: run notebook 02 again.")
    points = np.full((len(table), 2 * _POINTS), np.nan)
    known = table["detected"].astype(bool) & table["landmarks"].notna()
    for row, text in zip(np.flatnonzero(known), table.loc[known, "landmarks"], strict=True):
        values = text.split()
        if len(values) != 2 * _POINTS:
            raise StudyError(f"The crop {table['image_id'].iloc[row]} has not five landmarks.")
        points[row] = [float(value) for value in values]
    scale = image_size / table["width"].to_numpy(float)
    return points.reshape(-1, _POINTS, 2) * scale[:, None, None]


def region_masks(landmarks: np.ndarray, image_size: int) -> np.ndarray:
    """Return which pixels belong to each of `REGIONS`, (N, 4, image_size, image_size) bool.

    No pixel belongs to two regions; of a face without landmarks none belongs to any. `landmarks`:
    (N, 5, 2), see `read_landmarks`.
    """
    left, right, nose, *corners = np.moveaxis(np.asarray(landmarks, float), 1, 0)
    middle, axis = (left + right) / 2, right - left
    square = (axis**2).sum(axis=1)

    def across_and_down(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (..., N) along and across the line of the eyes, in their distance."""
        x, y = np.moveaxis(points - middle, -1, 0)
        across = (x * axis[:, 0] + y * axis[:, 1]) / square
        return across, (y * axis[:, 0] - x * axis[:, 1]) / square

    centres = np.arange(image_size) + 0.5
    grid = np.stack(np.meshgrid(centres, centres), axis=-1)
    across, down = across_and_down(grid[:, :, None, :])
    tip, tip_down = across_and_down(nose)
    (left_corner, left_down), (right_corner, right_down) = map(across_and_down, corners)
    lips, lips_down = (left_corner + right_corner) / 2, (left_down + right_down) / 2
    beside = abs(right_corner - left_corner) / 2 + _BESIDE_MOUTH
    face = abs(across) <= _FACE_HALF

    def between(low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
        return (down > low) & (down <= high)

    # A turned head brings points close together: what comes first keeps the pixel.
    claims = (
        face & between(*_BROW),
        face & between(*_EYES),
        (abs(across - tip / 2) <= _NOSE_HALF) & between(_EYES[1], tip_down + _BELOW_NOSE),
        (abs(across - lips) <= beside) & between(lips_down + _MOUTH[0], lips_down + _MOUTH[1]),
    )
    masks = np.zeros((len(REGIONS), *across.shape), bool)
    for region, claim in enumerate(claims):
        masks[region] = claim & ~masks[:region].any(axis=0)
    return np.moveaxis(masks, -1, 0)


def region_shares(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """Return what share of each map lies in each region, and beside it what chance would put there.

    One row a face and region (`REGIONS` and `elsewhere`): `face` (its place), `region`, `share`
    (NaN for a map of NaN), `chance`, which is the region's share of the picture. `maps`: (N, S, S)
    with sum 1; `masks`: (N, 4, S, S). Raises `StudyError` where they do not fit.
    """
    if maps.shape != masks.shape[:1] + masks.shape[2:]:
        raise StudyError("The maps and the regions are of different faces or sizes.")
    share = np.einsum("nij,nrij->nr", maps.astype(float), masks.astype(float))
    chance = masks.mean(axis=(2, 3))
    share, chance = (np.column_stack([x, 1 - x.sum(axis=1)]) for x in (share, chance))
    names = [*REGIONS, ELSEWHERE]
    return pd.DataFrame(
        {
            "face": np.repeat(np.arange(len(maps)), len(names)),
            "region": names * len(maps),
            "share": share.ravel(),
            "chance": chance.ravel(),
        }
    )
