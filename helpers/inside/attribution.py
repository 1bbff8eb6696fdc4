"""How much of what trained networks look at lies in brow, eyes, nose and mouth.

Asked of the Pain faces of the test split: there a network should look at the pain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.bootstrap import Estimate, enough_identities, estimates, identity_weights
from helpers.devices import pick_device
from helpers.errors import StudyError
from helpers.inside.regions import read_landmarks, region_masks, region_shares
from helpers.inside.saliency import cell_maps, saliency
from helpers.metrics import is_pain
from helpers.training.faces import load_faces
from helpers.training.runs import Run
from helpers.training.trained import is_distilled, trained_model

_KEY = ["arm", "seed", "method", "region"]


@dataclass(frozen=True)
class Attribution:
    """Shares of maps in regions, face by face.

    `faces`: one row a face, run, method and region: `image_id`, `identity`, `arm`, `seed`,
    `method` (a key of `saliency.METHODS`), `region`, `share` (NaN where Grad-CAM found nothing that
    speaks for pain), `chance` (the region's share of the picture) and `most`, the largest share
    that maps of this coarseness can have there. `undetected`: Pain faces that were left out, as
    MTCNN had not found them.
    """

    faces: pd.DataFrame
    undetected: int


def attribute(runs: Iterable[Run], crops_dir: str | Path, device: str = "auto") -> Attribution:
    """Return the shares of every run's maps on the Pain faces of the test split.

    Teachers by Grad-CAM; students by Grad-CAM, to compare them with their teachers, and by
    attention rollout. In float32. Raises `StudyError` for a run without its weights, crops that
    cannot be read, and a split without a Pain face that MTCNN found.
    """
    parts, known = [], {}
    for run in runs:
        size = run.params["parameters"]["image_size"]
        if size not in known:
            known = {size: _pain_faces(crops_dir, size)}
        faces = known[size]
        masks = region_masks(faces.landmarks, size)
        model = trained_model(run, pick_device(device))
        most = _most(cell_maps(model, size), masks)
        for method in methods_of(run):
            maps = saliency(model, faces.images, size, method, is_distilled(run))
            shares = region_shares(maps, masks).assign(most=most.ravel())
            seen = faces.table[["image_id", "identity"]].iloc[shares.pop("face")]
            seen = seen.assign(arm=run.name, seed=run.seed, method=method)
            parts.append(pd.concat([seen.reset_index(drop=True), shares], axis=1))
    if not parts:
        raise StudyError("There is no run to look into.")
    return Attribution(pd.concat(parts, ignore_index=True), faces.undetected)


def methods_of(run: Run) -> list[str]:
    """Return the methods by which a run is asked, keys of `saliency.METHODS`."""
    return ["grad_cam"] if run.stage == "teacher" else ["grad_cam", "rollout"]


@dataclass(frozen=True)
class _PainFaces:
    """Detected Pain faces of the test split: manifest rows, (N, 3, S, S) uint8, (N, 5, 2)."""

    table: pd.DataFrame
    images: torch.Tensor
    landmarks: np.ndarray
    undetected: int


def _pain_faces(crops_dir: str | Path, image_size: int) -> _PainFaces:
    faces = load_faces(crops_dir, image_size, "test")
    rows = np.flatnonzero(is_pain(faces.table))
    landmarks = read_landmarks(faces.table.iloc[rows], image_size)
    found = np.isfinite(landmarks).all(axis=(1, 2))
    if not found.any():
        raise StudyError("The test split holds no Pain face that was detected.")
    images = faces.images[rows[found]]
    return _PainFaces(faces.table.iloc[rows[found]], images, landmarks[found], int((~found).sum()))


def _most(single: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the largest share of any one cell in each region and elsewhere, (faces, regions)."""
    shares = np.einsum("cij,nrij->nrc", single, masks.astype(np.float32))
    return np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1).max(axis=2)


