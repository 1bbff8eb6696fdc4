"""From run folders to arms that can be compared: same faces, same draws, every seed.

An arm is a name: a teacher (`swin`), or a student with its teacher (`deit_tiny-swin`,
`deit_tiny-none`). The tables of notebook 05 are built on this in `tables`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.bootstrap import Estimate, enough_identities, estimates, identity_weights
from helpers.errors import StudyError
from helpers.figures import teacher_of
from helpers.files import existing_folder, short_path
from helpers.metrics import agreement, contrast_mask, is_pain, measure, measure_auroc
from helpers.parameters import STUDENTS, TEACHERS
from helpers.training.runs import Run, read_run

HEADS = {
    "probability": "decision (mean of both heads)",
    "probability_class": "class head",
    "probability_distillation": "distillation head",
}
FACE_COLUMNS = ["image_id", "identity", "side", "split", "label"]
_HISTORY = (
    "epoch seconds images_per_second train_loss teacher_disagreement validation_loss "
    "validation_accuracy validation_auroc"
).split()
_METRICS = (
    "best_epoch epochs train_seconds images_per_second parameters macs latency_ms image_size"
).split()


def load_runs(runs_dir: str | Path) -> list[Run]:
    """Read every run below `runs_dir` (`<stage>/<name>/seed<k>/`), in the order of the arms.

    Raises `StudyError` for a missing or empty folder, a folder without a run, a run folder that
    lacks a file, a file that lacks a column or holds an impossible value, runs that were made on
    other crops, and runs whose test faces differ.
    """
    root = existing_folder(runs_dir, "run folders")
    folders = sorted(
        folder for folder in root.glob("*/*/seed*") if folder.parts[-3] in ("teacher", "student")
    )
    runs = [check_run(read_run(folder)) for folder in folders if folder.is_dir()]
    if not runs:
        raise StudyError(
            f"The folder {short_path(root)} holds no run (teacher/<name>/seed<k>/ or "
            "student/<name>/seed<k>/)."
        )
    check_together(runs)
    order = {name: place for place, name in enumerate(arm_order())}
    return sorted(runs, key=lambda run: (order.get(run.name, len(order)), run.name, run.seed))


def arm_order() -> list[str]:
    """Return every possible arm: teachers, then each student alone and under each teacher."""
    return [*TEACHERS, *(f"{s}-{t}" for s in STUDENTS for t in ("none", *TEACHERS))]


def check_run(run: Run) -> Run:
    """Return `run`, or raise `StudyError` naming the file that lacks or misstates something."""
    where = short_path(run.folder)
    for key in ("stage", "name", "parameters"):
        if key not in run.params:
            raise StudyError(f"The file {where}/params.json lacks '{key}'.")
    for key in _METRICS:
        if key not in run.metrics:
            raise StudyError(f"The file {where}/metrics.json lacks '{key}'.")
    expected = {"history.csv": _HISTORY, "predictions.csv": [*FACE_COLUMNS, *HEADS]}
    for name, columns in expected.items():
        table = run.history if name == "history.csv" else run.predictions
        for column in columns:
            if column not in table.columns:
                raise StudyError(f"The file {where}/{name} lacks the column {column}.")
        if table.empty:
            raise StudyError(f"The file {where}/{name} holds no rows.")
    faces = run.predictions
    if not faces["probability"].between(0, 1).all():
        raise StudyError(f"{where}/predictions.csv holds a probability that is not in 0..1.")
    if not faces["label"].isin(["Pain", "NoPain"]).all():
        raise StudyError(f"{where}/predictions.csv holds a label that is not Pain or NoPain.")
    if faces["image_id"].duplicated().any():
        raise StudyError(f"{where}/predictions.csv holds a face twice.")
    if (faces.groupby("identity")["split"].nunique() > 1).any():
        raise StudyError(f"{where}/predictions.csv holds an identity in two splits.")
    return run


def check_together(runs: Sequence[Run]) -> None:
    """Raise `StudyError` where two runs cannot be compared: other crops, or other test faces."""
    first = runs[0]
    for run in runs[1:]:
        pair = f"{short_path(first.folder)} and {short_path(run.folder)}"
        if first.params.get("crops_sha256") != run.params.get("crops_sha256"):
            raise StudyError(f"The runs {pair} were made on different crops.")
        if not _faces(first.predictions, "test").equals(_faces(run.predictions, "test")):
            raise StudyError(f"The runs {pair} have different test faces.")


def _faces(predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    chosen = predictions.loc[predictions["split"] == split, FACE_COLUMNS]
    return chosen.sort_values("image_id", ignore_index=True)


@dataclass
class Panel:
    """The same faces as every arm and seed sees them, and the draws that all arms share.

    `faces`: one row a face (`FACE_COLUMNS`). `probabilities`: for each arm and head, (seeds,
    faces). `seeds`: of each arm. `weights`: (samples, faces), see `identity_weights`.
    """

    faces: pd.DataFrame
    probabilities: dict[str, dict[str, np.ndarray]]
    seeds: dict[str, list[int]]
    weights: np.ndarray
    _known: dict = field(default_factory=dict, repr=False)

    @property
    def arms(self) -> list[str]:
        """The arms, teachers first."""
        return list(self.probabilities)

    @property
    def teachers(self) -> list[str]:
        """The arms that are teachers."""
        return [arm for arm in self.arms if "-" not in arm]

    @property
    def students(self) -> list[str]:
        """The arms that are students, those without a teacher among them."""
        return [arm for arm in self.arms if "-" in arm]

    @property
    def positive(self) -> np.ndarray:
        """True for each face that shows pain, (faces,)."""
        return is_pain(self.faces)

    def mean_probability(self, arm: str) -> np.ndarray:
        """Return the arm's P(pain), the mean over its seeds, (faces,): for pictures, not tests."""
        return self.probabilities[arm]["probability"].mean(axis=0)

    def rows(self, contrast: str, among: np.ndarray | None = None) -> np.ndarray:
        """Return which faces take part in `contrast`, and lie in `among` where it is given."""
        mask = contrast_mask(self.faces, contrast)
        return mask if among is None else mask & among

    def estimates(
        self,
        arm: str,
        contrast: str = "all",
        head: str = "probability",
        among: np.ndarray | None = None,
    ) -> dict[str, Estimate]:
        """Return every metric of `arm` with its interval, by name.

        `among`: bool, (faces,), limits it to a subgroup.
        """
        return self._asked(measure, arm, contrast, head, among)

    def auroc(
        self,
        arm: str,
        contrast: str = "all",
        head: str = "probability",
        among: np.ndarray | None = None,
    ) -> Estimate:
        """Return the AUROC of `estimates` alone, which is quicker."""
        return self._asked(measure_auroc, arm, contrast, head, among)["auroc"]

    def _asked(
        self, ask: Callable, arm: str, contrast: str, head: str, among: np.ndarray | None
    ) -> dict[str, Estimate]:
        key = (ask, arm, contrast, head, None if among is None else among.tobytes())
        if key not in self._known:
            rows = self.rows(contrast, among)
            positive, weights = self.positive[rows], self.weights[:, rows]
            scores = self.probabilities[arm][head][:, rows]
            found = estimates(
                [ask(positive, score) for score in scores],
                [ask(positive, score, weights) for score in scores],
            )
            self._known[key] = self._guarded(found, rows)
        return self._known[key]

    def difference(self, first: str, second: str, contrast: str, metric: str) -> Estimate:
        """Return `first` minus `second`, paired over identities (and over seeds they share)."""
        a, b = (self.estimates(arm, contrast)[metric] for arm in (first, second))
        return a - b if self.seeds[first] == self.seeds[second] else a.unpaired(b)

    def agreement(self, first: str, second: str) -> dict[str, Estimate]:
        """Return agreement, κ and KL of `second` with `first`, seed by seed where seeds match."""
        a, b = (self.probabilities[arm]["probability"] for arm in (first, second))
        pairs = self.seed_pairs(first, second)
        found = estimates(
            [agreement(a[i], b[j]) for i, j in pairs],
            [agreement(a[i], b[j], self.weights) for i, j in pairs],
        )
        return self._guarded(found, np.ones(len(self.faces), bool))

    def seed_pairs(self, first: str, second: str) -> list[tuple[int, int]]:
        """Return the rows of both arms that have the same seed; all pairs where none has."""
        a, b = self.seeds[first], self.seeds[second]
        same = [(i, b.index(seed)) for i, seed in enumerate(a) if seed in b]
        return same or [(i, j) for i in range(len(a)) for j in range(len(b))]

    def _guarded(self, found: dict[str, Estimate], rows: np.ndarray) -> dict[str, Estimate]:
        identities, positive = self.faces["identity"].to_numpy()[rows], self.positive[rows]
        return {
            name: estimate
            if enough_identities(name, identities, positive)
            else estimate.without_interval()
            for name, estimate in found.items()
        }


