"""In what precision a teacher may answer: a low one only where that changes none of its labels."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from helpers.devices import precision
from helpers.files import sha256, write_json
from helpers.training.augment import plain_view
from helpers.training.faces import FaceStore
from helpers.training.losses import hard_labels
from helpers.training.runs import Run
from helpers.training.teachers import FrozenTeacher

# How many times the largest error seen a logit must be away from 0 to be trusted.
_SAFETY = 4.0
_ENOUGH = 512  # faces that tell how large the errors are
_BATCH = 64
_SHOWN = ("precision", "compared", "faces", "margin", "changed_labels")


def settle_precision(run: Run, faces: FaceStore, device: torch.device) -> tuple[torch.dtype, dict]:
    """Return the type in which the teacher of `run` answers on `device`, and a report.

    Both are for `FrozenTeacher.use`, the report for its `margin`.

    Its logits of the training faces' plain views are compared with float32's. On a CPU it computes
    those again in float32 that lie within `margin` of 0, four times the largest error seen on 512
    faces spread over the training set, so that no label of them can differ. On a GPU, where that
    would make the step wait, it computes none again, and a single hard label of the whole training
    set that differs makes it float32 for good. The report holds `precision` and `margin`, and where
    something was compared `compared` (the fast type), `faces` and `changed_labels`, the share that
    differs. It is kept in the run's folder, in `labels/`.
    """
    wanted = precision(device, run.params["parameters"]["amp"])
    if wanted == torch.float32:
        return wanted, {"precision": "float32", "margin": 0.0}
    name = str(wanted).removeprefix("torch.")
    about = {
        "teacher_sha256": sha256(run.folder / "model.safetensors"),
        "crops_sha256": faces.manifest_sha256,
        "compared": name,
        "device": device.type,
        "torch": torch.__version__,
    }
    path = run.folder / "labels" / f"precision-{device.type}-{name}.json"
    report = _read(path)
    if any(report.get(key) != value for key, value in about.items()) or "margin" not in report:
        report = about | _compare(run, faces, device, wanted)
        with suppress(OSError):  # somebody else's teacher: measured again next time
            write_json(path, report)
    return getattr(torch, report["precision"]), {key: report[key] for key in _SHOWN}


def _compare(run: Run, faces: FaceStore, device: torch.device, wanted: torch.dtype) -> dict:
    rows, size = faces.rows("train"), run.params["parameters"]["image_size"]
    if device.type == "cpu":
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _ENOUGH).round().astype(int))]

    def answers(dtype: torch.dtype) -> torch.Tensor:
        teacher = FrozenTeacher(run, device).use(dtype)
        parts = np.array_split(rows, max(1, len(rows) // _BATCH))
        views = (plain_view(faces.images[part].to(device), size) for part in parts)
        return torch.cat([teacher(view, part) for view, part in zip(views, parts, strict=True)])

    exact, fast = answers(torch.float32), answers(wanted)
    margin = 0.0
    if device.type == "cpu":
        margin = _SAFETY * (exact - fast).abs().max().item()
        fast = torch.where(fast.abs() < margin, exact, fast)
    changed = (hard_labels(exact) != hard_labels(fast)).float().mean().item()
    settled = torch.float32 if changed else wanted
    return {
        "precision": str(settled).removeprefix("torch."),
        "faces": len(rows),
        "margin": 0.0 if changed else margin,
        "changed_labels": changed,
    }


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
