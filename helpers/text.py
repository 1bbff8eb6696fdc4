"""Numbers and names as words: one sentence at a time, by a template that a person wrote."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from IPython.display import Markdown
from jinja2 import Environment, StrictUndefined

from helpers.files import StudyError, project_path, short_path
from helpers.stats import Estimate

NAMES = {"resnet50": "ResNet-50", "swin": "Swin-T", "swin_base": "Swin-B", "none": "no teacher"}
NAMES |= {"deit_tiny": "DeiT-Ti", "deit_small": "DeiT-S", "deit_base": "DeiT-B"}


def teacher_of(arm: str) -> str:
    """Return the teacher in an arm's name: `swin` for `swin` and for `deit_tiny-swin`."""
    return arm.rpartition("-")[2]


def name_of(arm: str) -> str:
    """Return an arm's display name: "Swin-T", "DeiT-Ti ← Swin-T", "DeiT-Ti, no teacher".

    What is no arm is returned as it is.
    """
    student, _, teacher = arm.rpartition("-")
    if student not in NAMES or teacher not in NAMES:
        return NAMES.get(arm, arm)
    return NAMES[student] + (", " if teacher == "none" else " ← ") + NAMES[teacher]


def number(value: float, digits: int = 2) -> str:
    """Return `value` with a true minus sign; what is not finite is "–"."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return (text.lstrip("-") if not text.strip("-0.,") else text).replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return `value` with its sign, "+0.054" or "−0.054"; what rounds to zero has none."""
    text = number(value, digits)
    return text if text[0] in "−–" or not text.strip("0.") else f"+{text}"


def percent(value: float, digits: int = 0) -> str:
    """Return a share as "12 %"; what is not finite is "–"."""
    return f"{number(100 * value, digits)} %" if np.isfinite(value) else "–"


def shown(found: Estimate | pd.Series, signs: bool | None = None) -> str:
    """Return "0.84 [0.79, 0.88]"; with `signs`, as a difference has, "+0.054 [−0.010, +0.108]".

    `found`: an estimate, or a row of a table with `estimate`, `low` and `high`. Without an interval
    (fewer than five people in a class) "[no interval]"; undefined, "–".
    """
    value = found.value if isinstance(found, Estimate) else found.estimate
    if signs is None:
        signs = isinstance(found, Estimate) and found.limits[0] < 0
    form = signed if signs else number
    if not np.isfinite(value):
        return "–"
    ends = f"{form(found.low)}, {form(found.high)}" if np.isfinite(found.low) else "no interval"
    return f"{form(value)} [{ends}]"


def verdict(difference: Estimate, first: str = "the first", second: str = "the second") -> str:
    """Return what the study's rule says of `first` minus `second`, one sentence of five.

    `first` is called higher (or `second`) where the 95 % interval leaves out 0 and every seed has
    the same sign. Anything else leaves it open: a wide interval never shows that nothing is there.
    One seed knows nothing of the luck of training, so no direction is read from it.
    """
    seeds = difference.seeds
    if not np.isfinite(difference.low):
        return "There are too few people for an interval, so nothing is decided."
    if len(seeds) == 1:
        return "One seed knows nothing of the luck of training, so no direction is read from it."
    if difference.low > 0 and all(value > 0 for value in seeds):
        return f"By the rule {first} is higher."
    if difference.high < 0 and all(value < 0 for value in seeds):
        return f"By the rule {second} is higher."
    return f"This leaves open which is higher, {first} or {second}."


def _plain(value: object) -> object:
    if isinstance(value, Estimate):
        return shown(value)
    return number(value) if isinstance(value, float) else value


_TEMPLATES = Environment(undefined=StrictUndefined, finalize=_plain)
_TEMPLATES.filters |= {"number": number, "signed": signed, "percent": percent, "name": name_of}
_TEMPLATES.globals |= {"verdict": verdict}


def fill(template: str, **values: object) -> str:
    """Return a jinja template with `values` filled in, an estimate with its interval."""
    return _TEMPLATES.from_string(template).render(values)


def say(template: str, **values: object) -> Markdown:
    """Return `fill` as Markdown, to be the last line of a cell."""
    return Markdown(fill(template, **values))


def discussion(path: str | Path, names: Mapping) -> Markdown:
    """Return a person's discussion of the results, if its claims hold of the results.

    The file opens with a YAML block, `claims:` a list of expressions over `names` and `low(x)`,
    `high(x)`, `value(x)` of an estimate. All true: the text, its templates filled in. One false:
    the text is withheld, and the claim is named. No such file: the numbers speak by the rule.
    Raises `StudyError` for a claim that cannot be evaluated.
    """
    path = project_path(path)
    if not path.is_file():
        return Markdown("*No discussion has been written of these runs: read them by the rule.*")
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    ends = {end: lambda e, end=end: getattr(e, end) for end in ("low", "high", "value")}
    known = {"__builtins__": {"abs": abs, "min": min, "max": max, "all": all}, **ends, **names}
    for claim in yaml.safe_load(head)["claims"]:
        try:
            holds = eval(claim, known)
        except Exception as error:
            said = f"the claim '{claim}' cannot be evaluated ({error!r}); it may speak of"
            known = ", ".join(sorted(names))
            raise StudyError(f"{short_path(path)}: {said} {known}.") from None
        if not holds:
            said = f"`{path.name}` discusses other results: its claim `{claim}` does not hold of"
            return Markdown(f"> **Withheld.** {said} these. Read the numbers by the rule.")
    return Markdown(fill(body, **names))
