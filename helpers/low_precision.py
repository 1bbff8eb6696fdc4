"""Whether a teacher may answer in low precision: only where that changes none of its labels."""

import json
from contextlib import suppress
from pathlib import Path

import torch

from helpers.devices import precision
from helpers.faces import FaceStore
from helpers.files import sha256, write_json
from helpers.inference import predict
from helpers.losses import hard_labels
from helpers.runs import Run
from helpers.teachers import FrozenTeacher


def settle_precision(run: Run, faces: FaceStore, device: torch.device) -> tuple[torch.dtype, dict]:
    """Return the type in which the teacher of `run` answers on `device`, and a report.

    Its hard labels of the training faces' plain views are compared between float32 and the type
    that the device is fast in; a single one that differs makes it float32. The report holds
    `precision`, and where something was compared `compared` (the fast type), `faces` and
    `changed_labels`, the share that differs. It is kept in the run's folder, in `labels/`.
    """
    wanted = precision(device, run.params["parameters"]["amp"])
    if wanted == torch.float32:
        return wanted, {"precision": "float32"}
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
    if any(report.get(key) != value for key, value in about.items()):
        report = about | _compare(run, faces, device, wanted)
        with suppress(OSError):  # somebody else's teacher: measured again next time
            write_json(path, report)
    shown = {key: report[key] for key in ("precision", "compared", "faces", "changed_labels")}
    return getattr(torch, report["precision"]), shown


def _compare(run: Run, faces: FaceStore, device: torch.device, wanted: torch.dtype) -> dict:
    teacher, rows = FrozenTeacher(run, device), faces.rows("train")
    image_size = run.params["parameters"]["image_size"]
    labels = [
        hard_labels(predict(teacher.model, faces.images, image_size, dtype, rows)[:, 0])
        for dtype in (torch.float32, wanted)
    ]
    changed = (labels[0] != labels[1]).float().mean().item()
    settled = torch.float32 if changed else wanted
    return {
        "precision": str(settled).removeprefix("torch."),
        "faces": len(rows),
        "changed_labels": changed,
    }


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
