"""Grad-CAM over a single face, asked of one run at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.devices import pick_device
from helpers.errors import StudyError
from helpers.figures import as_pixels, label_of
from helpers.inside.plots import overlay
from helpers.inside.saliency import saliency
from helpers.training.runs import Run
from helpers.training.trained import is_distilled, trained_model


class Maps:
    """The maps of single faces; the network that was asked last is kept."""

    def __init__(self, runs: Sequence[Run], device: str = "auto") -> None:
        """Take the runs; nothing is read before it is asked for."""
        self._runs = {(run.name, run.seed): run for run in runs}
        self._device = device
        self._model: tuple = (None, None)
        self._picture: tuple = (None, None)

    def picture(self, arm: str, seed: int, path: Path) -> np.ndarray:
        """Return the crop at `path` in grey with the map over it, (height, width, 3) uint8.

        Brighter is what speaks more for pain to the arm's decision. Raises `StudyError` where the
        run's weights are not on this machine, or nothing in the face speaks for pain.
        """
        key = (arm, seed, path)
        if self._picture[0] != key:
            self._picture = (key, self._draw(arm, seed, as_pixels(path)))
        return self._picture[1]

    def _draw(self, arm: str, seed: int, pixels: np.ndarray) -> np.ndarray:
        run = self._runs[arm, seed]
        if not (run.folder / "model.safetensors").is_file():
            raise StudyError("The weights of this run are not on this machine, so there is no map.")
        if self._model[0] != (arm, seed):
            self._model = ((arm, seed), trained_model(run, pick_device(self._device)))
        size = run.params["parameters"]["image_size"]
        # As `faces` resizes the crops that a network is trained on.
        small = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        images = torch.from_numpy(np.array(small).transpose(2, 0, 1).copy())[None]
        found = saliency(self._model[1], images, size, "grad_cam", is_distilled(run))[0]
        if np.isnan(found).any():
            raise StudyError(f"Nothing in this face speaks for pain to {label_of(arm)}: no map.")
        return overlay(pixels, found)
