"""The test faces as the explorer walks them: which to show, and how an arm decides on them.

Everything here is a function of a `FaceSet` and a `Choice`. A decision is one arm's, in one run
(seed), by one head: Pain where P(pain) is above the chosen threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.dataset.naming import parse_id
from helpers.errors import StudyError
from helpers.evaluation.compare import Panel, make_panel, own_teacher
from helpers.evaluation.subgroups import GROUPS
from helpers.figures import label_of
from helpers.files import read_csv
from helpers.inheritance.dose import ATTRIBUTES, read_pspi
from helpers.metrics import THRESHOLD
from helpers.prose import number
from helpers.training.runs import Run

ANY = "any"
EXPRESSIVE = "all but neutral"
OUTCOMES = ("hit", "miss", "false alarm", "correct rejection")
DISPUTES = {
    "teacher_student": "student ≠ teacher",
    "student_label": "student ≠ label",
    "teacher_label": "teacher ≠ label",
    "arms": "arms differ",
}
ORDERS = {
    "spread": "arms furthest apart first",
    "high": "P(pain), highest first",
    "low": "P(pain), lowest first",
}


@dataclass(frozen=True)
class FaceSet:
    """The test faces and what every arm says of them.

    `table`: one row a face, in the panel's order: `image_id`, `identity`, `side`, `label`,
    `gender`, `age`, `ethnicity`, `kind` (of expression) and `pspi` (NaN where it is not known).
    """

    panel: Panel
    table: pd.DataFrame


@dataclass(frozen=True)
class Choice:
    """What the reader asked to see.

    `arm`, `seed`, `head` (a key of `compare.HEADS`) and `threshold` say whose decision; `outcome`
    and `dispute` (a key of `DISPUTES`) what it must be; `gender`, `age`, `ethnicity` and `kind`
    which faces (a value of the table, `ANY`, or for `kind` `EXPRESSIVE`); `order` is a key of
    `ORDERS`.
    """

    arm: str
    seed: int
    head: str = "probability"
    threshold: float = THRESHOLD
    outcome: str = ANY
    dispute: str = ANY
    gender: str = ANY
    age: str = ANY
    ethnicity: str = ANY
    kind: str = ANY
    order: str = "spread"


def gather(runs: Sequence[Run], attributes: str | Path = ATTRIBUTES) -> FaceSet:
    """Return the test faces of `runs`; `attributes`: the table that tells the stand-in's kinds.

    Of faces that are not the stand-in's only the label and the side are known, so their kind is
    `pain`, `neutral` or `other`.
    """
    panel = make_panel(runs, samples=1, seed=0)
    faces = panel.faces
    people = faces["identity"].map(parse_id)
    table = faces[["image_id", "identity", "side", "label"]].assign(
        **{group: people.map(lambda person, group=group: getattr(person, group))
           for group in GROUPS}
    )  # fmt: skip
    pspi = read_pspi(faces, attributes)
    if pspi is None:
        kinds = np.where(table["side"] == "left", "neutral", "other")
        return FaceSet(
            panel, table.assign(kind=np.where(panel.positive, "pain", kinds), pspi=np.nan)
        )
    kinds = read_csv(attributes).set_index("image_id")["kind"]
    return FaceSet(panel, table.assign(kind=kinds[table["image_id"]].to_numpy(), pspi=pspi))


def default_choice(faces: FaceSet) -> Choice:
    """Return where the explorer starts: the first taught student (or arm), its first seed, 0.5."""
    panel = faces.panel
    arm = next((arm for arm in panel.students if own_teacher(panel, arm)), panel.arms[0])
    return Choice(arm, int(panel.seeds[arm][0]))


def values(faces: FaceSet, column: str) -> list[str]:
    """Return what `column` of the table can be narrowed to, `ANY` first."""
    found = sorted(faces.table[column].unique())
    return [ANY, EXPRESSIVE, *found] if column == "kind" else [ANY, *found]


def probability(faces: FaceSet, arm: str, seed: int, head: str = "probability") -> np.ndarray:
    """Return P(pain) of one run by one head, (faces,); all NaN for a head that it lacks.

    Raises `StudyError` where the arm has no run of that seed.
    """
    seeds = faces.panel.seeds[arm]
    if seed not in seeds:
        raise StudyError(f"{label_of(arm)} has no run with seed {seed}.")
    return faces.panel.probabilities[arm][head][seeds.index(seed)]


def arms_with(faces: FaceSet, seed: int) -> list[str]:
    """Return the arms that have a run of `seed`."""
    return [arm for arm in faces.panel.arms if seed in faces.panel.seeds[arm]]


def outcome_of(positive: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Return one of `OUTCOMES` for each face; `positive`, `called`: bool, (faces,)."""
    return np.where(positive, np.where(called, "hit", "miss"), np.where(called, *OUTCOMES[2:]))


