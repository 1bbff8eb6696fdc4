"""What a reader should take from each table and figure of notebook 05, in words.

Each function returns Markdown and holds whatever the runs are: one seed or five, a teacher that is
not among them, arms at chance, too few faces for an interval.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.compare import Panel, own_teacher
from helpers.evaluation.tables import Study, comparisons, gap_closed
from helpers.figures import label_of
from helpers.metrics import CONTRASTS, PRIMARY, THRESHOLD
from helpers.prose import (
    CHANCE,
    bracket,
    capital,
    chance,
    difference,
    direction,
    listing,
    number,
    percent,
    plural,
    signed,
    with_interval,
)
from helpers.training.gate import reading_words
from helpers.training.teaching import weak_readings


def pairs(panel: Panel, kind: str) -> list[tuple[str, str]]:
    """Return the compared pairs of one kind; see `tables.comparisons`."""
    return [(first, second) for found, first, second in comparisons(panel) if found == kind]


def name_of(arm: str) -> str:
    """Return an arm's name in running text: "Swin-T", "DeiT-Ti taught by Swin-T"."""
    student, _, teacher = arm.rpartition("-")
    if not student:
        return label_of(arm)
    how = "without a teacher" if teacher == "none" else f"taught by {label_of(teacher)}"
    return f"{label_of(student)} {how}"


def compared(panel: Panel, first: str, second: str, contrast: str = PRIMARY) -> str:
    """Return the sentence on two arms' difference in AUROC, without full stop."""
    found = panel.difference(first, second, contrast, "auroc")
    return difference(found, name_of(first), name_of(second))


def gains(study: Study, contrast: str = PRIMARY) -> str:
    """Return one sentence for each taught student against the same student without teacher."""
    panel = study.test
    said = [f"{capital(compared(panel, *pair, contrast))}." for pair in pairs(panel, "gain")]
    return " ".join(said) or "There is no student without a teacher to compare with."


def chance_list(panel: Panel) -> str:
    """Return for every arm whether it is above chance, on each contrast."""
    lines = []
    for arm in panel.arms:
        said: dict[str, list[str]] = {}
        for contrast, title in CONTRASTS.items():
            estimate = panel.estimates(arm, contrast)["auroc"]
            where = f"against {title.removeprefix('Pain vs ')} {with_interval(estimate)}"
            said.setdefault(chance(estimate), []).append(where)
        words = "; ".join(f"{CHANCE[key]} ({', '.join(where)})" for key, where in said.items())
        lines.append(f"- **{name_of(arm)}** is {words}.{_one_answer(panel, arm)}")
    return "\n".join(lines)


def _one_answer(panel: Panel, arm: str) -> str:
    called = panel.probabilities[arm]["probability"] > THRESHOLD
    if called.all() or not called.any():
        answer = "Pain" if called.all() else "NoPain"
        return f" At the threshold of {THRESHOLD} it calls every face {answer}."
    return ""


def contrasts(panel: Panel) -> str:
    """Return how much harder expressive faces are than neutral ones, arm by arm."""
    said = []
    for arm in panel.arms:
        neutral, expressive = (panel.estimates(arm, c)["auroc"] for c in ("neutral", "expressive"))
        said.append(f"{name_of(arm)} {with_interval(neutral - expressive, signed)}")
    return (
        f"AUROC against neutral minus AUROC against expressive faces: {'; '.join(said)}. An "
        "interval above 0 means that part of what the arm knows is that *something* moves in the "
        "face, not that it is pain; one that holds 0 leaves it open."
    )


def gap_words(study: Study, contrast: str = PRIMARY) -> str:
    """Return which share of the teacher's lead each taught student made up."""
    panel, sentences = study.test, []
    for student, untaught in pairs(panel, "gain"):
        teacher = own_teacher(panel, student)
        if teacher is None:
            continue
        gap = panel.difference(teacher, untaught, contrast, "auroc")
        share = gap_closed(panel, student, contrast)
        lead = f"{label_of(teacher)} and {name_of(untaught)} are {with_interval(gap, signed)} apart"
        if share is not None:
            said = f"{lead}; its pupil closed {with_interval(share, percent)} of that gap"
        elif direction(gap) == "lower":
            said = f"{lead}, the teacher being the worse, so there is no gap to close"
        else:
            said = f"{lead}, not a gap that this sample can show, so no share of it is given"
        sentences.append(said + ".")
    return " ".join(sentences) or "No student has both its teacher and its untaught twin here."