@dataclass(frozen=True)
class Examples:
    """A few Pain faces with the maps of one run an arm.

    `pictures`: (count, S, S, 3) uint8. `masks`: see `regions.region_masks`. `maps`: by arm and
    method, see `saliency.saliency`.
    """

    pictures: np.ndarray
    masks: np.ndarray
    maps: dict[tuple[str, str], np.ndarray]


def examples(
    runs: Iterable[Run], crops_dir: str | Path, count: int = 4, device: str = "auto"
) -> Examples:
    """Return the maps of `count` Pain faces, spread evenly over the test split and not chosen.

    Of each arm the first run. Raises `StudyError` as `attribute` does.
    """
    firsts: dict[str, Run] = {}
    for run in runs:
        firsts.setdefault(run.name, run)
    sizes = {run.params["parameters"]["image_size"] for run in firsts.values()}
    if len(sizes) != 1:
        raise StudyError("Maps can be shown side by side for networks of one input size only.")
    size = sizes.pop()
    faces = _pain_faces(crops_dir, size)
    rows = np.unique(np.linspace(0, len(faces.table) - 1, count).round().astype(int))
    maps = {}
    for arm, run in firsts.items():
        model = trained_model(run, pick_device(device))
        for method in methods_of(run):
            found = saliency(model, faces.images[rows], size, method, is_distilled(run))
            maps[arm, method] = found
    pictures = faces.images[rows].permute(0, 2, 3, 1).numpy()
    return Examples(pictures, region_masks(faces.landmarks[rows], size), maps)


def attribution_table(found: Attribution) -> pd.DataFrame:
    """Return the mean over faces for each arm, seed, method and region.

    `share`, `chance`, `ratio` (share over chance: above 1 the network looks there more than
    anywhere), `most`, `faces` (those that count) and `blank` (those without a map).
    """
    known = found.faces[found.faces["share"].notna()]
    table = known.groupby(_KEY, sort=False)[["share", "chance", "most"]].mean()
    table.insert(2, "ratio", table["share"] / table["chance"])
    table["faces"] = known.groupby(_KEY, sort=False).size()
    every = found.faces.groupby(_KEY, sort=False).size()
    table = table.reindex(every.index)
    table["faces"] = table["faces"].fillna(0).astype(int)
    return table.assign(blank=every - table["faces"]).reset_index()


def attribution_ratios(
    found: Attribution, samples: int, seed: int
) -> dict[tuple[str, str, str], Estimate]:
    """Return share over chance with its interval, by method, arm and region.

    By the bootstrap over identities (`bootstrap`); all arms share the draws, so that two may be
    subtracted. A face without a map counts for nothing in its run.
    """
    faces = found.faces.drop_duplicates("image_id").sort_values("image_id", ignore_index=True)
    identities = faces["identity"].to_numpy()
    weights = identity_weights(identities, samples, seed)
    ratios = {}
    for (method, arm), table in found.faces.groupby(["method", "arm"], sort=False):
        shares, chances, enough = ([], []), ([], []), True
        for _, run in table.groupby("seed"):
            wide = run.pivot(index="image_id", columns="region", values=["share", "chance"])
            wide = wide.reindex(faces["image_id"])
            known = wide.notna().all(axis=1).to_numpy()
            enough &= enough_identities("", identities[known], np.ones(known.sum(), bool))
            for name, kept in (("share", shares), ("chance", chances)):
                values = wide[name][known]
                kept[0].append(_mean(values, np.ones((1, known.sum()))))
                kept[1].append(_mean(values, weights[:, known]))
        share, chance = estimates(*shares), estimates(*chances)
        for region in share:
            ratio = share[region] / chance[region]
            if not enough:
                ratio = ratio.without_interval()
            ratios[method, arm, region] = ratio
    return ratios


def _mean(values: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Return the weighted means of every column, one row a row of `weights`; NaN for no weight."""
    with np.errstate(invalid="ignore"):
        means = weights @ values.to_numpy(float) / weights.sum(axis=1, keepdims=True)
    return pd.DataFrame(means, columns=values.columns)
