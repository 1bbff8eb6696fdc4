"""The frame of notebook 05: abstract, method, limits and conclusion, from the study's numbers.

Every sentence holds whatever the runs are; see `readings` for those beside tables and figures.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.evaluation.compare import Panel, counts
from helpers.evaluation.tables import Study
from helpers.figures import label_of, teacher_of
from helpers.metrics import CONTRASTS, THRESHOLD
from helpers.prose import (
    bracket,
    capital,
    chance,
    direction,
    listing,
    percent,
    plural,
    seeds_agree,
    signed,
    with_interval,
)
from helpers.training.teaching import teaching_words
from helpers.writeup.one_run import describe_start
from helpers.writeup.readings import (
    PRIMARY,
    compared,
    gains,
    largest_gaps,
    name_of,
    pairs,
    ratios_of_cost,
    weak_teachers,
)

_STAND_IN = ("quick", "standin")
_RECIPE = ("optimizer", "learning_rate", "schedule", "batch_size", "image_size")


def is_stand_in(study: Study) -> bool:
    """Return whether the crops are the bundled stand-in's, by the name of their folder."""
    return Path(study.runs[0].params["crops_dir"]).name in _STAND_IN


def data_name(study: Study) -> str:
    """Return what the faces are, in words."""
    folder = study.runs[0].params["crops_dir"]
    if is_stand_in(study):
        return "the bundled stand-in, rendered faces in SynPAIN's format"
    return "SynPAIN" if Path(folder).name.startswith("synpain") else f"the faces in `{folder}`"


def seeds_of(study: Study) -> list[int]:
    """Return every seed that occurs."""
    return sorted({run.seed for run in study.runs})


def finding(study: Study) -> str:
    """Return the answer to the question: two teachers' pupils on the primary endpoint."""
    panel, sentences = study.test, []
    for first, second in pairs(panel, "taught"):
        sentences.append(capital(_verdict(panel, first, second)) + ".")
    if sentences:
        return " ".join(sentences)
    taught = [t for t in dict.fromkeys(teacher_of(arm) for arm in panel.students) if t != "none"]
    who = (
        f"pupils of {listing([label_of(t) for t in taught])} only" if taught else "no taught pupil"
    )
    return f"These runs hold {who}, so the teachers cannot be compared."


def _verdict(panel: Panel, first: str, second: str) -> str:
    said = compared(panel, first, second)
    weak = [arm for arm in (first, second) if _chance(panel, arm) != "above"]
    if len(weak) == 2:
        values = listing(
            [
                f"{name_of(arm)} {with_interval(panel.estimates(arm, PRIMARY)['auroc'])}"
                for arm in weak
            ]
        )
        return (
            "this run cannot rank the teachers, because neither pupil is shown to be above chance "
            f"({values}); for the record, {said}"
        )
    if weak:
        said += f"; but {name_of(weak[0])} is not shown to be above chance"
    return said


def _chance(panel: Panel, arm: str) -> str:
    return chance(panel.estimates(arm, PRIMARY)["auroc"])


def abstract(study: Study) -> str:
    """Return the abstract, the finding first."""
    panel, size = study.test, counts(study.test, PRIMARY)
    teachers = " ".join(f"{capital(compared(panel, *p))}." for p in pairs(panel, "teachers"))
    people = plural(size["identities"], "identity")
    above = [name_of(arm) for arm in panel.arms if _chance(panel, arm) == "above"]
    rest = [name_of(arm) for arm in panel.arms if _chance(panel, arm) != "above"]
    weak = weak_teachers(study)
    parts = [
        f"**Finding.** {finding(study)}",
        f"**Weak teachers.** {weak}" if weak else "",
        f"**The teachers themselves.** {teachers}" if teachers else "",
        f"**What a teacher adds.** {gains(study)}",
        f"**Above chance** on this endpoint: {listing(above) or 'no arm'}."
        + (f" Not shown to be: {listing(rest)}." if rest else ""),
        f"**At what cost.** {ratios_of_cost(study)}",
        f"**For whom.** {largest_gaps(study)}",
        f"**How sure.** The endpoint is the AUROC of {CONTRASTS[PRIMARY]}: how often a face in "
        f"pain scores higher than one with another expression (0.5 is chance, 1 perfect), on "
        f"{size['pain']} Pain and {size['other']} expressive NoPain test faces of {people}, none "
        f"of whom any arm has trained on. Brackets are 95 % intervals over identities. "
        f"{seed_words(study)}",
    ]
    if is_stand_in(study):
        parts.append(
            "**What it is about.** The faces are a rendered stand-in, not SynPAIN: the numbers "
            "say how the method behaves on faces whose pain obeys a known rule, and nothing about "
            "people in pain."
        )
    return "\n\n".join(part for part in parts if part)


