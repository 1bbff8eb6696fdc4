"""Numbers as words: rounding, intervals and verdicts that say no more than their interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.bootstrap import LEAST_IDENTITIES, Estimate

NO_INTERVAL = f"no interval: fewer than {LEAST_IDENTITIES} identities in a class"


def number(value: float, digits: int = 2) -> str:
    """Return `value` with a true minus sign; NaN is "–"."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return `value` with its sign, "+0.054" or "−0.054"; what rounds to zero has none.

    Differences get a third digit, so that an interval that just holds 0 is seen to.
    """
    text = number(value, digits)
    return text if text[0] in "−–" or not text.strip("0.") else f"+{text}"


def percent(value: float, digits: int = 0) -> str:
    """Return a share as "12 %"; NaN is "–"."""
    return f"{number(100 * value, digits)} %" if np.isfinite(value) else "–"


def bracket(estimate: Estimate, form=number) -> str:
    """Return the interval as "[0.79, 0.88]", or "[no interval]"."""
    if not np.isfinite(estimate.low):
        return "[no interval]"
    return f"[{form(estimate.low)}, {form(estimate.high)}]"


def with_interval(estimate: Estimate, form=number) -> str:
    """Return "0.84 [0.79, 0.88]", or "–" where the value is not defined."""
    if not np.isfinite(estimate.value):
        return "–"
    return f"{form(estimate.value)} {bracket(estimate, form)}"


def chance(estimate: Estimate) -> str:
    """Return what an AUROC's interval says of chance (0.5): a key of `CHANCE`."""
    if not np.isfinite(estimate.value):
        return "undefined"
    if not np.isfinite(estimate.low):
        return "unknown"
    if estimate.low > 0.5:
        return "above"
    return "below" if estimate.high < 0.5 else "level"


CHANCE = {
    "above": "above chance",
    "below": "below chance",
    "level": "not distinguishable from chance",
    "unknown": f"a value without interval (fewer than {LEAST_IDENTITIES} identities in a class), "
    "so nothing can be said about chance",
    "undefined": "not defined here, because only one class is present",
}


def direction(estimate: Estimate) -> str:
    """Return what a difference's interval says: `higher`, `lower`, `null`, or `unknown`."""
    if not np.isfinite(estimate.low):
        return "unknown"
    if estimate.low > 0:
        return "higher"
    return "lower" if estimate.high < 0 else "null"


def seeds_agree(estimate: Estimate) -> bool:
    """Return whether the difference has one sign in every seed (true with none or one)."""
    return len({np.sign(value) for value in estimate.seeds}) < 2


def difference(estimate: Estimate, first: str, second: str, what: str = "AUROC") -> str:
    """Return one sentence (without full stop) on the paired difference `first` minus `second`.

    An interval that holds 0 is reported as no difference that the sample can show, with what the
    interval still allows. With several seeds their range is told as well, and where a verdict does
    not hold in each of them, that.
    """
    if not np.isfinite(estimate.value):
        return f"{first} and {second} cannot be compared here, because only one class is present"
    shown = f"{signed(estimate.value)} {what}"
    verdict = direction(estimate)
    if verdict == "unknown":
        return f"{first} minus {second} is {shown} ({NO_INTERVAL}), which settles nothing"
    if verdict == "null":
        sentence = (
            f"the sample shows no difference between {first} and {second} ({shown}; the interval "
            f"allows {signed(estimate.low)} to {signed(estimate.high)})"
        )
    else:
        sentence = f"{first} scores {verdict} than {second}: {shown} {bracket(estimate, signed)}"
    if len(estimate.seeds) > 1:
        low, high = min(estimate.seeds), max(estimate.seeds)
        sentence += f" (the {len(estimate.seeds)} seeds: {signed(low)} to {signed(high)})"
        if verdict != "null" and not seeds_agree(estimate):
            sentence += ", but not in every seed"
    return sentence


def listing(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, noun: str) -> str:
    """Return "1 seed" or "3 seeds"; a noun in -y becomes -ies."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def capital(sentence: str) -> str:
    """Return `sentence` with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown, first column left, the others right."""
    cells = table.astype(str).map(lambda text: text.replace("|", "\\|"))
    head = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "|:---|" + "---:|" * (len(table.columns) - 1)
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in cells.to_numpy())])
