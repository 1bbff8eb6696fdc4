"""The planning table of chapter 5 in words."""

import numpy as np

from helpers.compare import counts
from helpers.planning import components, planning_table
from helpers.prose import listing, markdown_table, number
from helpers.readings import PRIMARY, name_of, pairs
from helpers.tables import Study


def words(study: Study, contrast: str = PRIMARY) -> str:
    """Return the planning table for each pair of taught students, or why there is none."""
    identities = counts(study.test, contrast)["identities"]
    said = []
    for first, second in pairs(study.test, "taught"):
        difference = study.test.difference(first, second, contrast, "auroc")
        table = planning_table(difference, identities)
        if table.empty:
            continue
        people, training = components(difference, identities)
        wide = table.pivot(index="difference", columns="seeds", values="identities")
        shown = wide.map(lambda n: f"{n:,.0f}" if np.isfinite(n) else "more seeds")
        shown.columns = [f"{seeds} seeds" for seeds in wide.columns]
        shown.insert(0, "true difference", [f"{number(d)} AUROC" for d in wide.index])
        said.append(
            f"{listing([name_of(first), name_of(second)])}: a standard deviation of "
            f"{number(np.sqrt(people))} for one identity and of {number(np.sqrt(training), 3)} for "
            f"one pair of training runs; this test set has {identities} identities.\n\n"
            f"{markdown_table(shown)}"
        )
    return "\n\n".join(said) or (
        "Without two taught students, and several seeds of each, there is nothing to plan from."
    )