def weak_teachers(study: Study) -> str:
    """Return which students were taught by a teacher at chance on validation; empty for none."""
    said: dict[str, list[str]] = {}
    for run in study.runs:
        if weak := [reading_words(found) for found in weak_readings(run)]:
            said.setdefault(name_of(run.name), []).append(f"seed {run.seed}: {listing(weak)}")
    words = listing([f"{name} ({'; '.join(seeds)})" for name, seeds in said.items()])
    return words and (
        f"Validation does not show the teachers of these students to beat chance: {words}. They "
        "were let through by `allow_weak_teacher`; what their students make of their labels says "
        "little of the architecture."
    )


def fidelity(study: Study) -> str:
    """Return how far students follow their own teacher, beyond what an untaught twin does."""
    lines = []
    for student in study.test.students:
        teacher = own_teacher(study.test, student)
        if teacher is None:
            continue
        own = study.test.agreement(teacher, student)
        table = study.tables["fidelity"]
        row = table[(table["student"] == student) & (table["teacher"] == teacher)].iloc[0]
        said = (
            f"- {capital(name_of(student))} decides as its teacher on "
            f"{with_interval(own['agreement'], percent)} of the test faces "
            f"(κ {with_interval(own['kappa'])}) and on {percent(row['train_agreement'])} of the "
            "training faces"
        )
        untaught = f"{student.rpartition('-')[0]}-none"
        if untaught in study.test.arms:
            base = study.test.agreement(teacher, untaught)["agreement"]
            surplus = own["agreement"] - base
            said += (
                f"; its untaught twin does so on {with_interval(base, percent)} of the test faces: "
                f"{with_interval(surplus, _points)} points for teaching"
            )
        if np.isfinite(row["disagreement_seen"]):
            said += (
                ". The teacher's label differed from the true one on "
                f"{percent(row['disagreement_seen'], 1)} of the training views"
            )
        lines.append(said + ".")
    return "\n".join(lines) or "No student was taught by a teacher that is among the runs."


def _points(share: float) -> str:
    return signed(100 * share, 0)


def transfer(study: Study) -> str:
    """Return what a teacher's labels can teach beyond the truth, from how often they differ."""
    seen = study.tables["fidelity"]["disagreement_seen"].dropna()
    if seen.empty:
        return ""
    if seen.max() < 0.01:
        return (
            "A teacher whose labels differ from the truth on less than 1 % of the training views "
            "hands back the truth: its pupils then see nearly the same targets as an untaught one."
        )
    return (
        "Only where the teacher's label differs from the truth does distillation with hard labels "
        f"say anything new: here that is {listing(sorted({percent(s, 1) for s in seen}))} of the "
        "views. On all others the distillation head is one more class head."
    )


def convergence(study: Study) -> str:
    """Return the epochs to 95 % of the best, and a warning where the best is near chance."""
    table = study.tables["convergence"]
    mean = table.groupby("arm", sort=False)["epochs_to_95_percent"].mean().dropna()
    words = ""
    if len(mean) > 1:
        first, last = mean.idxmin(), mean.idxmax()
        words = (
            f"To 95 % of its best validation AUROC, {name_of(first)} needed "
            f"{mean[first]:.3g} epoch{'' if mean[first] == 1 else 's'} and {name_of(last)} "
            f"{mean[last]:.3g}, the fewest and the most. "
        )
    weak = table[table["best_validation_auroc"] * 0.95 <= 0.55]
    if len(weak):
        names = listing([name_of(arm) for arm in dict.fromkeys(weak["arm"])])
        words += f"For {names} that number says little: the best is hardly above chance. "
    return words + "A validation set of this size makes single epochs jump: read the trend."


def ratios_of_cost(study: Study) -> str:
    """Return what a live teacher adds to a student's training time, and what a student saves."""
    mean = study.tables["cost"].groupby("arm", sort=False).mean(numeric_only=True)
    sentences = []
    for taught, untaught in pairs(study.test, "gain"):
        ratio = mean.loc[taught, "train_seconds"] / mean.loc[untaught, "train_seconds"]
        sentences.append(f"{capital(name_of(taught))} took {number(ratio, 1)} times as long to "
                         "train as its untaught twin")  # fmt: skip
        teacher = own_teacher(study.test, taught)
        if teacher:
            saved = mean.loc[teacher, "macs"] / mean.loc[taught, "macs"]
            sentences[-1] += f", and needs 1/{number(saved, 1)} of its teacher's multiply-adds"
    return ". ".join(sentences) + "." if sentences else "No student has an untaught twin here."


def cost(study: Study) -> str:
    """Return `ratios_of_cost` with what to hold against the times."""
    return (
        f"{ratios_of_cost(study)} Times are of the machine named above, which runs may have shared."
    )


