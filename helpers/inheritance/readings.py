"""What a reader should take from chapter 5's section on inheritance, in words.

As in `readings`, each function returns Markdown and holds whatever the runs are.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.compare import Panel
from helpers.figures import label_of
from helpers.inheritance.consistency import inherited_surplus, surplus, taught_against
from helpers.inheritance.corruptions import CLEAN, NAMES, STRENGTHS
from helpers.inheritance.dose import LABELS, SCALE, curve, overlap, rank_correlation
from helpers.inheritance.robustness import auroc, extra_drop, pupil_pairs, rank_correlations
from helpers.metrics import PRIMARY, THRESHOLD
from helpers.prose import (
    bracket,
    capital,
    chance,
    direction,
    listing,
    number,
    percent,
    plural,
    seeds_agree,
    signed,
    with_interval,
)
from helpers.writeup.readings import name_of


def weaknesses(panel: Panel, inherited: pd.DataFrame, contrast: str = PRIMARY) -> str:
    """Return whether what hurts one teacher more hurts its pupil more.

    `panel`: see `robustness.robustness_panel`. `inherited`: its `inherited_table`.
    """
    lines = []
    for *teachers, first, second in pupil_pairs(panel):
        ours, theirs = (label_of(teacher) for teacher in teachers)
        said = []
        for name in STRENGTHS:
            found = extra_drop(panel, *teachers, contrast, name)
            if direction(found) in ("higher", "lower") and seeds_agree(found):
                more = direction(found) == "higher"
                pupils = extra_drop(panel, first, second, contrast, name)
                said.append(
                    f"{NAMES[name]} costs {ours if more else theirs} more than "
                    f"{theirs if more else ours}; {_followed(pupils, direction(found))}"
                )
        words = "; ".join(said) or "no corruption costs one of them more than this sample can show"
        lines.append(f"- {ours} and {theirs} ({name_of(first)}, {name_of(second)}): {words}.")
        lines[-1] += _rank_words(inherited, first, second, contrast)
    if not lines:
        return "There are no two pupils whose teachers are both among the runs."
    weak = [a for a in panel.arms if chance(auroc(panel, a, contrast, CLEAN, 0)) != "above"]
    if weak:
        lines.append(
            f"\nOn the faces as they are, {listing([name_of(arm) for arm in weak])} cannot be told "
            "from chance or better: such an arm has little to lose, and its drops say little."
        )
    return "\n".join(lines)


def _followed(pupils, teachers: str) -> str:
    """Return whether the pupils' difference has the teachers' sign, with its interval."""
    shown = f"{signed(pupils.value)} {bracket(pupils, signed)}"
    verdict = direction(pupils)
    if verdict in ("null", "unknown") or not seeds_agree(pupils):
        return f"of their pupils this cannot be told ({shown})"
    turned = "" if verdict == teachers else "the other way round, "
    return f"so it does with their pupils, {turned}{shown}"


def _rank_words(inherited: pd.DataFrame, first: str, second: str, contrast: str) -> str:
    table = rank_correlations(inherited)
    row = table[(table["first"] == first) & (table["second"] == second)]
    row = row[row["contrast"] == contrast]
    if row.empty or not np.isfinite(row["rho"].iloc[0]):
        return ""
    return (
        f" Over the {row['corruptions'].iloc[0]} corruptions the two differences have a rank "
        f"correlation of {number(row['rho'].iloc[0])}, which describes these corruptions only."
    )


def shared_errors(panel: Panel, contrast: str = PRIMARY) -> str:
    """Return whether each pupil errs with its own teacher more than its untaught twin does."""
    lines = []
    for student, own, other in taught_against(panel):
        found = surplus(panel, student, own, other, contrast)
        said = (
            f"- {capital(name_of(student))}: error consistency with {label_of(own)} minus that "
            f"with {label_of(other)} is {with_interval(found, _signed)}"
        )
        inherited = inherited_surplus(panel, student, own, other, contrast)
        if inherited is None:
            said += "; without an untaught twin, teaching cannot be told from the faces"
        elif not np.isfinite(inherited.value):
            said += "; beside its untaught twin it is not defined"
        else:
            verdict = direction(inherited) if seeds_agree(inherited) else "null"
            words = {
                "higher": "so it shares more with its own teacher than teaching by labels explains",
                "lower": "so it shares less with its own teacher than its twin does",
                "null": "so the sample does not show that it took its teacher's errors",
                "unknown": "which settles nothing",
            }[verdict]
            beyond = with_interval(inherited, _signed)
            said += f"; minus the same of its untaught twin {beyond}, {words}"
        lines.append(said + ".")
    constant = [arm for arm in panel.arms if _one_answer(panel, arm, contrast)]
    if lines and constant:
        lines.append(
            "\nIn some seed every one of these faces gets the same answer from "
            f"{listing([name_of(arm) for arm in constant])}, whose errors are then bias alone."
        )
    return "\n".join(lines) or "No pupil has its own and another teacher among the runs."


def _signed(value: float) -> str:
    return signed(value, 2)


def _one_answer(panel: Panel, arm: str, contrast: str) -> bool:
    called = panel.probabilities[arm]["probability"][:, panel.rows(contrast)] > THRESHOLD
    return bool((called.all(axis=1) | ~called.any(axis=1)).any())


def dose(panel: Panel, pspi: np.ndarray) -> str:
    """Return what rises with PSPI, arm by arm, and what the curve cannot tell."""
    labels = curve(panel, LABELS, pspi)["alpha"]
    lines = []
    for arm in panel.arms:
        everyone, pain = (
            rank_correlation(panel, arm, pspi, group) for group in ("expressive", "Pain")
        )
        lines.append(
            f"- **{name_of(arm)}**: rank correlation of P(pain) and PSPI "
            f"{with_interval(everyone)} over expressive faces, {with_interval(pain)} among the "
            f"Pain faces, {_rises(pain)}; {_threshold(curve(panel, arm, pspi)['alpha'])}."
        )
    share = overlap(panel, pspi)
    mixed = (
        f"{percent(share)} of the expressive NoPain faces have at least the PSPI of the mildest "
        "Pain face, because a label says which expression was rendered and PSPI counts action "
        "units that laughing or anger move too. "
        if np.isfinite(share)
        else ""
    )
    return "\n".join(lines) + (
        f"\n\n{mixed}So the curve over all expressive faces is no pure curve of detection: an arm "
        f"that is always right would have that of the labels ({_threshold(labels)})."
    )


def _rises(found) -> str:
    if direction(found) == "unknown":
        return "which settles nothing"
    if direction(found) == "null":
        return "so the sample does not show that it sees the dose of pain"
    return f"so P(pain) {'rises' if direction(found) == 'higher' else 'falls'} with the dose" + (
        "" if seeds_agree(found) else ", but not in every seed"
    )


def _threshold(alpha) -> str:
    if not np.isfinite(alpha.value):
        return "no threshold, because in some seed all decisions are the same"
    if not SCALE[0] <= alpha.value <= SCALE[1]:
        return "no threshold on the scale, because its decisions hardly rise with PSPI"
    seeds = f", the mean of {plural(len(alpha.seeds), 'seed')}" if len(alpha.seeds) > 1 else ""
    return f"half of the rise is reached at a PSPI of {with_interval(alpha, _one)}{seeds}"


def _one(value: float) -> str:
    return number(value, 1)
