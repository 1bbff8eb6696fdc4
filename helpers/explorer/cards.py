"""What the explorer's controls change, as HTML: the confusion matrix, a picture, P(pain).

Colours follow JupyterLab's theme. Numbers that a script reads are marked by `data-` attributes.
"""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.bootstrap import LEVEL
from helpers.evaluation.compare import HEADS
from helpers.evaluation.tables import heads_of
from helpers.explorer.choice import Choice, FaceSet, arms_with, outcome_of, probability
from helpers.explorer.rates import Counts, count
from helpers.explorer.views import group_words, rate_words, run_words
from helpers.figures import colour_of, label_of
from helpers.prose import number, percent

HEAD_NAMES = {"probability": "decision"} | {
    name: title for name, title in HEADS.items() if name != "probability"
}
STYLE = """<style>
.explorer { color: var(--jp-ui-font-color1, #1f1f1f); line-height: 1.45; font-size: 13px; }
.explorer p { margin: 4px 0; }
.explorer .muted { color: var(--jp-ui-font-color2, #5f5f5f); }
.explorer table { border-collapse: collapse; margin: 4px 0 8px; font-size: 13px; }
.explorer th { font-weight: normal; padding: 2px 8px 2px 0; text-align: left;
  white-space: nowrap; }
.explorer td { padding: 2px 10px 2px 0; white-space: nowrap; }
.explorer td.cell { width: 92px; height: 58px; padding: 0; text-align: center; font-size: 16px;
  border: 2px solid var(--jp-layout-color0, #fff); }
.explorer td.cell small { font-size: 12px; }
.explorer .note { max-width: 300px; }
.explorer img { display: block; width: 300px; height: 300px; object-fit: contain; }
.explorer .beside { display: flex; flex-wrap: wrap; gap: 0 28px; align-items: center; }
.explorer .wrong { font-weight: bold; }
</style>"""
_STRIP = 150  # pixels, P(pain) from 0 to 1


def matrix(faces: FaceSet, choice: Choice) -> str:
    """Return the confusion matrix of the chosen group with both rates."""
    counts = count(faces, choice)
    rows = [
        ("labelled Pain", [("hit", counts.hit), ("miss", counts.miss)]),
        (
            "labelled NoPain",
            [("false_alarm", counts.false_alarm), ("correct_rejection", counts.correct_rejection)],
        ),
    ]
    body = "".join(f"<tr><th>{title}</th>{_cells(cells)}</tr>" for title, cells in rows)
    return (
        f'<div class="explorer"><p><b>{escape(run_words(faces, choice))}</b>, '
        f"{HEAD_NAMES[choice.head]}</p>"
        f'<p class="muted">faces: {escape(group_words(choice))}</p>'
        '<div class="beside"><table><tr><th></th><th>called Pain</th><th>called NoPain</th></tr>'
        f"{body}</table><div>{_rate(counts, 'sensitivity')}{_rate(counts, 'specificity')}"
        f'<p class="muted">[ ]: {percent(LEVEL)} Wilson interval that counts people</p></div></div>'
        '<p class="muted">Outcome and disagreement do not narrow these faces.</p></div>'
    )


def _cells(cells: list[tuple[str, int]]) -> str:
    total = sum(value for _, value in cells)
    return "".join(
        f'<td class="cell" data-count="{name}" data-value="{value}" '
        f'style="background: rgba(32, 96, 160, {0.06 + 0.5 * value / max(total, 1):.2f})">'
        f"{value:,}<br><small>{percent(value / total if total else np.nan)}</small></td>"
        for name, value in cells
    )


def _rate(counts: Counts, rate: str) -> str:
    value = getattr(counts, rate)
    return (
        f'<p data-rate="{rate}" data-value="{value:.6f}"><b>{rate}</b><br>'
        f"{rate_words(counts, rate)}</p>"
    )


