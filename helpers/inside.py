"""Looking inside the networks: layers that are alike (CKA), and where on the face they look.

**Layers.** Linear CKA (Kornblith et al. 2019). A layer's features are flattened: every channel at
every position is one feature. There are far more features than faces, where the first estimator of
CKA is near 1 for anything; so HSIC is estimated without bias (Song et al. 2012, J. Mach. Learn.
Res. 13, equation 5). Unrelated layers then have a CKA of 0 on average, and a value may be slightly
negative. CKA weighs directions by their variance, and a face's light, skin and background vary more
than its expression: two networks can be alike and decide differently. A DeiT's last block is nearly
all patch tokens, which its heads do not read.

**Maps.** Grad-CAM (Selvaraju et al. 2017) asks which places speak for the pain logit: of a teacher
at the features that its head averages (of Swin the normalised ones), of a DeiT at the tokens that
enter its last attention, the last place where the patches still reach a head. Attention rollout
(Abnar & Zuidema 2020, ACL) follows a DeiT's attention from the tokens of its heads down to the
patches: where information could come from, not what it speaks for. Maps are coarse (a teacher's
cell is 32 pixels wide, a DeiT's 16), so `most` says what share any map could have in a region.

**Regions.** By MTCNN's five points, in units of the distance between the eyes. The bounds are a
choice. They follow where pain shows (Prkachin & Solomon 2008, Pain 139, 267–274): a lowered brow;
tightened lids and raised cheeks, hence the eyes' margin downwards; a wrinkled nose; and the mouth.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from helpers.devices import pick_device
from helpers.faces import FaceStore, load_faces, plain_view
from helpers.models import caught, decides_by, decision_logits, family, head_logits, stages, trained
from helpers.robustness import read_landmarks
from helpers.runs import Run
from helpers.stats import LEAST_IDENTITIES, Estimate, estimates, identity_weights, is_pain

REGIONS = ("brow", "eyes", "nose", "mouth")
# The features of so many faces lie in memory together (2 GB for a ResNet-50 at 224 pixels).
MOST_FACES = 300
_BATCH, _FEATURES, _DIGITS = 32, 2**13, 6
_CKA = "first_arm first_seed first_layer second_arm second_seed second_layer cka".split()
_RUN = ["arm", "seed", "method", "region"]
# Where a network is asked by Grad-CAM (all DeiTs have 12 blocks); the middle of its first cell's
# receptive field and the distance of cells, in pixels. A ResNet's kernels are centred on the first
# pixel of every stride.
_ASKED = {"resnet": "layer4", "swin": "norm", "deit": "blocks.11.norm1"}
_PLACES = {"resnet": (0.5, 32), "swin": (16.0, 32), "deit": (8.0, 16)}


def unit_gram(features: torch.Tensor) -> np.ndarray:
    """Return the U-centred Gram matrix of a layer at length 1, (N, N): see `cka`.

    `features`: (N, features). NaN for fewer than four faces, and for a layer that says the same of
    every face. The unbiased HSIC of two matrices is the inner product of the U-centred ones over
    n (n − 3) (Székely & Rizzo 2014, Annals of Statistics 42, equation 2.4 and proposition 1).
    """
    count = len(features)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for part in features.split(_FEATURES, dim=1):
        part = part - part.mean(dim=0)
        gram += (part @ part.T).double()
    gram = gram.fill_diagonal_(0).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = gram.sum(axis=1) / (count - 2)
        centred = gram - sums[:, None] - sums + sums.sum() / (count - 1)
    np.fill_diagonal(centred, 0)
    length = np.linalg.norm(centred)
    # Rounding alone is no similarity.
    return centred / length if length > 1e-9 * np.linalg.norm(gram) else np.full_like(gram, np.nan)


def cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear CKA of two layers by their `unit_gram` on the same faces.

    Unbiased HSIC over the root of the product of both layers' HSIC with themselves: 1 for layers
    that differ by a rotation and a scale, 0 on average for unrelated ones.
    """
    return float(np.sum(first * second))