def in_group(faces: FaceSet, choice: Choice) -> np.ndarray:
    """Return which faces are of the chosen people and kind of expression, bool, (faces,)."""
    mask = np.ones(len(faces.table), bool)
    for column in (*GROUPS, "kind"):
        wanted = getattr(choice, column)
        if wanted == EXPRESSIVE:
            mask &= (faces.table[column] != "neutral").to_numpy()
        elif wanted != ANY:
            mask &= (faces.table[column] == wanted).to_numpy()
    return mask


def in_dispute(faces: FaceSet, choice: Choice) -> np.ndarray:
    """Return on which faces the chosen two disagree, bool, (faces,).

    A student is held against its own teacher; a teacher against its pupils, of which one must
    disagree. Nowhere where the arm has no such partner with a run of this seed. `arms`: not all
    arms decide alike.
    """
    panel, nowhere = faces.panel, np.zeros(len(faces.table), bool)
    if choice.dispute == ANY:
        return ~nowhere
    called = {
        arm: probability(faces, arm, choice.seed) > choice.threshold
        for arm in arms_with(faces, choice.seed)
    }
    called[choice.arm] = decided(faces, choice)
    if choice.dispute == "arms":
        votes = np.array(list(called.values()))
        return votes.any(axis=0) & ~votes.all(axis=0)
    teacher, students = _partners(faces, choice)
    if choice.dispute == "teacher_label":
        return called[teacher] != panel.positive if teacher else nowhere
    against = panel.positive if choice.dispute == "student_label" else called.get(teacher)
    if against is None or not students:
        return nowhere
    return np.any([called[student] != against for student in students], axis=0)


def decided(faces: FaceSet, choice: Choice) -> np.ndarray:
    """Return which faces the chosen run calls Pain, bool, (faces,)."""
    return probability(faces, choice.arm, choice.seed, choice.head) > choice.threshold


def _partners(faces: FaceSet, choice: Choice) -> tuple[str | None, list[str]]:
    """Return the chosen arm's teacher (itself where it is one) and pupils (likewise)."""
    panel, there = faces.panel, arms_with(faces, choice.seed)
    teacher = own_teacher(panel, choice.arm)
    if choice.arm in panel.students:
        return teacher if teacher in there else None, [choice.arm]
    pupils = [arm for arm in panel.students if own_teacher(panel, arm) == choice.arm]
    return choice.arm, [arm for arm in pupils if arm in there]


def select(faces: FaceSet, choice: Choice) -> np.ndarray:
    """Return the rows of the faces to show, in their order; may be empty.

    Raises `StudyError` where the arm has no run of the chosen seed.
    """
    mask = in_group(faces, choice) & in_dispute(faces, choice)
    if choice.outcome != ANY:
        mask &= outcome_of(faces.panel.positive, decided(faces, choice)) == choice.outcome
    every = [probability(faces, arm, choice.seed) for arm in arms_with(faces, choice.seed)]
    own = probability(faces, choice.arm, choice.seed, choice.head)
    key = {"spread": -np.ptp(every, axis=0), "high": -own, "low": own}[choice.order]
    order = np.argsort(key, kind="stable")
    return order[mask[order]]


def why_empty(faces: FaceSet, choice: Choice) -> str:
    """Return one sentence on why `select` found nothing."""
    if not in_group(faces, choice).any():
        return "No test face is of these people and this kind of expression."
    teacher, students = _partners(faces, choice)
    name = label_of(choice.arm)
    if "teacher" in choice.dispute and not teacher:
        return f"{name} has no teacher among the runs of seed {choice.seed}."
    if "student" in choice.dispute and not students:
        return f"{name} has no pupil among the runs of seed {choice.seed}."
    return (
        "At a threshold of "
        f"{number(choice.threshold)} no face of this group has this outcome and disagreement."
    )