def seed_words(study: Study) -> str:
    """Return what the number of seeds lets the intervals mean."""
    seeds = seeds_of(study)
    if len(seeds) == 1:
        return (
            "There is one seed, so each comparison is of trained models, not of methods: how much "
            "another training run would move it is not known."
        )
    words = (
        f"Values are means over {len(seeds)} seeds. The intervals cover the choice of people and, "
        "as far as these seeds tell it, the luck of training."
    )
    if any(found != seeds for found in study.test.seeds.values()):
        words += " Not every arm has every seed."
    return words


def departure(study: Study) -> str:
    """Return what was changed after the plan, and whether the verdict hangs on it."""
    if len(seeds_of(study)) == 1:
        return ""
    said = []
    for first, second in pairs(study.test, "taught"):
        found = study.test.difference(first, second, PRIMARY, "auroc")
        low, high = found.interval_of_the_plan()
        if not np.isfinite(low):
            continue
        same = (low > 0 or high < 0) == (found.low > 0 or found.high < 0)
        said.append(
            f"{name_of(first)} minus {name_of(second)}: [{signed(low)}, {signed(high)}] by the "
            f"plan's letter, {bracket(found, signed)} as used here; the decision is "
            f"{'the same' if same else '**not** the same'}."
        )
    return bool(said) * (
        "**One departure from this plan, made after the first look at the results.** The degrees "
        "of freedom of the interval now have a least value, k − 1 for k seeds: the formula alone "
        "fell below it, in places below 1, and gave intervals as wide as the scale. "
        + " ".join(said)
    )


def method(study: Study) -> str:
    """Return the method in brief, from the runs' own parameters."""
    starts = sorted({describe_start(run) for run in study.runs})
    start = f"every arm starts from {starts[0]}"
    if len(starts) > 1:
        start = f"**not alike in all arms** ({listing(starts)}), which the comparison inherits"
    recipe = {key: _values(study, key) for key in _RECIPE}
    clip = _values(study, "clip_norm")
    alike = all(" and " not in value for value in (*recipe.values(), clip))
    shared = "the same for all arms" if alike else "**not the same in all arms**"
    kinds = {teaching_words(run.params["parameters"]) for run in study.runs} - {"no teacher"}
    lines = {
        "Data": f"{data_name(study)}; cropped and aligned by the eyes. Training: "
        f"{_faces(study.train.faces)}. Test: {_faces(study.test.faces)}. The split is by identity: "
        "nobody is in two splits, and both halves of a pair stay together.",
        "Arms": f"{listing([name_of(arm) for arm in study.test.arms])}.",
        "Start": f"{start}.",
        "Recipe": f"{shared}: {recipe['optimizer']}, learning rate "
        f"{recipe['learning_rate']}, schedule {recipe['schedule']}, batches of "
        f"{recipe['batch_size']}, {recipe['image_size']} pixels, gradient clipping {clip}; "
        f"{_epochs(study, 'teacher')} epochs for teachers, {_epochs(study, 'student')} for "
        "students. The weights of the best validation epoch are kept.",
        f"Distillation ({'; '.join(sorted(kinds)) or 'none'})": "the class token learns the "
        "labels, the distillation token what the frozen teacher says of the same view; the student "
        "decides by the mean of both heads' logits. The student without a teacher is the same code "
        "with distillation off.",
        "Test": f"decisions at P(pain) > {THRESHOLD}; 95 % percentile intervals from "
        f"{len(study.test.weights):,} bootstrap samples of identities, the same for every arm"
        + (", widened by the variance between seeds" if len(seeds_of(study)) > 1 else "")
        + f"; {plural(len(seeds_of(study)), 'seed')}.",
        "Machine and code": f"{_machines(study)}.",
    }
    return "\n".join(f"- **{name}:** {text}" for name, text in lines.items())


def _values(study: Study, key: str) -> str:
    values = {run.params["parameters"].get(key, "not recorded") for run in study.runs}
    return listing(sorted("off" if value is None else str(value) for value in values))


