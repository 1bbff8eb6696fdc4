"""The committed runs of the multi-seed study, and a plain bootstrap over people.

For the tests that recompute the committed tables: none of the helpers that made them is used.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score

from helpers.files import ROOT

RESULTS = ROOT / "results/standin"
PUPILS = {"deit_tiny-resnet50": "resnet50", "deit_tiny-swin": "swin"}  # and who taught them
# Which digit of an identity tells it, and what 0, 1, ... stand for.
GROUPS = {
    "gender": (2, ("Man", "Woman")),
    "age": (3, ("Young", "Old")),
    "ethnicity": (4, ("Black", "South Asian", "Middle Eastern", "Caucasian", "Asian")),
}
SAMPLES, SEED = 2000, 0  # of the bootstrap, in config/standin.yaml
needs_results = pytest.mark.skipif(
    not (RESULTS / "runs").is_dir(), reason="no results of the multi-seed study are committed"
)


def table(name):
    """Return a table of the results; `name` without an ending, or with `.csv.gz`."""
    path = RESULTS / (name if "." in name else f"{name}.csv")
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"identity": str})


def read_runs(split="test", folder=RESULTS / "runs"):
    """Return {arm: {seed: its faces, in the order of their ids}}."""
    found = {}
    for path in sorted(folder.glob("*/*/seed*/predictions.csv")):
        faces = pd.read_csv(path, dtype={"identity": str}).query(f"split == '{split}'")
        faces = faces.sort_values("image_id").set_index("image_id")
        found.setdefault(path.parts[-3], {})[int(path.parts[-2][4:])] = faces
    return found


def among(faces, contrast):
    """Return the Pain faces and those that the contrast sets against them."""
    if contrast == "all":
        return faces
    side = {"neutral": "left", "expressive": "right"}[contrast]
    return faces[(faces["label"] == "Pain") | (faces["side"] == side)]


def decisions(faces):
    return (faces["probability"] > 0.5).to_numpy()


def pain(faces):
    return (faces["label"] == "Pain").to_numpy()


@cache
def _counts(people):
    each = np.full(people, 1 / people)
    return np.random.default_rng(SEED).multinomial(people, each, SAMPLES)


def members(faces, group):
    """Return {value: mask of the faces of its people}, as the digits of their identity say."""
    digit, names = GROUPS[group]
    return {n: (faces["identity"].str[digit] == str(i)).to_numpy() for i, n in enumerate(names)}


def drawn(faces, asked=None):
    """Return how often each face's person was drawn, (samples, faces); `asked`: of which faces."""
    codes, people = pd.factorize(faces["identity"])
    return _counts(len(people))[:, codes if asked is None else codes[asked]]


def auroc_draws(faces, counts):
    """Return the AUROC of each row of `counts` by its definition: the share of pairs won."""
    scores, positive = faces["probability"].to_numpy(), pain(faces)
    above = scores[positive][:, None] - scores[~positive]
    won = (above > 0) + (above == 0) / 2
    first, second = counts[:, positive].astype(float), counts[:, ~positive].astype(float)
    with np.errstate(invalid="ignore"):
        pairs = first.sum(axis=1) * second.sum(axis=1)
        return ((first @ won) * second).sum(axis=1) / pairs


def over_seeds(seeds, contrast="expressive", rows=None, head="probability"):
    """Return an arm's AUROC of each seed, and its draws; `rows`: a mask of the faces."""
    faces = next(iter(seeds.values()))
    asked = faces.index.isin(among(faces, contrast).index)
    asked = asked if rows is None else asked & rows
    counts = drawn(faces, asked)
    parts = [found[asked].assign(probability=found[asked][head]) for found in seeds.values()]
    values = [roc_auc_score(pain(part), part["probability"]) for part in parts]
    return np.array(values), np.array([auroc_draws(part, counts) for part in parts])


def widened(values, draws):
    """Return the draws of a mean over seeds, widened as the text of `helpers.bootstrap` says.

    `values`: on the faces as they are, (seeds,). `draws`: (seeds, samples).
    """
    values, draws = np.asarray(values, float), np.asarray(draws, float)
    mean = draws.mean(axis=0)
    mean, seeds = mean[np.isfinite(mean)], len(values)
    if seeds == 1:
        return mean
    between = values.var(ddof=1)
    by_faces = np.nanvar(draws - draws.mean(axis=0), axis=1).sum() / (seeds - 1)
    luck = max(0, between - by_faces) / seeds
    if luck == 0:
        return mean
    total = mean.var() + luck
    freedom = max(total**2 / ((between / seeds) ** 2 / (seeds - 1)), seeds - 1)
    if mean.var() < 1e-12 * luck:  # the same in every draw: quantiles of Student's t
        places = (np.arange(len(mean)) + 0.5) / len(mean)
        return values.mean() + np.sqrt(total) * t.ppf(places, freedom)
    stretch = np.sqrt(total / mean.var()) * t.ppf(0.975, freedom) / norm.ppf(0.975)
    return values.mean() + stretch * (mean - values.mean())


def ends(values, draws, low, high):
    """Return both ends of the 95 % interval, which cannot leave [low, high]."""
    return np.clip(np.quantile(widened(values, draws), [0.025, 0.975]), low, high)