def picture(source: Path | np.ndarray, alt: str) -> str:
    """Return a picture, a file or (height, width, 3) uint8, that needs no file beside the page."""
    if isinstance(source, Path):
        data, kind = source.read_bytes(), source.suffix.lower().lstrip(".").replace("jpg", "jpeg")
    else:
        buffer = io.BytesIO()
        Image.fromarray(source).save(buffer, "png")
        data, kind = buffer.getvalue(), "png"
    code = base64.b64encode(data).decode()
    image = f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{code}">'
    return f'<div class="explorer">{image}</div>'


def message(sentence: str) -> str:
    """Return one sentence where a picture or a face would stand."""
    return f'<div class="explorer"><p class="muted note">{escape(sentence)}</p></div>'


def caption(faces: FaceSet, row: int) -> str:
    """Return who and what a face shows, e.g. "NoPain: laugh, PSPI 5.2 · Woman, Old, Asian"."""
    face = faces.table.iloc[row]
    shown = face["label"] if face["kind"] == "pain" else f"{face['label']}: {face['kind']}"
    if np.isfinite(face["pspi"]):
        shown += f", PSPI {number(face['pspi'], 1)}"
    return f"{shown} · {face['gender']}, {face['age']}, {face['ethnicity']}"


def scores(faces: FaceSet, choice: Choice, row: int) -> str:
    """Return every arm's P(pain) of one face in the runs of the chosen seed, by decision and head.

    A wrong decision is bold; the strip runs from 0 to 1 with the threshold as a line, and thin
    marks for the arm's other seeds.
    """
    positive = faces.panel.positive[[row]]
    lines = []
    for arm in arms_with(faces, choice.seed):
        value = probability(faces, arm, choice.seed)[row]
        outcome = outcome_of(positive, np.array([value > choice.threshold]))[0]
        wrong = ' class="wrong"' if outcome in ("miss", "false alarm") else ""
        heads = [
            f"{HEAD_NAMES[head].removesuffix(' head')} "
            f"{number(probability(faces, arm, choice.seed, head)[row])}"
            for head in _own_heads(faces, arm)
        ]
        name = f"<b>{escape(label_of(arm))}</b>" if arm == choice.arm else escape(label_of(arm))
        lines.append(
            f'<tr data-arm="{arm}" data-value="{value:.6f}"><th>{name}</th>'
            f"<td>{_strip(faces, choice, arm, row)}</td><td>{number(value)}</td>"
            f'<td{wrong}>{outcome}</td><td class="muted">{", ".join(heads)}</td></tr>'
        )
    image_id = faces.table["image_id"][row]
    return (
        f'<div class="explorer" data-face="{escape(image_id)}">'
        f"<p><b>{escape(caption(faces, row))}</b><br>"
        f'<span class="muted">{escape(image_id)}</span></p><table>{"".join(lines)}</table></div>'
    )


def _own_heads(faces: FaceSet, arm: str) -> list[str]:
    """Return the heads of an arm that decides by the mean of several."""
    heads = heads_of(faces.panel, arm)[1:]
    return heads if len(heads) > 1 else []


def _strip(faces: FaceSet, choice: Choice, arm: str, row: int) -> str:
    colour, height = colour_of(arm), 16
    others = [seed for seed in faces.panel.seeds[arm] if seed != choice.seed]
    value = probability(faces, arm, choice.seed)[row]
    seeds = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="12" stroke="{colour}"/>'
        for x in (_STRIP * probability(faces, arm, seed)[row] for seed in others)
    )
    fill = "none" if "-" in arm else colour
    line = _STRIP * choice.threshold
    return (
        f'<svg width="{_STRIP + 12}" height="{height}" viewBox="-6 0 {_STRIP + 12} {height}">'
        f'<line x1="0" x2="{_STRIP}" y1="8" y2="8" stroke="#bdbdbd"/>'
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="{height}" stroke="currentColor" '
        f'stroke-dasharray="2 2"/>{seeds}'
        f'<circle cx="{_STRIP * value:.1f}" cy="8" r="4.5" fill="{fill}" stroke="{colour}" '
        'stroke-width="2"/></svg>'
    )