def _machines(study: Study) -> str:
    found = []
    for run in study.runs:
        versions = run.params.get("versions", {})
        packages = [f"{name} {versions[name]}" for name in ("torch", "timm") if name in versions]
        commit = run.params.get("git_commit", "unknown")[:12]
        precision = run.params.get("precision", "unknown precision")
        device = run.params.get("device", "unknown device")
        found.append(", ".join([device, precision, *packages, f"commit {commit}"]))
    return "; ".join(sorted(set(found)))


def _epochs(study: Study, stage: str) -> str:
    found = {run.metrics["epochs"] for run in study.runs if run.stage == stage}
    return listing([str(epochs) for epochs in sorted(found)]) or "no"


def _faces(faces: pd.DataFrame) -> str:
    if faces.empty:
        return "no faces"
    people = plural(faces["identity"].nunique(), "identity")
    return f"{len(faces):,} faces of {people} ({percent((faces['label'] == 'Pain').mean())} Pain)"


def limits(study: Study) -> str:
    """Return what the reader should hold against the numbers."""
    size = counts(study.test, PRIMARY)
    starts = {run.params["initialisation"].get("init") for run in study.runs}
    items = []
    if is_stand_in(study):
        items.append(
            "**Rendered faces.** The stand-in obeys its own rule for pain (PSPI over rendered "
            "action units). What holds here need not hold for SynPAIN, and SynPAIN is itself "
            "synthetic."
        )
        items.append(
            "**What SynPAIN would change.** Five times as many people, faces out of an image "
            "generator instead of a renderer, 224 pixels, ImageNet weights instead of weights "
            "that know this renderer's faces, and labels that follow no formula, so that a "
            "teacher's decisions can differ from them for a reason."
        )
    if len(seeds_of(study)) == 1:
        items.append(
            "**One seed.** No interval here covers the luck of initialisation and batch order, "
            "which from scratch can be larger than the difference between teachers."
        )
    else:
        items.append(
            f"**{len(seeds_of(study))} seeds.** So few tell the luck of training only "
            "roughly. The intervals are widened for it, by a model of two normal components."
        )
    items.append(
        f"**A small test set.** {size['pain']} Pain and {size['other']} expressive NoPain faces: "
        "differences smaller than the intervals above cannot be seen, and are not excluded."
    )
    if "scratch" in starts:
        items.append(
            "**Start from scratch.** Transformers without pretraining leave the base-rate plateau "
            "late or by luck; an arm that has not left it says little of its teacher."
        )
    if "faces" in starts:
        items.append(
            "**A start from rendered faces.** Every arm has regressed facial actions, on people of "
            "the same renderer, before it saw a label; what a start from ImageNet would change is "
            "not known."
        )
    items += [
        "**A fixed threshold.** Accuracy, F1, agreement and McNemar's test depend on 0.5, which no "
        "arm was calibrated to; AUROC does not.",
        "**Many numbers.** One endpoint is named in the abstract; the other contrasts, metrics and "
        "groups describe, and are not corrected for their number.",
    ]
    return "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1))


def meaning(study: Study) -> str:
    """Return the conclusion: what was learnt, and what would settle the rest."""
    panel = study.test
    learnt = []
    for first, second in pairs(panel, "taught"):
        found = panel.difference(first, second, PRIMARY, "auroc")
        weak = all(_chance(panel, arm) != "above" for arm in (first, second))
        if weak or direction(found) in ("null", "unknown") or not seeds_agree(found):
            learnt.append("the choice of teacher is **not settled** by these runs")
        else:
            better = first if found.value > 0 else second
            learnt.append(f"on these runs {name_of(better)} is the better pupil")
    gained = {a: panel.difference(a, b, PRIMARY, "auroc") for a, b in pairs(panel, "gain")}
    useful = [a for a, found in gained.items() if direction(found) == "higher"]
    useful = [name_of(arm) for arm in useful if seeds_agree(gained[arm])]
    if gained:
        learnt.append(
            f"a gain over no teacher is shown for {listing(useful)}"
            if useful
            else "no gain over an untaught student is shown (in the interval and in every seed)"
        )
    said = f"{capital('; '.join(learnt) or 'these runs hold no pair of arms to compare')}."
    if is_stand_in(study):
        more = "more seeds (`config/standin.yaml`), and then " if len(seeds_of(study)) == 1 else ""
        return (
            f"**Learnt**, of the stand-in only: {said}\n\n**Next:** {more}SynPAIN itself from "
            "ImageNet weights (`config/synpain.yaml`), which is where the question is decided."
        )
    return f"**Learnt:** {said}\n\n**Next:** more people and more seeds narrow the intervals."
