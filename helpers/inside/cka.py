"""How alike two networks' layers see the same faces: linear CKA (Kornblith et al. 2019).

A layer's features are flattened: every channel at every position is one feature, as is usual.
There are far more features than faces, where the first estimator of CKA is near 1 for anything;
so HSIC is estimated without bias (Song et al. 2012, J. Mach. Learn. Res. 13, equation 5), as in
Nguyen, Raghu and Kornblith 2021. Unrelated layers then have a CKA of 0 on average, and a value may
be slightly negative.

What to keep in mind: CKA weighs directions by their variance, and a face's light, skin and
background vary more than its expression. Two networks can be alike and decide differently. A
DeiT's last block is nearly all patch tokens, which its heads do not read. And the two halves of a
pair show one person, so that the faces count for fewer than they are.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.devices import autocast, pick_device, precision
from helpers.errors import StudyError
from helpers.networks.layers import caught, stages
from helpers.networks.models import head_logits
from helpers.training.augment import plain_view
from helpers.training.faces import load_faces
from helpers.training.runs import Run
from helpers.training.trained import trained_model

# All of a layer's features of so many faces lie in memory together (1 GB at 224 pixels).
MOST_FACES = 300
_MEMORY = 2**30  # bytes of features that are kept at a time; a layer that has more is alone
LEAST_FACES = 4  # the estimator divides by n - 3
_BATCH, _FEATURES = 32, 2**13
_COLUMNS = ("first_arm first_seed first_layer second_arm second_seed second_layer cka").split()


def layer_grams(
    model: nn.Module, images: torch.Tensor, image_size: int, dtype: torch.dtype = torch.float32
) -> dict[str, np.ndarray]:
    """Return the Gram matrix of each of `layers.stages`, by name, (N, N) float64.

    Entry i, j is the inner product of the flattened features of faces i and j, each feature less
    its mean over the faces. `images`: (N, 3, S, S) uint8; `dtype`: of the forward pass. Raises
    `StudyError` for an unknown architecture.
    """
    training = model.training
    model.eval()
    layers = stages(model)
    first = _features(model, layers, images[:_BATCH], image_size, dtype)
    grams = {}
    for names in _groups({name: part.shape[1] * len(images) for name, part in first.items()}):
        some = {name: layers[name] for name in names}
        features = _features(model, some, images, image_size, dtype)
        grams |= {name: _gram(features.pop(name)) for name in names}
    model.train(training)
    return grams


def _groups(sizes: dict[str, int]) -> list[list[str]]:
    """Return the layers in groups of which each fits into memory, by how many features they have.

    One pass through the network a group.
    """
    groups, left = [], 0
    for name, size in sizes.items():
        left -= 4 * size
        if left < 0:
            groups.append([])
            left = _MEMORY - 4 * size
        groups[-1].append(name)
    return groups


def _features(
    model: nn.Module,
    layers: dict[str, nn.Module],
    images: torch.Tensor,
    image_size: int,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Return what each layer makes of the faces, by name, (N, features) float32 on the CPU."""
    device = next(model.parameters()).device
    features: dict[str, torch.Tensor] = {}
    with ExitStack() as stack, torch.inference_mode():
        outputs = {name: stack.enter_context(caught(layer)) for name, layer in layers.items()}
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH].to(device)
            with autocast(device, dtype):
                head_logits(model, plain_view(batch, image_size))
            for name, output in outputs.items():
                part = output.pop().flatten(1).float().cpu()
                if name not in features:
                    features[name] = torch.empty(len(images), part.shape[1])
                features[name][start : start + len(part)] = part
    return features


def _gram(features: torch.Tensor) -> np.ndarray:
    gram = torch.zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(_FEATURES, dim=1):
        part = part - part.mean(dim=0)
        gram += (part @ part.T).double()
    return gram.numpy()


def cka(gram_a: np.ndarray, gram_b: np.ndarray) -> float:
    """Return the linear CKA of two layers by their Gram matrices on the same faces, (N, N).

    Unbiased HSIC over the root of the product of both layers' HSIC with themselves: 1 for layers
    that differ by a rotation and a scale, 0 on average for unrelated ones. NaN where a layer says
    the same of every face. Raises `StudyError` for fewer than four faces, or shapes that differ.
    """
    if gram_a.shape != gram_b.shape:
        raise StudyError("Two layers can be compared on the same faces only.")
    return float(np.sum(_unit(gram_a) * _unit(gram_b)))


def _unit(gram: np.ndarray) -> np.ndarray:
    """Return the U-centred Gram matrix at length 1, so that a CKA is an inner product.

    The unbiased HSIC of two matrices is the inner product of the U-centred ones over n (n - 3)
    (Székely and Rizzo 2014, Annals of Statistics 42, equation 2.4 and proposition 1).
    """
    count = len(gram)
    if count < LEAST_FACES:
        raise StudyError(f"CKA needs at least {LEAST_FACES} faces, not {count}.")
    plain = np.array(gram, float)
    np.fill_diagonal(plain, 0)
    sums = plain.sum(axis=1) / (count - 2)
    centred = plain - sums[:, None] - sums[None, :] + sums.sum() / (count - 1)
    np.fill_diagonal(centred, 0)
    length = np.linalg.norm(centred)
    # Rounding alone is no similarity.
    return centred / length if length > 1e-9 * np.linalg.norm(gram) else np.full_like(plain, np.nan)


def cka_table(runs: Iterable[Run], crops_dir: str | Path, device: str = "auto") -> pd.DataFrame:
    """Return the CKA of every layer with every layer, for pairs of runs, on the test faces.

    Pairs: all runs of one seed with one another (each student with each teacher, the teachers, the
    students), and the runs of one arm across seeds, which is what the luck of training alone
    leaves. One row a pair of layers: `first_arm`, `first_seed`, `first_layer`, `second_arm`,
    `second_seed`, `second_layer`, `cka`; of a student and a teacher the student is first. Where
    the split has more than `MOST_FACES` faces, whole identities are drawn, the same for every run.
    Raises `StudyError` for a run without its weights, or crops that cannot be read.
    """
    chosen_device = pick_device(device)
    units, known = {}, {}
    runs = sorted(runs, key=lambda run: run.stage == "teacher")
    for number, run in enumerate(runs):
        chosen = run.params["parameters"]
        size = chosen["image_size"]
        if size not in known:
            faces = load_faces(crops_dir, size, "test")
            known = {size: faces.images[_some(faces.table["identity"].to_numpy())]}
        model = trained_model(run, chosen_device)
        dtype = precision(chosen_device, chosen["amp"])
        grams = layer_grams(model, known[size], size, dtype)
        units[number] = {name: _unit(gram) for name, gram in grams.items()}
    table = []
    for i, j in combinations(units, 2):
        first, second = runs[i], runs[j]
        if first.seed != second.seed and first.name != second.name:
            continue
        for a, unit_a in units[i].items():
            for b, unit_b in units[j].items():
                value = float(np.sum(unit_a * unit_b))
                table.append((first.name, first.seed, a, second.name, second.seed, b, value))
    return pd.DataFrame(table, columns=_COLUMNS)


def _some(identities: np.ndarray) -> np.ndarray:
    """Return all rows, or those of so many identities, drawn at random, that memory allows."""
    if len(identities) <= MOST_FACES:
        return np.arange(len(identities))
    order = np.random.default_rng(0).permutation(pd.unique(identities))
    place = pd.Series(np.arange(len(order)), index=order)[identities].to_numpy()
    counts = np.bincount(place).cumsum()
    return np.flatnonzero(place < np.searchsorted(counts, MOST_FACES, side="right"))
