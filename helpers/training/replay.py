"""The teacher's answers written down with what decides them, and given again to further students.

A student sees views that are drawn from (seed, epoch) alone, so a teacher's answer to a view can
be stored by its face and epoch and the view itself need not be (Wu et al., "TinyViT: fast
pretraining distillation for small vision transformers", ECCV 2022, section 3.1). Answers lie in
the teacher's run folder, in `labels/<key>/epoch<n>.safetensors`: `logits` (N,), one for each face
of the manifest, NaN for a face that the epoch did not show.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from helpers.devices import pick_device, set_determinism
from helpers.errors import StudyError
from helpers.files import ROOT, replacing, sha256, short_path, write_json
from helpers.training.faces import FaceStore, load_faces
from helpers.training.feed import Feed
from helpers.training.low_precision import settle_precision
from helpers.training.runs import Run
from helpers.training.teachers import FrozenTeacher, Teacher, read_teacher

# The code that a view and its answer come from; another version of it gives other answers.
_CODE = (
    "training/augment.py",
    "training/feed.py",
    "training/faces.py",
    "training/teachers.py",
    "networks/packed.py",
)


class RecordedTeacher:
    """A teacher whose answers are written down, an epoch at a time.

    Args:
        make: builds the teacher itself; not called while every answer is on record.
        folder: holds the answers of one key, see `answers_key`.
        key: what decides the answers.
        count: the number of faces in the store.
        device: where the answers are given.
        replay: give the answers that are on record instead of asking again.
    """

    def __init__(
        self,
        make: Callable[[], Teacher],
        folder: Path,
        key: dict,
        count: int,
        device: torch.device,
        replay: bool,
    ) -> None:
        self.make, self.folder, self.key = make, folder, key
        self.count, self.device, self.replay = count, device, replay
        self.asked = 0
        self._teacher: Teacher | None = None
        self._epoch, self._live = 0, True
        self._answers = torch.empty(0)

    @property
    def teacher(self) -> Teacher:
        """The teacher itself, built when first asked for."""
        if self._teacher is None:
            with _untouched_randomness(self.device):
                self._teacher = self.make()
        return self._teacher

    @property
    def heard(self) -> torch.Tensor | None:
        """The answers of the epoch under way, for its checkpoint; None where all are on record."""
        return self._answers.cpu() if self._live else None

    def begin_epoch(self, epoch: int, order: np.ndarray, heard: torch.Tensor | None = None) -> None:
        """Get ready for `epoch`, which shows the faces `order`.

        `heard`: the answers so far, of an epoch that is resumed.
        """
        self._epoch = epoch
        recorded = self.read(epoch, order) if self.replay else None
        self._live = recorded is None
        if recorded is None:
            recorded = torch.full((self.count,), float("nan")) if heard is None else heard
        self._answers = recorded.to(self.device)

    def __call__(self, images: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the (N,) logits for N normalised views of the faces `rows`."""
        places = torch.from_numpy(rows).to(self.device, non_blocking=True)
        if not self._live:
            return self._answers[places]
        self.asked += 1
        logits = self.teacher(images, rows)
        self._answers[places] = logits
        return logits

    def end_epoch(self) -> None:
        """Write down what was heard in this epoch, unless it is on record.

        A record is worth time and decides nothing: where it cannot be written, one sentence says
        so and the training goes on.
        """
        path = self._path(self._epoch)
        if not self._live or (not self.replay and path.is_file()):
            return
        answers = self._answers.cpu()
        about = {"key": json.dumps(self.key), "epoch": str(self._epoch), "sha256": _digest(answers)}
        try:
            if not (self.folder / "key.json").is_file():
                write_json(self.folder / "key.json", self.key)
            with replacing(path) as temporary:
                save_file({"logits": answers}, temporary, metadata=about)
        except (OSError, SafetensorError) as error:
            tqdm.write(f"The teacher's answers could not be kept in {short_path(path)}: {error}.")

    def read(self, epoch: int, order: np.ndarray) -> torch.Tensor | None:
        """Return the (N,) answers of `epoch`, None unless they are whole for the faces `order`."""
        try:
            with safe_open(self._path(epoch), "pt") as file:
                about, answers = file.metadata() or {}, file.get_tensor("logits")
        except (OSError, SafetensorError):
            return None
        whole = (
            about.get("key") == json.dumps(self.key)
            and about.get("epoch") == str(epoch)
            and about.get("sha256") == _digest(answers)
            and len(answers) == self.count
            and bool(answers[order].isfinite().all())
        )
        return answers if whole else None

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch{epoch:03d}.safetensors"