def grad_cam(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return what speaks for pain in each cell, (N, rows, columns), before the ReLU.

    Features, weighted by the gradient of the decision's logit, its mean over the cells; both
    (N, rows, columns, channels).
    """
    return (features * gradient.mean((1, 2), keepdim=True)).sum(3)


def rollout(attentions: Sequence[torch.Tensor], decides_by: str) -> torch.Tensor:
    """Return how much of each patch reaches a DeiT's heads by attention, (N, patches), sum 1.

    The product over blocks of (A + 1) / 2, where A is the mean over the (N, heads, tokens, tokens)
    of a block and 1 the residual path. The row of the prefix token whose head decides (class or
    distillation), or the mean of both rows, over the patches that follow; see `decision_logits`.
    """
    total = identity = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    for attention in attentions:
        total = (attention.mean(1) + identity) / 2 @ total
    patches = decision_logits(total[:, :2, 2:], decides_by)
    return patches / patches.sum(1, keepdim=True)


def look(
    model: nn.Module, images: torch.Tensor, image_size: int, decides_by: str
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]]:
    """Yield, batch by batch in one pass, what the layers say and where the network looks.

    Features of each of `models.stages`, (n, features), and maps by method, (n, cells, cells), 0 or
    more: `grad_cam`, and of a student `rollout`. In float32. `images`: (N, 3, S, S) uint8;
    `decides_by`: see `models.decides_by`. The model is frozen, and its attention no longer fused,
    which would hide it.
    """
    kind, device = family(model), next(model.parameters()).device
    model.eval().requires_grad_(False)
    blocks = [block.attn for block in model.blocks] if kind == "deit" else []
    for attention in blocks:
        attention.fused_attn = False
    asked = model.get_submodule(_ASKED[kind])
    with ExitStack() as stack:
        layers = {name: stack.enter_context(caught(layer)) for name, layer in stages(model).items()}
        # The graph begins here, so the gradient costs next to nothing.
        stack.callback(asked.register_forward_hook(lambda _, __, out: out.requires_grad_()).remove)
        outputs = stack.enter_context(caught(asked))
        attentions = [stack.enter_context(caught(block.attn_drop)) for block in blocks]
        for batch in images.split(_BATCH):
            logits = head_logits(model, plain_view(batch.to(device), image_size))
            gradient = torch.autograd.grad(decision_logits(logits, decides_by).sum(), outputs)[0]
            maps = grad_cam(*(_cells(model, part) for part in (outputs.pop(), gradient))).relu()
            found = {"grad_cam": maps}
            if blocks:
                reached = rollout([each.pop() for each in attentions], decides_by)
                found["rollout"] = reached.unflatten(1, maps.shape[1:])
            said = {name: each.pop().detach().flatten(1).cpu() for name, each in layers.items()}
            yield said, {name: maps.detach().cpu().numpy() for name, maps in found.items()}


def _cells(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Return features as (N, rows, columns, channels), without prefix tokens."""
    if family(model) == "deit":
        return features[:, model.num_prefix_tokens :].unflatten(1, model.patch_embed.grid_size)
    return features.permute(0, 2, 3, 1) if family(model) == "resnet" else features


def spread(kind: str, cells: int, image_size: int) -> np.ndarray:
    """Return how much of each cell there is at each pixel of a line, (image_size, cells).

    `kind`: see `models.family`. Bilinear, the edge repeated; a cell is put where its receptive
    field is centred. So a map of cells is `spread @ map @ spread.T` in pixels.
    """
    first, pitch = _PLACES[kind]
    place = ((torch.arange(image_size) + 0.5 - first) / pitch).clamp(0, cells - 1)
    return F.relu(1 - (place[:, None] - torch.arange(cells)).abs()).numpy()


def region_masks(landmarks: np.ndarray, image_size: int) -> np.ndarray:
    """Return which pixels belong to each of `REGIONS`, (N, 4, image_size, image_size) bool.

    No pixel belongs to two regions. `landmarks`: (N, 5, 2), shares of the crop, of faces that were
    found, see `robustness.read_landmarks`.
    """
    points = (landmarks * image_size @ [1, 1j])[:, :, None, None]
    left, right = points[:, 0], points[:, 1]
    middle, axis = (left + right) / 2, right - left
    # Complex division turns a point into the frame of the eyes: the real part along their line, the
    # imaginary one down from it, both in distances between the eyes.
    nose, left_corner, right_corner = ((points[:, i] - middle) / axis for i in (2, 3, 4))
    lips, beside = (left_corner + right_corner) / 2, abs((right_corner - left_corner).real) / 2
    centres = np.arange(image_size) + 0.5
    at = (centres + 1j * centres[:, None] - middle) / axis
    # Of each region the middle, the half width, from where and to where down. A turned head brings
    # points close together: what comes first keeps the pixel.
    boxes = (
        (0, 0.85, -0.65, -0.2),
        (0, 0.85, -0.2, 0.3),
        (nose.real / 2, 0.4, 0.3, nose.imag + 0.15),
        (lips.real, beside + 0.15, lips.imag - 0.3, lips.imag + 0.45),
    )
    masks = np.zeros((len(REGIONS), *at.shape), bool)
    for region, (centre, half, top, bottom) in enumerate(boxes):
        inside = (abs(at.real - centre) <= half) & (at.imag > top) & (at.imag <= bottom)
        masks[region] = inside & ~masks[:region].any(axis=0)
    return np.moveaxis(masks, 1, 0)


def region_shares(maps: np.ndarray, masks: np.ndarray, line: np.ndarray) -> pd.DataFrame:
    """Return what share of each map lies in each region, and what chance would put there.

    One row a face and region (`REGIONS`, then `elsewhere`): `region`, `share` (NaN for a map of
    zeros: it has no place), `chance`, the region's share of the picture, and `most`, the largest
    share that any map of these cells can have there. `maps`: (N, cells, cells); `masks`:
    (N, 4, S, S); `line`: (S, cells), see `spread`.
    """
    area = np.outer(line.sum(axis=0), line.sum(axis=0))
    within = line.T @ masks.astype(np.float32) @ line / area  # of each cell, (N, 4, cells, cells)
    within = np.concatenate([within, 1 - within.sum(axis=1, keepdims=True)], axis=1)
    with np.errstate(invalid="ignore"):
        amount = maps * area / (maps * area).sum(axis=(1, 2), keepdims=True)
    chance = masks.mean(axis=(2, 3))
    return pd.DataFrame(
        {
            "region": [*REGIONS, "elsewhere"] * len(maps),
            "share": np.einsum("nab,nrab->nr", amount, within).ravel(),
            "chance": np.column_stack([chance, 1 - chance.sum(axis=1)]).ravel(),
            "most": within.max(axis=(2, 3)).ravel(),
        }
    )


def look_inside(
    runs: Sequence[Run], crops_dir: str | Path, device: str = "auto"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the CKA of layers, and the shares of maps in regions, on the test faces.

    CKA: a row for every layer with every layer (`first_arm`, `first_seed`, `first_layer`,
    `second_*`, `cka`) of all runs of one seed with one another, a student before a teacher, and of
    the runs of one arm across seeds, which is what the luck of training alone leaves. Shares: a row
    a detected Pain face, run, method and region, see `region_shares`. Raises `StudyError` for a run
    without its weights, and crops that cannot be read or have no test face.
    """
    units, parts = [], []
    faces_of = cache(lambda size: faces_to_ask(crops_dir, size))
    for run in tqdm(runs, "Looking inside", unit="network"):
        size = run.params["parameters"]["image_size"]
        faces, some, pain, masks = faces_of(size)
        rows = np.concatenate([some, np.setdiff1d(pain, some)])
        model, features, maps = trained(run, pick_device(device)), defaultdict(list), {}
        for said, seen in look(model, faces.images[rows], size, decides_by(run)):
            for name, part in said.items():
                if len(features[name]) * _BATCH < len(some):
                    features[name].append(part)
            for method, part in seen.items():
                maps.setdefault(method, []).extend(part)
        units.append({n: unit_gram(torch.cat(features.pop(n))[: len(some)]) for n in [*features]})
        who = faces.table[["image_id", "identity"]].iloc[np.repeat(pain, len(REGIONS) + 1)]
        for method, found in maps.items():
            found = np.stack(found)[pd.Index(rows).get_indexer(pain)]
            shares = region_shares(found, masks, spread(family(model), found.shape[-1], size))
            about = who.reset_index(drop=True).assign(arm=run.name, seed=run.seed, method=method)
            parts.append(pd.concat([about, shares], axis=1))
    return _layers(runs, units), pd.concat(parts, ignore_index=True).round(_DIGITS)


def _layers(runs: Sequence[Run], units: Sequence[dict[str, np.ndarray]]) -> pd.DataFrame:
    rows = []
    both = sorted(zip(runs, units, strict=True), key=lambda pair: pair[0].stage == "teacher")
    for (a, of_a), (b, of_b) in combinations(both, 2):
        if a.seed == b.seed or a.name == b.name:
            for (one, first), (other, second) in product(of_a.items(), of_b.items()):
                rows.append((a.name, a.seed, one, b.name, b.seed, other, cka(first, second)))
    return pd.DataFrame(rows, columns=_CKA).round(_DIGITS)


def faces_to_ask(crops_dir: str | Path, size: int) -> tuple[FaceStore, *tuple[np.ndarray, ...]]:
    """Return the test faces, the rows for CKA, those of detected Pain faces, and their regions."""
    faces = load_faces(crops_dir, size, "test")
    points = read_landmarks(faces.table)
    pain = np.flatnonzero(is_pain(faces.table) & np.isfinite(points).all(axis=(1, 2)))
    # For CKA as many people, drawn at random, as `MOST_FACES` allows.
    identities = faces.table["identity"].to_numpy()
    people = np.random.default_rng(0).permutation(pd.unique(identities))
    place = pd.Index(people).get_indexer(identities)
    some = np.flatnonzero(np.bincount(place).cumsum()[place] <= MOST_FACES)
    return faces, some, pain, region_masks(points[pain], size)


def pixel_maps(run: Run, images: torch.Tensor, device: str = "auto") -> dict[str, np.ndarray]:
    """Return a run's maps of a few faces by method, (N, size, size), as multiples of a map's mean.

    `images`: (N, 3, S, S) uint8, at most 32; `size`: the network's input. NaN where nothing speaks
    for pain.
    """
    size, model = run.params["parameters"]["image_size"], trained(run, pick_device(device))
    maps = next(look(model, images, size, decides_by(run)))[1]
    for method, cells in maps.items():
        line = spread(family(model), cells.shape[-1], size)
        pixels = line @ cells @ line.T
        with np.errstate(invalid="ignore"):
            maps[method] = pixels / pixels.mean(axis=(1, 2), keepdims=True)
    return maps


def attribution_table(faces: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over faces for each arm, seed, method and region.

    `faces`: of `look_inside`. `share`, `chance`, `ratio` (share over chance: above 1 the network
    looks there more than anywhere), `most`, `faces` (those that count) and `blank` (without a map).
    """
    groups = faces[faces["share"].notna()].groupby(_RUN, sort=False)
    every = faces.groupby(_RUN, sort=False).size()
    table = groups[["share", "chance", "most"]].mean().reindex(every.index)
    table.insert(2, "ratio", table["share"] / table["chance"])
    table["faces"] = groups.size().reindex(every.index, fill_value=0)
    return table.assign(blank=every - table["faces"]).reset_index()


def region_ratios(
    faces: pd.DataFrame, samples: int, seed: int
) -> dict[tuple[str, str, str], Estimate]:
    """Return share over chance with its interval, by method, arm and region.

    By the bootstrap over identities, all arms on the same draws. A ratio of 4 is as far from
    chance as one of 1/4, so the mean over seeds and the interval are taken of its logarithm: the
    mean is geometric, no end is below 0, and none above the `most` that such maps can have. A face
    without a map counts for nothing in its run.
    """
    people = faces.drop_duplicates("image_id").set_index("image_id")["identity"].sort_index()
    weights, ratios = identity_weights(people.to_numpy(), samples, seed), {}
    for (method, arm), part in faces.groupby(["method", "arm"], sort=False):
        values, draws = [], []
        for _, run in part.groupby("seed"):
            wide = run.pivot(index="image_id", columns="region", values=["share", "chance"])
            wide = wide.reindex(people.index)
            known = wide.notna().all(axis=1).to_numpy()
            for found, drawn in ((values, known[None]), (draws, weights * known)):
                share, chance = (drawn @ wide[name].fillna(0) for name in ("share", "chance"))
                found.append(np.log(share / chance))
        few = part.dropna().groupby("seed")["identity"].nunique().min() < LEAST_IDENTITIES
        top = part.groupby("region")["most"].mean() / part.groupby("region")["chance"].mean()
        for region, found in estimates(values, draws).items():
            found = found.without_interval() if few else found
            ratios[method, arm, region] = _exp(found, top[region])
    return ratios


def _exp(found: Estimate, top: float) -> Estimate:
    """Return an estimate of a logarithm as one of the quantity; its draws hold the luck by now."""
    draws, seeds = np.exp(found.widened).clip(max=top), tuple(np.exp(found.seeds).tolist())
    return Estimate(float(np.exp(found.value)), draws, seeds, limits=(0, np.inf))
