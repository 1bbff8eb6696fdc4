"""What notebook 01 shows of the files: all accounted for, what they were, which look the same."""

from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

from helpers.dataset.duplicates import HASH_BITS, MOST_BITS
from helpers.dataset.prepare import Prepared
from helpers.dataset.tree import IGNORED
from helpers.files import project_path, short_path
from helpers.prose import capital, listing, percent, plural
from helpers.work import peak_memory

# Every reason that rejected.csv can give, in the order in which files meet the checks.
REASONS = {
    IGNORED: "no picture by its name: text, video, anything else",
    "unreadable": "a file or folder that cannot be opened, or no file at all",
    "bad_name": "not named as SynPAIN names its pairs",
    "bad_id": "the name begins with something else than an ID",
    "id_contradicts_name": "the ID says one thing, the words another",
    "empty_file": "no bytes",
    "too_large": "far more bytes or pixels than a pair has",
    "not_an_image": "the bytes are not a picture's",
    "broken_image": "a picture whose bytes are damaged or end early",
    "not_side_by_side": "not two halves wide",
    "too_small": "halves of too few pixels",
    "duplicate_id": "the ID of a file that is used already",
    "duplicate_picture": "the very bytes of a file that is used under another ID",
    "contradictory_duplicate": "the same bytes under names that contradict each other",
}


def accounting(result: Prepared) -> str:
    """Return the sum that accounts for every file found, and how the splits were made."""
    return (
        f"**Accepted {result.n_accepted:,} + rejected {result.n_rejected:,} + ignored "
        f"{result.n_ignored:,} = found {result.n_found:,} files.** The "
        f"{plural(result.n_accepted, 'accepted pair')} gave {len(result.manifest):,} faces. This "
        f"call took {result.seconds:,.0f} s; the process held at most {peak_memory():,.0f} MiB of "
        "memory.\n\n"
        f"{result.splitting.note}"
    )


def source_table(result: Prepared) -> pd.DataFrame:
    """Return what kinds of file the pairs were: format, mode and size, with the name's suffix."""
    pairs = result.pairs
    kinds = pd.DataFrame(
        {
            "format": pairs["format"],
            "named": pairs["path"].map(lambda path: Path(path).suffix.lower()),
            "mode": pairs["mode"],
            "pixels": pairs["width"].astype(str) + " × " + pairs["height"].astype(str),
            "bytes": pairs["bytes"],
        }
    )
    groups = kinds.groupby(["format", "named", "mode", "pixels"])["bytes"]
    table = groups.agg(pairs="size", median="median").reset_index()
    table["median size"] = table.pop("median").map(lambda size: f"{size / 1024:,.0f} KiB")
    return table.sort_values("pairs", ascending=False, ignore_index=True, kind="stable").head(12)


def read_sources(result: Prepared) -> str:
    """Return whether the format of a pair's file would tell what the pair is named."""
    pain = result.manifest.drop_duplicates("identity").set_index("identity")["expression"] == "Pain"
    shares = pain.loc[result.pairs["identity"]].groupby(list(result.pairs["format"])).mean()
    if len(shares) == 1:
        return f"All pairs came as {shares.index[0]}, and every face is written anew as JPEG."
    told = listing([f"{percent(share)} of the {name} files" for name, share in shares.items()])
    return f"Named Pain are {told}: written anew in one format, no face can tell what it came from."


def reasons_table(result: Prepared) -> Styler:
    """Return how many files were not used for which reason, and what the reason means."""
    counts = result.rejected["reason"].value_counts()
    rows = [
        {
            "reason": reason,
            "counted as": "ignored" if reason == IGNORED else "rejected",
            "files": counts[reason],
            "meaning": meaning,
        }
        for reason, meaning in REASONS.items()
        if reason in counts
    ]
    return _left(pd.DataFrame(rows), "reasons")


def read_rejected(result: Prepared, out_dir: str | Path) -> str:
    """Return how many files were not used, and what the ignored ones were."""
    name = short_path(project_path(out_dir) / "rejected.csv")
    if result.rejected.empty:
        return f"Every file was used: `{name}` is empty."
    text = f"`{name}` names each of the {plural(len(result.rejected), 'file')} not used."
    ignored = result.rejected.loc[result.rejected["reason"] == IGNORED, "path"]
    if len(ignored):
        kinds = ignored.map(lambda path: Path(path).suffix.lower() or "no type").value_counts()
        told = listing([f"{count:,} × {kind}" for kind, count in kinds.head(8).items()])
        text += f" Ignored were {told}{', and others' if len(kinds) > 8 else ''}."
    return text


def rejected_table(result: Prepared, shown: int = 20) -> Styler:
    """Return the first files that were rejected (those ignored last), sentences in full."""
    order = (result.rejected["reason"] == IGNORED).argsort(kind="stable")
    return _left(result.rejected.iloc[order].head(shown), "rejected")


def read_duplicates(result: Prepared) -> str:
    """Return which people share a picture, and how far the next ones are from that."""
    near, counts = result.near, result.rejected["reason"].value_counts()
    exact = counts.get("duplicate_picture", 0) + counts.get("contradictory_duplicate", 0)
    text = f"{capital(plural(exact, 'file'))} had the very bytes of another ID's and went out. "
    if near.table.empty:
        text += "No half of a person looks like a half of another person"
    else:
        people = set(near.table["identity"]) | set(near.table["other_identity"])
        n_groups = len({near.groups[identity] for identity in people})
        text += (
            f"{capital(plural(len(near.table), 'time'))} a half looks like one of another person: "
            f"this ties {len(people):,} people into {plural(n_groups, 'group')}, which no split "
            "divides"
        )
    text += f" (at most {MOST_BITS} of the {HASH_BITS} bits of their hashes differ)."
    if near.nearest is not None:
        text += f" The next nearest halves of different people differ in {near.nearest} bits."
    return text


def _left(table: pd.DataFrame, name: str) -> Styler:
    style = Styler(table, uuid=name, cell_ids=False).hide()
    return style.set_table_styles([{"selector": "th, td", "props": "text-align: left"}])