def recorded_teacher(
    run: Run,
    faces: FaceStore,
    recipe: SimpleNamespace,
    device: torch.device,
    replay: bool,
) -> tuple[RecordedTeacher, dict]:
    """Return the teacher of `run` for a student with `recipe`, and the report on its precision.

    It answers in low precision where that changes none of its labels, see `settle_precision`.
    `recipe` needs `seed`, `batch_size` and `image_size`.
    """
    dtype, report = settle_precision(run, faces, device)
    key = answers_key(run, faces, recipe, device, dtype) | {"margin": report["margin"]}
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def make() -> FrozenTeacher:
        return FrozenTeacher(run, device).use(dtype, report["margin"])

    folder = run.folder / "labels" / name
    return RecordedTeacher(make, folder, key, len(faces.table), device, replay), report


def answers_key(
    run: Run,
    faces: FaceStore,
    recipe: SimpleNamespace,
    device: torch.device,
    dtype: torch.dtype,
) -> dict:
    """Return everything that decides what the teacher answers to a (seed, epoch, face).

    The number of epochs is not among it: an epoch's views do not depend on how many follow. The
    batch size is, as the last bits of an answer may depend on who else is in the batch.
    """
    code = hashlib.sha256()
    for name in _CODE:
        code.update((ROOT / "helpers" / name).read_bytes())
    return {
        "teacher": run.name,
        "teacher_sha256": sha256(run.folder / "model.safetensors"),
        "crops_sha256": faces.manifest_sha256,
        "image_size": recipe.image_size,
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "precision": str(dtype).removeprefix("torch."),
        "device": device.type,
        "code_sha256": code.hexdigest(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }


def record_answers(parameters: SimpleNamespace) -> Path:
    """Let the teacher answer for all epochs beforehand, and return the folder of its answers.

    What a student with the same `parameters` (those of notebook 04) would hear in training;
    epochs that are on record are passed over, so a call can be broken off and made again. Raises
    `StudyError` for a teacher's folder that holds no such teacher, or answers that were not kept.
    """
    run = read_teacher(parameters)
    faces = load_faces(parameters.crops_dir, parameters.image_size)
    device = pick_device(parameters.device)
    set_determinism(parameters.seed, parameters.deterministic)
    teacher, _ = recorded_teacher(run, faces, parameters, device, replay=True)
    feed = Feed(
        faces,
        faces.rows("train"),
        parameters.seed,
        parameters.batch_size,
        parameters.image_size,
        device,
    )
    total = parameters.student_epochs * feed.steps
    with tqdm(total=total, desc="Teacher's answers", mininterval=2, unit="step") as bar:
        for epoch in range(1, parameters.student_epochs + 1):
            order = feed.order(epoch)
            if teacher.read(epoch, order) is None:
                teacher.begin_epoch(epoch, order)
                for batch in feed.batches(epoch):
                    teacher(batch.images, batch.rows)
                    bar.update()
                teacher.end_epoch()
                if teacher.read(epoch, order) is None:
                    raise StudyError(
                        f"The answers of {run.name} in epoch {epoch} could not be kept in "
                        f"{short_path(teacher.folder)}."
                    )
            bar.update(epoch * feed.steps - bar.n)
    return teacher.folder


def _digest(answers: torch.Tensor) -> str:
    return hashlib.sha256(answers.numpy().tobytes()).hexdigest()


@contextmanager
def _untouched_randomness(device: torch.device) -> Iterator[None]:
    """Building a network draws from torch's generators; a training under way must not notice."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
