"""MODEL_CARD.md of a release: front matter as the Hugging Face hub reads it, then the card.

Every number is of the runs; none is typed.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from helpers.errors import StudyError
from helpers.evaluation.compare import Panel
from helpers.evaluation.tables import Study
from helpers.figures import label_of
from helpers.metrics import CONTRASTS, PRIMARY
from helpers.predict.command import NOTICE
from helpers.prose import listing, markdown_table, plural, signed
from helpers.writeup.frame import data_name, finding, is_stand_in, limits, seeds_of
from helpers.writeup.model_card import model_card
from helpers.writeup.views import by_contrast, caption

SYNPAIN = "TaatiTeam/SynPAIN"
TAGS = (
    *("knowledge-distillation", "vision-transformer", "deit", "facial-expression", "pain"),
    *("synthetic-data", "not-a-medical-device"),
)
_USE = """\
In a checkout of the study's code (`release.json` names the commit), set up by `make .venv`, with
this release unpacked in the folder `{folder}` of it:

```
.venv/bin/python -m helpers.predict PICTURES --model {folder}/{run}
```

This finds, aligns and scores each face as in the run and writes a table. {also}"""
_EXPORTED = (
    "The students' `onnx/` folders hold the same networks for onnxruntime, which needs no torch."
)


def release_card(
    study: Study, config: str, folder: str, students: Mapping[str, str], exported: bool
) -> str:
    """Return the text of MODEL_CARD.md.

    Args:
        study: the runs of the release with their tables.
        config: its name.
        folder: the release's own folder.
        students: the SHA-256 of each student's weights, by its folder in the release.
        exported: whether students are in it as ONNX files, too.

    Raises:
        StudyError: for a study without a student.
    """
    if not students:
        raise StudyError("These runs hold no student, so there is no model to release.")
    also = _EXPORTED if exported else ""
    panel = study.test
    parts = [
        f"---\n{yaml.safe_dump(front_matter(study), sort_keys=False, allow_unicode=True)}"
        f"---\n\n# Students that tell Pain from NoPain in faces: {config}",
        f"**{NOTICE}**",
        f"{finding(study)} {_seeds(study)}",
        "## Model card",
        "As in chapter 5 of the study, to whose sections it points.",
        model_card(study),
        "## How to use it",
        _USE.format(folder=folder, run=_example(students), also=also).rstrip(),
        "## Evaluation",
        f"AUROC on people that no arm was trained on, with 95 % intervals over identities"
        f"{', widened by what the seeds differ' if len(seeds_of(study)) > 1 else ''}. "
        f"{caption(panel, 'all')} 0.5 is chance. The other metrics are in `results/{config}`.",
        markdown_table(by_contrast(panel)),
        "## For whom it fails",
        _gaps(study),
        "## Limits",
        limits(study),
        "## Licences",
        _licences(study),
        "## The weights",
        markdown_table(_weights(students)),
        "How to cite: `CITATION.cff`. Every file's hash: `SHA256SUMS`. Who made what, and from "
        "which commit: `release.json`, and `params.json` of each run.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(study: Study) -> dict:
    """Return the card's metadata: licence, tags, data, and AUROC of each student."""
    data = {"name": data_name(study), "type": _dataset(study)}
    return {
        "license": "mit",
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": list(TAGS),
        "datasets": [data["type"]],
        "metrics": ["roc_auc"],
        "model-index": [
            {"name": label_of(arm), "results": [_result(study.test, arm, data)]}
            for arm in study.test.students
        ],
    }


def _dataset(study: Study) -> str:
    """Return the hub's name of the data where it has them, else a name that it has not."""
    folder = Path(study.runs[0].params["crops_dir"]).name
    if is_stand_in(study):
        return "pain-distillation-standin"
    return SYNPAIN if folder.startswith("synpain") else folder


def _result(panel: Panel, arm: str, data: dict) -> dict:
    found = {name: panel.estimates(arm, name)["auroc"].value for name in CONTRASTS}
    return {
        "task": {"type": "image-classification", "name": "Pain or NoPain in a face"},
        "dataset": dict(data),
        "metrics": [
            {"type": "roc_auc", "name": f"AUROC, {CONTRASTS[name]}", "value": round(value, 4)}
            for name, value in found.items()
            if value == value
        ],
    }


def _example(students: Mapping[str, str]) -> str:
    """Return the folder of a taught student, or of any where none was taught."""
    return next((run for run in students if "-none/" not in run), next(iter(students)))


def _seeds(study: Study) -> str:
    count = plural(len(seeds_of(study)), "seed")
    return f"Each arm was trained from {count}; the release has all of them, teachers included."


def _gaps(study: Study) -> str:
    """Return the gap in AUROC between best and worst group, a row an arm, a column a grouping."""
    table = study.tables["subgroup_gaps"]
    table = table[table["contrast"] == PRIMARY]
    if table.empty:
        return "No two groups have enough identities to be compared."
    rows: dict[str, dict] = {}
    for row in table.itertuples():
        cells = rows.setdefault(row.arm, {"arm": label_of(row.arm)})
        cells[row.group] = (
            f"{signed(row.estimate)} [{signed(row.low)}, {signed(row.high)}], {row.best} above "
            f"{row.worst}"
        )
    said = (
        f"The gap in AUROC, {CONTRASTS[PRIMARY]}, between the best and the worst group of people. "
        "Which they are was read off the same faces, so these gaps are too large on average."
    )
    return f"{said}\n\n{markdown_table(pd.DataFrame(rows.values()).fillna('–'))}"


def _licences(study: Study) -> str:
    starts = {run.params["initialisation"].get("init") for run in study.runs}
    said = "The code and these weights: MIT, see `LICENSE`."
    named = sorted({run.params["initialisation"].get("architecture", run.name)
                    for run in study.runs})  # fmt: skip
    if not starts <= {"scratch", "faces"}:
        said += (
            f" They were trained from weights of others for {listing(named)}, whose terms go with "
            "them: read them at their source."
        )
    return f"{said} What the data behind them are made of: `DATA_LICENCES.md`."


def _weights(students: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"student": f"`{folder}`", "SHA-256": f"`{digest}`"} for folder, digest in students.items()
    )


def data_licences(text: str, study: Study) -> str:
    """Return what data/README.md, `text`, says of the licences of the study's data.

    Raises `StudyError` where it lacks the section.
    """
    sections = {
        "pain-distillation-standin": ["### Licences", "### What it must not be used for"],
        SYNPAIN: ["## SynPAIN"],
    }
    headings = sections.get(_dataset(study))
    said = "From `data/README.md` of the study."
    if headings is None:
        said = f"The study's code does not know the licence of {data_name(study)}."
    parts = ["# The data behind these weights", said]
    return "\n\n".join([*parts, *(_section(text, heading) for heading in headings or ())]) + "\n"


def _section(text: str, heading: str) -> str:
    """Return a section of Markdown with its heading, up to the next one of its level or above."""
    level = heading.index(" ")
    lines = text.splitlines()
    if heading not in lines:
        raise StudyError(f"The file data/README.md lacks the section '{heading}'.")
    start = lines.index(heading)
    ends = [
        place
        for place, line in enumerate(lines)
        if place > start and line.startswith("#") and line.index(" ") <= level
    ]
    return "\n".join(lines[start : min(ends, default=len(lines))]).strip()