def mistakes(panel: Panel) -> str:
    """Return for each arm how much pain it misses, and which faces it takes for pain."""
    lines = []
    for arm in panel.arms:
        missed = panel.estimates(arm)["sensitivity"].complement()
        alarms = {c: panel.estimates(arm, c)["specificity"].complement() for c in CONTRASTS}
        lines.append(
            f"- **{name_of(arm)}** misses {with_interval(missed, percent)} of the Pain faces, and "
            f"calls {with_interval(alarms['neutral'], percent)} of the neutral and "
            f"{with_interval(alarms['expressive'], percent)} of the other expressive faces Pain."
        )
    return "\n".join(lines)


def calibration(panel: Panel) -> str:
    """Return each arm's mean P(pain) beside the share of faces that show pain."""
    means = [f"{name_of(arm)} {number(panel.mean_probability(arm).mean())}" for arm in panel.arms]
    return (
        f"{percent(panel.positive.mean())} of the test faces show pain; the arms' mean P(pain) is "
        f"{listing(means)}."
    )


def groups(study: Study, contrast: str = PRIMARY) -> str:
    """Return what the subgroup intervals allow."""
    table = study.tables["subgroups"]
    table = table[(table["contrast"] == contrast) & table["low"].notna()]
    if table.empty:
        return "No subgroup has enough identities for an interval."
    width = (table["high"] - table["low"]).median()
    level = table[table["low"] <= 0.5]
    total = plural(len(table), "combination")
    said = f"The median interval is {number(width)} AUROC wide. "
    said += (
        f"Of {total} of arm and group, {len(level)} cannot be told from chance. "
        if len(level)
        else f"All {total} of arm and group are above chance. "
    )
    said += "A dot without a bar stands for fewer than five people in a class, or for a perfect "
    said += "score on a few. "
    return f"{said}{largest_gaps(study, contrast)} " + (
        "With so many comparisons a few groups differ by luck alone: this is a check for gross "
        "failure, not a ranking of groups."
    )


def each_largest_gap(gaps: pd.DataFrame, contrast: str = PRIMARY) -> str:
    """Return the largest gap of each arm in `gaps`, the table subgroup_gaps, as a list."""
    mine = gaps[gaps["contrast"] == contrast]
    largest = mine.loc[mine.groupby("arm", sort=False)["estimate"].idxmax()]
    return "; ".join(
        f"{name_of(row.arm)} {signed(row.estimate)} [{signed(row.low)}, {signed(row.high)}] "
        f"({row.group}: {row.best} above {row.worst})"
        for row in largest.itertuples()
    )


def largest_gaps(study: Study, contrast: str = PRIMARY) -> str:
    """Return each arm's largest gap in AUROC between two groups of people."""
    said = each_largest_gap(study.tables["subgroup_gaps"], contrast)
    if not said:
        return "No two groups have enough identities to be compared."
    return (
        f"The largest gap between two groups: {said}. The two were picked because they "
        "are farthest apart, so a gap of this kind is too large on average, and its interval too "
        "kind to the finding."
    )


def outside(panel: Panel) -> str:
    """Return how the arms do on faces of another source."""
    rows = panel.faces
    people = plural(rows["identity"].nunique(), "identity")
    pain = int(panel.positive.sum())
    return (
        f"The arms as they are, on {len(rows)} faces of {people} from another source ({pain} "
        f"Pain), none of which trained or chose anything.\n\n{chance_list(panel)}"
    )


def best(panel: Panel, contrast: str = PRIMARY) -> str:
    """Return the arm with the highest AUROC, with what its rivals' intervals leave open."""
    known = {arm: panel.estimates(arm, contrast)["auroc"] for arm in panel.arms}
    known = {arm: estimate for arm, estimate in known.items() if np.isfinite(estimate.low)}
    if not known:
        return "No arm has an interval here, so none can be called the best."
    if not any(chance(estimate) == "above" for estimate in known.values()):
        return f"On {CONTRASTS[contrast]} no arm is shown to be above chance."
    top = max(known, key=lambda arm: known[arm].value)
    rivals = [
        arm
        for arm in known
        if arm != top and direction(panel.difference(top, arm, contrast, "auroc")) != "higher"
    ]
    said = f"The highest AUROC of {CONTRASTS[contrast]} is that of {name_of(top)}, "
    said += f"{number(known[top].value)} {bracket(known[top])}"
    if rivals:
        said += (
            f"; paired, the sample cannot tell it from {listing([name_of(arm) for arm in rivals])}"
        )
    return said + "."