def make_panel(runs: Sequence[Run], samples: int, seed: int, split: str = "test") -> Panel:
    """Align the predictions of `runs` on the faces of `split`; see `panel_of`."""
    tables = [
        run.predictions[run.predictions["split"] == split].assign(arm=run.name, seed=run.seed)
        for run in runs
    ]
    return panel_of(pd.concat(tables, ignore_index=True), samples, seed)


def panel_of(predictions: pd.DataFrame, samples: int, seed: int) -> Panel:
    """Align predictions of many arms on their faces.

    `predictions`: the columns of predictions.csv and `arm`, and `seed` where there are several.
    `samples`, `seed`: of the bootstrap. Raises `StudyError` where there is no face, or an arm
    lacks one that another has.
    """
    if predictions.empty:
        raise StudyError("There are no predictions to compare: no face is in the test split.")
    if "seed" not in predictions:
        predictions = predictions.assign(seed=0)
    faces = _one_row_each(predictions)
    probabilities: dict[str, dict[str, np.ndarray]] = {}
    seeds: dict[str, list[int]] = {}
    for arm, table in predictions.groupby("arm", sort=False):
        seeds[arm] = sorted(table["seed"].unique())
        wide = table.pivot(index="image_id", columns="seed", values=list(HEADS))
        wide = wide.reindex(faces["image_id"])
        probabilities[arm] = {head: wide[head].to_numpy(float).T for head in HEADS}
        if np.isnan(probabilities[arm]["probability"]).any():
            raise StudyError(f"The arm {arm} lacks a face that another arm has.")
    weights = identity_weights(faces["identity"].to_numpy(), samples, seed)
    return Panel(faces, probabilities, seeds, weights)


def _one_row_each(predictions: pd.DataFrame) -> pd.DataFrame:
    faces = predictions[[c for c in FACE_COLUMNS if c in predictions]].drop_duplicates()
    if faces["image_id"].duplicated().any():
        raise StudyError("Two arms disagree on the label or the side of a face.")
    return faces.sort_values("image_id", ignore_index=True)


def own_teacher(panel: Panel, student: str) -> str | None:
    """Return the arm that taught `student`, or None: it had none, or it is not among the runs."""
    teacher = teacher_of(student)
    return teacher if teacher in panel.teachers else None


def counts(panel: Panel, contrast: str, among: np.ndarray | None = None) -> dict[str, int]:
    """Return how many `identities`, `pain` and `other` faces a contrast has."""
    rows = panel.rows(contrast, among)
    pain = int((panel.positive & rows).sum())
    identities = panel.faces["identity"][rows].nunique()
    return {"identities": identities, "pain": pain, "other": int(rows.sum()) - pain}
