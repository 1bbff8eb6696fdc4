"""Probes: how much of the label can be told from something that should not tell it.

A probe is a small classifier that sees one thing only (a background, a file size) and is tested on
people that it was not trained on. Its AUROC is 0.5 where that thing says nothing.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.bootstrap import Estimate, identity_weights
from helpers.metrics import measure

FOLDS = 5
# Thumbnails have more columns than there are people: a weak fit without this much shrinkage.
_SHRINKAGE = 0.01

# Trains on (features, positive) and returns what scores other features.
Learner = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def probe(
    features: np.ndarray,
    positive: np.ndarray,
    identities: Sequence[str],
    strata: Sequence[str] | None = None,
    learner: Learner | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the AUROC of a probe, out of fold, with a bootstrap over identities.

    Args:
        features: (N, ...), what the probe sees.
        positive: (N,) bool, what it is to tell.
        identities: (N,), the person of each row: never in training and test of one fold.
        strata: (N,), what the folds are balanced by beside `positive`, e.g. the demographic cell.
        learner: trains one probe; `logistic` where none is given.
        samples: bootstrap samples.
        seed: of folds and bootstrap.

    With fewer people of either class than there are folds, all of the estimate is NaN.
    """
    positive, people = np.asarray(positive, bool), np.asarray(identities)
    if min(len(np.unique(people[positive])), len(np.unique(people[~positive]))) < FOLDS:
        return Estimate(np.nan, np.full(samples, np.nan), ())
    scores = out_of_fold(features, positive, identities, strata, learner or logistic, seed)
    weights = identity_weights(identities, samples, seed)
    return Estimate(
        float(measure(positive, scores)["auroc"].iloc[0]),
        measure(positive, scores, weights)["auroc"].to_numpy(),
        (),
    )


def out_of_fold(
    features: np.ndarray,
    positive: np.ndarray,
    identities: Sequence[str],
    strata: Sequence[str] | None,
    learner: Learner,
    seed: int = 0,
) -> np.ndarray:
    """Return a score for every row, (N,) in 0..1, by a probe that never saw its person.

    Scores are ranks within their fold, since the folds' probes have no common scale.
    """
    scores = np.empty(len(positive))
    for train, test in folds_of(positive, identities, strata, seed):
        score = learner(features[train], positive[train])(features[test])
        scores[test] = rankdata(score) / len(test)
    return scores


def folds_of(
    positive: np.ndarray, identities: Sequence[str], strata: Sequence[str] | None, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return train and test rows of each of `FOLDS` folds: identity-disjoint, stratified.

    By `positive` and `strata`; by `positive` alone where a stratum has fewer rows than folds. The
    same people get the same folds, which are kept for the next probe: to balance them takes longer
    than to train most probes.
    """
    words = pd.Series(positive).astype(str)
    if strata is not None:
        finer = words + np.asarray(strata).astype(str)
        words = finer if finer.value_counts().min() >= FOLDS else words
    return _balanced(tuple(words), tuple(identities), seed)


@lru_cache(maxsize=4)
def _balanced(
    words: tuple[str, ...], identities: tuple[str, ...], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(splitter.split(words, words, pd.factorize(np.asarray(identities))[0]))


def logistic(features: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Train a regularised logistic regression on standardised features (N, F): a `Learner`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_SHRINKAGE, max_iter=2000))
    model.fit(features.reshape(len(features), -1), positive)
    return lambda other: model.decision_function(other.reshape(len(other), -1))
