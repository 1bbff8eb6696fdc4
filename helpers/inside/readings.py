"""What a reader should take from chapter 5's look inside the networks, in words."""

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate
from helpers.evaluation.compare import Panel, own_teacher
from helpers.figures import label_of
from helpers.prose import capital, listing, number, with_interval
from helpers.writeup.readings import name_of

PLACES = ("brow", "eyes", "nose", "mouth")


def likeness(table: pd.DataFrame, first: str, second: str) -> np.ndarray:
    """Return how like two arms' layers are, one number a seed that both have.

    The mean over the layers of `first` of the CKA with the layer of `second` that is most like it.
    """
    one, other = "first", "second"
    if not ((table["first_arm"] == first) & (table["second_arm"] == second)).any():
        one, other = other, one
    pair = table[(table[f"{one}_arm"] == first) & (table[f"{other}_arm"] == second)]
    pair = pair[pair["first_seed"] == pair["second_seed"]]
    best = pair.groupby(["first_seed", f"{one}_layer"])["cka"].max()
    return best.groupby("first_seed").mean().to_numpy()


def layers(table: pd.DataFrame, panel: Panel) -> str:
    """Return whose layers each taught student's are most like, beside its untaught twin's.

    `table`: see `cka.cka_table`.
    """
    lines = []
    for student in panel.students:
        own, twin = own_teacher(panel, student), f"{student.rpartition('-')[0]}-none"
        if own is None:
            continue
        said = [
            f"{number(likeness(table, student, teacher).mean(), 3)} with {label_of(teacher)}"
            for teacher in panel.teachers
        ]
        line = f"- {capital(name_of(student))}: {listing(said)}"
        if twin in panel.arms:
            gained = likeness(table, student, own) - likeness(table, twin, own)
            many = len(gained) > 1 and len(set(np.sign(gained))) == 1
            seeds = f" in each of {len(gained)} seeds" if many else ""
            verb = "more" if gained.mean() > 0 else "less"
            line += (
                f". It is {verb} like its own teacher than its untaught twin by "
                f"{number(abs(gained.mean()), 3)}{seeds}"
            )
        lines.append(line + ".")
    if not lines:
        return "No student was taught by a teacher that is among the runs."
    return "\n".join(lines) + (
        "\n\nThese are CKA values, 0 to 1, without intervals: they describe these networks."
    )


def places(ratios: dict[tuple[str, str, str], Estimate], method: str) -> str:
    """Return where each arm looks more, and where less, than at any place of the picture.

    `ratios`: see `attribution.attribution_ratios`.
    """
    lines = []
    for arm in dict.fromkeys(a for m, a, _ in ratios if m == method):
        known = {place: ratios[method, arm, place] for place in PLACES}
        more = [f"{p} {with_interval(e)}" for p, e in known.items() if e.low > 1]
        less = [f"{p} {with_interval(e)}" for p, e in known.items() if e.high < 1]
        lines.append(
            f"- **{name_of(arm)}**: more than chance {listing(more) or 'nowhere in the face'}; "
            f"less {listing(less) or 'nowhere in it'}."
        )
    return "\n".join(lines)
