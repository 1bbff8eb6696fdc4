"""Stopping at the batch whose loss is no longer a number, without waiting for the GPU each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from helpers.errors import StudyError

_NAMED = 5
# Looking at a loss makes the host wait for the GPU, so there it is done once in so many steps.
_EVERY = {"cpu": 1, "cuda": 50}


@dataclass
class _Step:
    step: int
    rows: np.ndarray
    loss: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    teacher_logits: torch.Tensor | None


class LossWatch:
    """Remembers the steps since it last looked at their losses.

    Args:
        image_ids: of all faces, for naming those whose loss is not finite.
        losses: the training's own loss of (N, heads) logits, (N,) labels and (N,) logits of the
            teacher or None; its first value is the sum.
        device: where the losses are.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        losses: Callable[..., tuple[torch.Tensor, ...]],
        device: torch.device,
    ) -> None:
        self.image_ids, self.losses = image_ids, losses
        self.every = _EVERY.get(device.type, 1)
        self._steps: list[_Step] = []

    def note(
        self,
        step: int,
        rows: np.ndarray,
        loss: torch.Tensor,
        logits: torch.Tensor,
        labels: torch.Tensor,
        teacher_logits: torch.Tensor | None,
    ) -> bool:
        """Remember a step, whose number counts from 1; tell whether it is time to look."""
        self._steps.append(_Step(step, rows, loss, logits, labels, teacher_logits))
        return len(self._steps) >= self.every

    def look(self, epoch: int, steps: int) -> None:
        """Raise `StudyError`, with the faces, at the first step whose loss was not finite.

        `steps` is the number of steps of an epoch, for the sentence.
        """
        noted, self._steps = self._steps, []
        if not noted or bool(torch.isfinite(torch.stack([one.loss for one in noted])).all()):
            return
        bad = next(one for one in noted if not torch.isfinite(one.loss))
        faces = [self.image_ids[row] for row in bad.rows[self._not_finite(bad)]]
        count = len(bad.rows)
        if len(faces) == count:
            which = f"all {count} faces of the batch ({_listed(faces)})"
        else:
            which = f"{len(faces)} of the {count} faces of the batch: {_listed(faces)}"
        raise StudyError(
            f"The training loss is {bad.loss.item()} in epoch {epoch}, step {bad.step} of {steps}, "
            f"for {which}; look at these faces or try a smaller learning_rate."
        )

    def _not_finite(self, bad: _Step) -> np.ndarray:
        """Positions in the batch of the faces whose own loss is not finite; all where none is."""
        with torch.no_grad():
            teacher, places = bad.teacher_logits, range(len(bad.rows))
            own = [
                self.losses(
                    bad.logits[place : place + 1],
                    bad.labels[place : place + 1],
                    None if teacher is None else teacher[place : place + 1],
                )[0].item()
                for place in places
            ]
        found = np.flatnonzero(~np.isfinite(own))
        return found if len(found) else np.arange(len(own))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
