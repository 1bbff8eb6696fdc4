"""Faces made harder to read, what each model loses on them, and whether pupil and teacher share it.

Strengths are shares of the crop or of the face, never pixels, so that a corruption means the same
to a network of 64 and of 224 pixels: corrupting a picture and then shrinking it comes to the same
as shrinking it first. Gaussian blur, Gaussian noise and JPEG compression are those of Hendrycks &
Dietterich (2019, *Benchmarking Neural Network Robustness to Common Corruptions*); as theirs speak
of pictures of 224 pixels, the widths are divided by 224, the noise has a grain of a 64th of the
crop, and the compression is applied at 256 pixels. The others are ours.

What is hidden is found from the landmarks and measured in distances between the eyes, which no
expression changes; places below the eyes are not measured from the mouth, which pain opens.

A drop is the AUROC on the faces as they are minus that on the same faces corrupted, so it is
paired over identities and seeds. A model near chance has little to lose: its drops are small for
that reason alone, and are to be read beside its clean AUROC.
"""

import hashlib
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from helpers.compare import HARD, Panel, comparisons
from helpers.devices import pick_device
from helpers.faces import IMAGENET_MEAN, load_faces
from helpers.files import StudyError, project_path, read_csv, sha256, write_csv
from helpers.models import ready
from helpers.runs import Run, weights_of
from helpers.stats import Estimate, Seeds
from helpers.text import teacher_of
from helpers.train import predictions_of

CLEAN = "clean"
LEVELS = (1, 2, 3)
# For hidden parts: the share of the part's extent that is hidden. The eyes' band grows from the
# eyes' line up and down (to brows and lower lids), the mask from the chin up to the bridge of the
# nose, the quarter from the edge of the face to its middle.
STRENGTHS = {
    "eyes": (1 / 3, 2 / 3, 1.0),
    "mask": (1 / 3, 2 / 3, 1.0),
    "quarter": (1 / 3, 2 / 3, 1.0),
    "gaussian_blur": (1 / 224, 3 / 224, 6 / 224),  # standard deviation, share of the crop
    "gaussian_noise": (0.04, 0.08, 0.16),  # standard deviation, share of the range of values
    "darkness": (0.6, 0.3, 0.1),  # factor of each value
    "jpeg_compression": (25, 10, 5),  # quality
    "rotation": (10.0, 20.0, 35.0),  # degrees, to a side drawn for each face
}
# Every (corruption, level), the faces as they are first; levels count from 1, the weakest.
CONDITIONS = [(CLEAN, 0)] + [(name, level) for name in STRENGTHS for level in LEVELS]
VERSION = 2  # of corruptions and scoring; what was kept of another version counts for nothing
_COLUMNS = ["arm", "seed", "corruption", "strength", "image_id", "probability"]
_DIGITS = 5  # of the probabilities that are kept
_GRAIN, _JPEG_SIDE = 64, 256
# Left and right eye, nose, left and right corner of the mouth, as shares of the crop: where they
# lie in the middle of many crops, for the faces that MTCNN did not find.
_TYPICAL = ((0.39, 0.43), (0.62, 0.43), (0.50, 0.58), (0.41, 0.70), (0.60, 0.70))


def read_landmarks(faces: pd.DataFrame) -> np.ndarray:
    """Return MTCNN's five points of each face as shares of its crop, (N, 5, 2), x before y.

    `faces`: rows of the crops' manifest. A face that was not found has NaN. Raises `StudyError`
    where the column is missing.
    """
    if "landmarks" not in faces:
        raise StudyError("The crops' manifest lacks the column landmarks: run notebook 02 again.")
    text = faces["landmarks"].astype(object).fillna("nan " * 10)
    points = text.str.split(expand=True).to_numpy(float).reshape(-1, 5, 2)
    return points / faces["width"].to_numpy(float)[:, None, None]


def corrupt(
    images: torch.Tensor, faces: pd.DataFrame, name: str, level: int, seed: int = 0
) -> torch.Tensor:
    """Return corrupted copies of crops, (N, 3, S, S) uint8 like `images`.

    `faces`: their N rows of the crops' manifest (`image_id`, `width`, `landmarks`).
    `name`, `level`: one of `CONDITIONS`. What is drawn (noise, quarter, direction) depends on
    `seed`, corruption and image_id alone: not on the level, the order or the other faces. Raises
    `StudyError` for a manifest without landmarks.
    """
    if name == CLEAN:
        return images
    strength = STRENGTHS[name][level - 1]
    draws = [
        np.random.default_rng([seed, zlib.crc32(f"{name} {image_id}".encode())])
        for image_id in faces["image_id"]
    ]
    if name not in _PARTS:
        return _PICTURES[name](images, strength, draws)
    hidden = _PARTS[name](*_places(faces, images.shape[-1]), strength, draws)
    fill = (torch.tensor(IMAGENET_MEAN) * 255).round().to(images.dtype)
    return torch.where(hidden[:, None], fill[:, None, None], images)


