"""The gate before distillation: a teacher at chance on validation has nothing to teach."""

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate, enough_identities, identity_weights
from helpers.errors import StudyError
from helpers.files import short_path
from helpers.metrics import is_pain, measure
from helpers.prose import chance, number
from helpers.training.runs import Run

SAMPLES, SEED = 2000, 0


def validation_auroc(predictions: pd.DataFrame) -> Estimate:
    """Return the AUROC on the validation faces, Pain against the rest, with its interval.

    `predictions`: as in predictions.csv. The interval is a bootstrap over identities; there is
    none with fewer than five of them in a class.
    """
    faces = predictions[predictions["split"] == "validation"].sort_values("image_id")
    positive, probability = is_pain(faces), faces["probability"].to_numpy()
    draws = np.full(SAMPLES, np.nan)
    if enough_identities("auroc", faces["identity"], positive):
        weights = identity_weights(faces["identity"], SAMPLES, SEED)
        draws = measure(positive, probability, weights)["auroc"].to_numpy()
    value = float(measure(positive, probability)["auroc"].iloc[0])
    return Estimate(value, draws, (value,))


def reading(predictions: pd.DataFrame) -> dict:
    """Return AUROC, its interval and `beats_chance` on validation, as metrics.json holds them.

    A model beats chance where the whole interval lies above 0.5; without an interval it is not
    shown to. An end that does not exist is None.
    """
    area = validation_auroc(predictions)
    low, high = (None if np.isnan(end) else end for end in (area.low, area.high))
    beats_chance = chance(area) == "above"
    return {"auroc": area.value, "auroc_low": low, "auroc_high": high, "beats_chance": beats_chance}


def reading_words(found: dict) -> str:
    """Return "AUROC 0.84 [0.79, 0.88]" for what `reading` returned."""
    if found["auroc_low"] is None:
        return f"AUROC {number(found['auroc'])}, with too few people for an interval"
    low, high = number(found["auroc_low"]), number(found["auroc_high"])
    return f"AUROC {number(found['auroc'])} [{low}, {high}]"


def pass_gate(run: Run, allow_weak: bool) -> dict:
    """Return the `reading` of a teacher, or raise `StudyError` where it does not beat chance.

    Args:
        run: the teacher's.
        allow_weak: let it pass nevertheless.
    """
    found = reading(run.predictions)
    if not (found["beats_chance"] or allow_weak):
        raise StudyError(
            f"The teacher in {short_path(run.folder)} is not shown to beat chance on validation "
            f"({reading_words(found)}), so it may not teach: train it otherwise, or set "
            "allow_weak_teacher to true."
        )
    return found


def gate_words(run: Run) -> str:
    """Return whether a teacher may teach, for notebook 03."""
    found = reading(run.predictions)
    if found["beats_chance"]:
        return (
            f"**The gate:** on validation it beats chance ({reading_words(found)}); it may teach."
        )
    return (
        f"**The gate:** on validation it is not shown to beat chance ({reading_words(found)}). "
        "Chapter 4 will not let it teach, unless `allow_weak_teacher` is set."
    )
