"""The planning table of chapter 5 in words."""

import numpy as np

from helpers.evaluation.compare import counts
from helpers.evaluation.planning import LEAST_IDENTITIES, components, planning_table
from helpers.evaluation.tables import Study
from helpers.metrics import PRIMARY
from helpers.prose import listing, markdown_table, number
from helpers.writeup.readings import name_of, pairs


def words(study: Study, contrast: str = PRIMARY) -> str:
    """Return the planning table for each pair of taught students, or why there is none."""
    identities = counts(study.test, contrast)["identities"]
    said = []
    for first, second in pairs(study.test, "taught"):
        difference = study.test.difference(first, second, contrast, "auroc")
        table = planning_table(difference, identities)
        if table.empty:
            continue
        parts = components(difference, identities)
        wide = table.pivot(index="difference", columns="seeds", values="identities")
        shown = wide.map(_size)
        shown.columns = [f"{seeds} seeds" for seeds in wide.columns]
        shown.insert(0, "true difference", [f"{number(d)} AUROC" for d in wide.index])
        said.append(
            f"{listing([name_of(first), name_of(second)])}: standard deviations of "
            f"{number(np.sqrt(parts.common))} for what one identity does to every pair of runs, "
            f"{number(np.sqrt(parts.apart))} for what it does to one pair, and "
            f"{number(np.sqrt(parts.training), 3)} for the luck of one pair; this test set has "
            f"{identities} identities.\n\n"
            f"{markdown_table(shown)}"
        )
    return "\n\n".join(said) or (
        "Without two taught students, and several seeds of each, there is nothing to plan from."
    )


def _size(identities: float) -> str:
    if identities == LEAST_IDENTITIES:
        return f"{LEAST_IDENTITIES} or fewer"
    return f"{identities:,.0f}" if np.isfinite(identities) else "more seeds"
