"""Facial actions as the targets of pretraining: what each rendered face does, and its mirror."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.errors import StudyError
from helpers.files import read_csv, short_path

_HELD_OUT = 10  # every tenth person


@dataclass(frozen=True)
class Actions:
    """The targets of N faces.

    Attributes:
        names: the A facial actions.
        values: (N, A) float32, standardised by the training faces.
        mirror: (A,), where each action is found in the mirrored face: left and right change places.
        train: rows to train on.
        held_out: rows of other people.
    """

    names: list[str]
    values: torch.Tensor
    mirror: torch.Tensor
    train: np.ndarray
    held_out: np.ndarray

    def seen(self, rows: np.ndarray, flip: torch.Tensor) -> torch.Tensor:
        """Return the targets (len(rows), A) of views, of which those with `flip` < 0 are mirrored.

        `flip` is (len(rows),), as `helpers.training.augment.Views` has it.
        """
        values = self.values[rows]
        return torch.where(flip[:, None] < 0, values[:, self.mirror], values)


def read_actions(attributes: str | Path, image_ids: Sequence[str]) -> Actions:
    """Read the facial actions of the faces `image_ids` from the renderer's `attributes.csv`.

    Every column of numbers that begins with a small letter and varies is an action's weight: action
    units begin with a capital, and `pspi` is a judgement of pain. Raises `StudyError` for a face
    that the table lacks, or too few people.
    """
    table = read_csv(attributes).set_index("image_id")
    missing = sorted(set(image_ids) - set(table.index))
    if missing:
        raise StudyError(f"{short_path(attributes)} lacks {missing[0]}.")
    table = table.loc[list(image_ids)]
    numbers = table.select_dtypes("number")
    names = [name for name in numbers if name[0].islower() and name != "pspi"]
    person = pd.factorize(table["identity"], sort=True)[0]
    if person.max() + 1 < 2 * _HELD_OUT:
        raise StudyError(f"Pretraining needs the faces of at least {2 * _HELD_OUT} people.")
    held_out = person % _HELD_OUT == _HELD_OUT - 1
    values = table[names].to_numpy(np.float32)
    spread = values[~held_out].std(0)
    names = [name for name, s in zip(names, spread, strict=True) if s > 0]
    values = (values[:, spread > 0] - values[~held_out].mean(0)[spread > 0]) / spread[spread > 0]
    return Actions(
        names=names,
        values=torch.from_numpy(values),
        mirror=torch.tensor([names.index(mirrored(name)) for name in names]),
        train=np.flatnonzero(~held_out),
        held_out=np.flatnonzero(held_out),
    )


def mirrored(action: str) -> str:
    """Return the action that a mirrored face shows in place of `action`."""
    if action.endswith("Left"):
        return action.removesuffix("Left") + "Right"
    return action.removesuffix("Right") + "Left" if action.endswith("Right") else action