def _places(faces: pd.DataFrame, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return every pixel as seen from the middle of the eyes, in distances between the eyes.

    x, (N, 1, S), to the right; y, (N, S, 1), down; and the nose's x, (N, 1, 1): where the middle of
    a turned face is.
    """
    found = read_landmarks(faces)
    points = torch.from_numpy(np.where(np.isnan(found), _TYPICAL, found) * side).float()
    middle = points[:, :2].mean(dim=1)
    unit = (points[:, 1] - points[:, 0]).norm(dim=1).clamp(min=1e-3)[:, None]
    centres = torch.arange(side) + 0.5
    x = ((centres - middle[:, :1]) / unit)[:, None, :]
    y = ((centres - middle[:, 1:]) / unit)[:, :, None]
    return x, y, ((points[:, 2, :1] - middle[:, :1]) / unit)[:, :, None]


def _eyes(x, y, nose, share, draws):
    return (x.abs() <= 1.0) & (y >= -0.65 * share) & (y <= 0.4 * share)


def _mask(x, y, nose, share, draws):
    top, bottom, half = 0.45, 2.35, 0.95
    centre, height = (top + bottom) / 2, (bottom - top) / 2
    shape = ((x - nose / 2) / half) ** 4 + ((y - centre) / height) ** 4 <= 1
    return shape & (y >= bottom - share * (bottom - top))


def _quarter(x, y, nose, share, draws):
    which = torch.tensor([draw.integers(4) for draw in draws])
    right, lower = (part[:, None, None] * 2 - 1 for part in (which % 2, which // 2))
    across, down = (x - nose / 2) * right, (y - 0.6) * lower
    inside = (across >= 1.05 * (1 - share)) & (across <= 1.05)
    return inside & (down >= 1.6 * (1 - share)) & (down <= 1.6)


def _blur(images, width, draws):
    sigma = width * images.shape[-1]
    return gaussian_blur(images, 2 * max(1, round(4 * sigma)) + 1, sigma)


def _noise(images, sigma, draws):
    shape = (3, _GRAIN, _GRAIN)
    grains = torch.from_numpy(np.stack([d.standard_normal(shape, np.float32) for d in draws]))
    noise = F.interpolate(grains, tuple(images.shape[-2:]), mode="nearest-exact")
    return _bytes(images.float() + 255 * sigma * noise)


def _darkness(images, factor, draws):
    return _bytes(images.float() * factor)


def _jpeg(images, quality, draws):
    out = torch.empty_like(images)
    for row, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        picture, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
        large = picture.resize((_JPEG_SIDE, _JPEG_SIDE), Image.Resampling.BICUBIC)
        large.save(file, "JPEG", quality=quality)
        small = Image.open(file).resize(picture.size, Image.Resampling.BICUBIC)
        out[row] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return out


def _rotation(images, degrees, draws):
    sign = np.array([draw.choice([-1.0, 1.0]) for draw in draws])
    angle = torch.from_numpy(np.radians(degrees) * sign).float()
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(angle))
    affine = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return _bytes(F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False))


def _bytes(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


_PARTS = dict(eyes=_eyes, mask=_mask, quarter=_quarter)
_PICTURES = dict(gaussian_blur=_blur, gaussian_noise=_noise, darkness=_darkness)
_PICTURES |= dict(jpeg_compression=_jpeg, rotation=_rotation)


def predict_corrupted(
    runs: Sequence[Run], crops_dir: str | Path, parts_dir: str | Path, device: str = "auto"
) -> pd.DataFrame:
    """Return every run's decision on the test faces under each of `CONDITIONS`.

    One row a run, condition and face: arm, seed, corruption, strength (0 for the faces as they
    are, then 1 to 3), image_id, probability. Each run and condition is written to a file below
    `parts_dir` when it is done, and read from there the next time, as long as weights and crops are
    the same. Raises `StudyError` for a run without its weights, and crops that cannot be read, lack
    landmarks or have no test face.
    """
    faces_of = cache(lambda size: load_faces(crops_dir, size, "test"))
    model_of = cache(lambda number: ready(runs[number], pick_device(device)))
    sizes, folders = [run.params["parameters"]["image_size"] for run in runs], []
    for run, size in zip(runs, sizes, strict=True):
        key = [VERSION, STRENGTHS, faces_of(size).manifest_sha256, sha256(weights_of(run))]
        key = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
        folders.append(project_path(parts_dir) / run.name / f"seed{run.seed}-{key}")
    with tqdm(total=len(runs) * len(CONDITIONS), desc="Corruptions", unit="set") as bar:
        for name, level in CONDITIONS:
            images = {}  # made once for all runs: some corruptions take longer than to ask a model
            for number, (run, size) in enumerate(zip(runs, sizes, strict=True)):
                path, faces = folders[number] / f"{name}-{level}.csv", faces_of(size)
                if not path.is_file():
                    if size not in images:
                        images[size] = corrupt(faces.images, faces.table, name, level)
                    found = predictions_of(run, model_of(number), faces, images[size])
                    found = found.assign(corruption=name, strength=level)[_COLUMNS]
                    write_csv(path, found.round(_DIGITS))
                bar.update()
    files = [folder / f"{name}-{level}.csv" for folder in folders for name, level in CONDITIONS]
    return pd.concat([read_csv(path) for path in files], ignore_index=True)


def robustness_panel(corrupted: pd.DataFrame, panel: Panel) -> Panel:
    """Return `panel` with conditions (`eyes-2`) for heads: the decision's P(pain) in each.

    `corrupted`: of `predict_corrupted`, for the runs of `panel`. So all conditions share faces and
    draws. Raises `StudyError` where other faces were corrupted.
    """
    keys = ["arm", "corruption", "strength", "seed"]
    wide = corrupted.pivot(index="image_id", columns=keys, values="probability")
    wide = wide.reindex(panel.faces["image_id"]).sort_index(axis=1)
    if wide.isna().any(axis=None):
        raise StudyError("The crops hold other test faces than those that the runs were tested on.")
    probabilities = {
        arm: {f"{c}-{k}": wide[arm, c, k][panel.seeds[arm]].to_numpy().T for c, k in CONDITIONS}
        for arm in panel.arms
    }
    return Panel(panel.faces, probabilities, panel.seeds, panel.weights)


def drop(
    panel: Panel, arm: str, contrast: str, name: str, levels: Sequence[int] = LEVELS
) -> Estimate:
    """Return what a corruption costs an arm in AUROC, the mean over `levels`.

    `panel`: of `robustness_panel`.
    """
    clean = panel.auroc(arm, contrast, f"{CLEAN}-0")
    return _mean([clean - panel.auroc(arm, contrast, f"{name}-{level}") for level in levels])


def _mean(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates of the same runs on the same draws."""

    def mean(of: Callable) -> np.ndarray:
        return np.mean([of(part) for part in parts], axis=0)

    luck = ()
    if parts[0].luck:
        luck = (Seeds(mean(lambda e: e.luck[0].values), mean(lambda e: e.luck[0].draws)),)
    seeds = tuple(mean(lambda e: e.seeds).tolist())
    value, draws = float(mean(lambda e: e.value)), mean(lambda e: e.draws)
    return replace(parts[0], value=value, draws=draws, seeds=seeds, luck=luck)


def robustness_table(panel: Panel) -> pd.DataFrame:
    """Return AUROC and its drop with intervals, one row an arm, contrast, corruption, strength."""
    rows = []
    for arm, contrast, (name, level) in product(panel.arms, HARD, CONDITIONS):
        row = {"arm": arm, "contrast": contrast, "corruption": name, "strength": level}
        row |= panel.auroc(arm, contrast, f"{name}-{level}").row()
        lost = drop(panel, arm, contrast, name, [level]).row()
        rows.append(row | {f"drop_{key}": value for key, value in lost.items()})
    return pd.DataFrame(rows)


def extra_drop(panel: Panel, first: str, second: str, contrast: str, name: str) -> Estimate:
    """Return the drop of `first` minus that of `second`, the mean over levels.

    Paired over identities, and over seeds where both arms have the same ones.
    """
    a, b = (drop(panel, arm, contrast, name) for arm in (first, second))
    return panel.minus(a, b, first, second)


def inherited_table(panel: Panel) -> pd.DataFrame:
    """Return for each corruption how much more it costs one teacher, and one teacher's pupil.

    `teachers_*`: drop of `first_teacher` minus that of `second_teacher`, the mean over levels.
    `pupils_*`: the same for their pupils. One row a pair of pupils whose teachers are both among
    the arms (first and second as in `compare.comparisons`), contrast and corruption.
    """
    rows = []
    for (kind, *pupils), contrast, name in product(comparisons(panel), HARD, STRENGTHS):
        teachers = [teacher_of(pupil) for pupil in pupils]
        if kind == "taught" and set(teachers) <= set(panel.teachers):
            row = dict(zip(_PAIR, (*pupils, *teachers, contrast, name), strict=True))
            for who, pair in (("teachers", teachers), ("pupils", pupils)):
                found = extra_drop(panel, *pair, contrast, name)
                row |= {f"{who}_{key}": value for key, value in found.row().items()}
            rows.append(row)
    ends = [f"{who}_{key}" for who in ("teachers", "pupils") for key in ("estimate", "low", "high")]
    return pd.DataFrame(rows, columns=[*_PAIR, *ends])


_PAIR = "first second first_teacher second_teacher contrast corruption".split()


def rank_correlations(inherited: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's ρ over corruptions between the teachers' and the pupils' difference.

    `inherited`: see `inherited_table`. Columns first, second, contrast, corruptions, rho. It
    describes: the corruptions are a handful, chosen by hand, and no sample of any population.
    """
    keys, rows = ["first", "second", "contrast"], []
    for key, part in inherited.groupby(keys, sort=False):
        rho = part["teachers_estimate"].corr(part["pupils_estimate"], "spearman")
        rows.append((*key, len(part), rho))
    return pd.DataFrame(rows, columns=[*keys, "corruptions", "rho"])
