"""A trained network back from its run folder."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from helpers.errors import StudyError
from helpers.files import short_path
from helpers.networks.models import build_student, build_teacher
from helpers.training.runs import Run


def trained_model(run: Run, device: torch.device) -> nn.Module:
    """Return the network of a finished run on `device`, in evaluation mode.

    Raises `StudyError` for a run without its weights.
    """
    chosen, weights = run.params["parameters"], weights_of(run)
    teacher = run.stage == "teacher"
    build, name = (build_teacher, run.name) if teacher else (build_student, chosen["student"])
    model, _ = build(name, "scratch", chosen["image_size"])
    model.load_state_dict(load_file(weights))
    return model.to(device).eval()


def weights_of(run: Run) -> Path:
    """Return the path of a run's weights; raise `StudyError` where they are missing."""
    weights = run.folder / "model.safetensors"
    if not weights.is_file():
        raise StudyError(f"The run folder {short_path(run.folder)} lacks model.safetensors.")
    return weights


def is_distilled(run: Run) -> bool:
    """Return whether the run's network decides by both heads; see `models.decision_logits`."""
    return run.params["parameters"].get("distillation", "none") != "none"
