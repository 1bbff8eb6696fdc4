"""From runs to arms that can be compared: same faces, same draws, every seed; and the tables.

An arm is a name: a teacher (`swin`), or a student with its teacher (`deit_tiny-swin`,
`deit_tiny-none`). Every table is tidy, one row a number: `estimate`, `low`, `high`.

Error consistency asks whether two deciders err on the same faces, beyond what their accuracies
imply (Geirhos, Meding & Wichmann 2020, equations 1 to 3): with accuracies a and b both are right
or both wrong on c_obs of the faces, where independent errors give c_exp = ab + (1 − a)(1 − b), and
κ = (c_obs − c_exp) / (1 − c_exp), Cohen's κ of the two rows of right and wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from helpers import stats
from helpers.files import StudyError, project_path, read_csv
from helpers.naming import parse_id
from helpers.parameters import Student, Teacher
from helpers.runs import FACE_COLUMNS, HEADS, Run
from helpers.stats import CONTRASTS, METRICS, PRIMARY, THRESHOLD, Estimate, is_pain
from helpers.text import teacher_of

STUDY = "study"  # the study itself, among its ablations
GROUPS = ("gender", "age", "ethnicity")
ATTRIBUTES = "data/standin/attributes.csv"
HARD = ("all", PRIMARY)  # the contrasts of subgroups and of shared errors
# Of a table without a row, as where there is one teacher.
_COLUMNS = "arm first second kind student own other who group contrast metric faces".split()
_COLUMNS += ["estimate", "low", "high"]
Rows = np.ndarray | None


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

    def rows(self, contrast: str, among: Rows = None) -> np.ndarray:
        """Return which faces take part in `contrast`, and lie in `among` where it is given."""
        mask = stats.contrast_mask(self.faces, contrast)
        return mask if among is None else mask & among

    def bootstrap(
        self, ask: Callable, scores: Sequence[tuple[np.ndarray, ...]], rows: np.ndarray
    ) -> dict[str, Estimate]:
        """Return what `ask` measures on the faces `rows`, with the draws of its interval.

        `scores`: for each seed what `ask` takes after `positive`, each (faces,). Every arm sees
        the same resamples of people, `weights`: this is what pairs two arms.
        """
        positive, weights = self.positive[rows], self.weights[:, rows]
        seeds = [[score[rows] for score in given] for given in scores]
        values = [ask(positive, *seed) for seed in seeds]
        draws = [ask(positive, *seed, weights) for seed in seeds]
        people = self.faces["identity"].to_numpy()[rows]
        found = stats.estimates(values, draws)
        few = [name for name in found if not stats.enough_identities(name, people, positive)]
        return found | {name: found[name].without_interval() for name in few}

    def estimates(
        self, arm: str, contrast="all", head="probability", among: Rows = None, ask=stats.measure
    ) -> dict[str, Estimate]:
        """Return every metric of `arm` with its interval, by name.

        `among`: bool, (faces,), limits it to a subgroup. `ask`: `measure`, or one like it.
        """
        key = (ask, arm, contrast, head, None if among is None else among.tobytes())
        if key not in self._known:
            scores = [(score,) for score in self.probabilities[arm][head]]
            self._known[key] = self.bootstrap(ask, scores, self.rows(contrast, among))
        return self._known[key]

    def auroc(self, arm: str, contrast="all", head="probability", among: Rows = None) -> Estimate:
        """Return the AUROC of `estimates` alone, which is quicker."""
        return self.estimates(arm, contrast, head, among, stats.measure_auroc)["auroc"]

    def difference(
        self, first: str, second: str, contrast: str = PRIMARY, metric: str = "auroc"
    ) -> Estimate:
        """Return `first` minus `second`, paired over identities (and over seeds they share)."""
        a, b = (self.estimates(arm, contrast)[metric] for arm in (first, second))
        return self.minus(a, b, first, second)

    def minus(self, a: Estimate, b: Estimate, *arms: str) -> Estimate:
        """Return a − b, draw by draw; seeds are paired where all `arms` have the same ones."""
        same = all(self.seeds[arm] == self.seeds[arms[0]] for arm in arms)
        return a - b if same else a.unpaired(b)

    def between(
        self, ask: Callable, first: str, second: str, contrast: str = "all"
    ) -> dict[str, Estimate]:
        """Return what `ask(positive, first, second, weights)` says of two arms, seed by seed."""
        a, b = (self.probabilities[arm]["probability"] for arm in (first, second))
        scores = [(a[i], b[j]) for i, j in self.seed_pairs(first, second)]
        return self.bootstrap(ask, scores, self.rows(contrast))

    def seed_pairs(self, first: str, second: str) -> list[tuple[int, int]]:
        """Return the rows of both arms that have the same seed; all pairs where none has."""
        a, b = self.seeds[first], self.seeds[second]
        same = [(i, b.index(seed)) for i, seed in enumerate(a) if seed in b]
        return same or list(product(range(len(a)), range(len(b))))


def make_panel(runs: Sequence[Run], samples: int, seed: int, split: str = "test") -> Panel:
    """Align the predictions of `runs` on the faces of `split`; see `panel_of`."""
    return panel_of(predictions_of_runs(runs, split), samples, seed)


def predictions_of_runs(runs: Sequence[Run], split: str = "test") -> pd.DataFrame:
    """Return the predictions of `runs` as one long table, with columns `arm` and `seed`."""
    tables = [run.predictions.assign(arm=run.name, seed=run.seed) for run in runs]
    predictions = pd.concat(tables, ignore_index=True)
    return predictions[predictions["split"] == split]


def panel_of(predictions: pd.DataFrame, samples: int, seed: int) -> Panel:
    """Align predictions of many arms on their faces.

    `predictions`: the columns of predictions.csv, `arm` and `seed`.
    `samples`, `seed`: of the bootstrap. Raises `StudyError` where there is no face, two arms
    disagree on one, or an arm lacks one that another has.
    """
    if predictions.empty:
        raise StudyError("There are no predictions to compare: no face is in the test split.")
    faces = predictions[[c for c in FACE_COLUMNS if c in predictions]].drop_duplicates()
    if faces["image_id"].duplicated().any():
        raise StudyError("Two arms disagree on the label or the side of a face.")
    faces = faces.sort_values("image_id", ignore_index=True)
    probabilities, seeds = {}, {}
    for arm, table in predictions.groupby("arm", sort=False):
        seeds[arm] = sorted(table["seed"].unique())
        wide = table.pivot(index="image_id", columns="seed", values=list(HEADS))
        wide = wide.reindex(faces["image_id"])
        probabilities[arm] = {head: wide[head].to_numpy(float).T for head in HEADS}
        if np.isnan(probabilities[arm]["probability"]).any():
            raise StudyError(f"The arm {arm} lacks a face that another arm has.")
    weights = stats.identity_weights(faces["identity"].to_numpy(), samples, seed)
    return Panel(faces, probabilities, seeds, weights)


def counts(panel: Panel, contrast: str, among: Rows = None) -> dict[str, int]:
    """Return how many `identities`, `pain` and `other` faces a contrast has."""
    rows = panel.rows(contrast, among)
    pain = int((panel.positive & rows).sum())
    identities = panel.faces["identity"][rows].nunique()
    return {"identities": identities, "pain": pain, "other": int(rows.sum()) - pain}


def comparisons(panel: Panel) -> list[tuple[str, str, str]]:
    """Return (kind, first, second) for each pair of arms that the question is about.

    `gain`: a taught student and the same student without teacher. `taught`: two teachers' pupils,
    Swin's first. `teachers`: two teachers, Swin's first.
    """
    known = [teacher for teacher in get_args(Teacher) if teacher in panel.arms]
    found = [("teachers", b, a) for a, b in combinations(known, 2)]
    for student in get_args(Student):
        taught = [f"{student}-{t}" for t in get_args(Teacher) if f"{student}-{t}" in panel.arms]
        if f"{student}-none" in panel.arms:
            found += [("gain", arm, f"{student}-none") for arm in taught]
        found += [("taught", b, a) for a, b in combinations(taught, 2)]
    return found


# --- tables ---------------------------------------------------------------------------------------


def evaluate(runs: Sequence[Run], samples: int, seed: int) -> tuple[Panel, dict[str, pd.DataFrame]]:
    """Return the panel of the test faces and every table, by name.

    `samples` and `seed` are the bootstrap's. A table without a row is empty.
    """
    test, train = (make_panel(runs, samples, seed, split) for split in ("test", "train"))
    rows = {
        "metrics": metric_rows(test),
        "seeds": seed_rows(test),
        "heads": head_rows(test),
        "differences": difference_rows(test),
        "mcnemar": mcnemar_rows(test),
        "fidelity": between_rows(test, fidelity, ["all"]),
        "fidelity_train": between_rows(train, fidelity, ["all"]),
        "disagreement": disagreement_rows(test),
        "error_consistency": between_rows(test, error_consistency, HARD),
        "error_surplus": surplus_rows(test),
        "subgroups": subgroup_rows(test),
        "subgroup_gaps": gap_rows(test),
        "dose": dose_rows(test),
        "learning": learning_rows(runs),
    }
    tables = {name: pd.DataFrame(found) for name, found in rows.items()}
    tables = {n: t if len(t) else pd.DataFrame(columns=_COLUMNS) for n, t in tables.items()}
    return test, tables | {"predictions": predictions_of_runs(runs).round(6)}


def metric_rows(panel: Panel) -> Iterator[dict]:
    """Every metric of every arm and contrast with its interval."""
    for arm, contrast in product(panel.arms, CONTRASTS):
        for metric, found in panel.estimates(arm, contrast).items():
            row = {"arm": arm, "contrast": contrast, "metric": metric} | found.row()
            yield row | counts(panel, contrast) | {"seeds": len(found.seeds)}


def seed_rows(panel: Panel) -> Iterator[dict]:
    """Every metric of every arm, contrast and seed."""
    for arm, contrast in product(panel.arms, CONTRASTS):
        for metric, found in panel.estimates(arm, contrast).items():
            for seed, value in zip(panel.seeds[arm], found.seeds, strict=True):
                row = {"arm": arm, "seed": seed, "contrast": contrast, "metric": metric}
                yield row | {"estimate": value}


def head_rows(panel: Panel) -> Iterator[dict]:
    """AUROC, balanced accuracy and F1 of each trained head of each student."""
    for arm, head, contrast in product(panel.students, HEADS, CONTRASTS):
        if np.isfinite(panel.probabilities[arm][head]).all():
            for metric in ("auroc", "balanced_accuracy", "f1"):
                row = {"arm": arm, "head": head, "contrast": contrast, "metric": metric}
                yield row | panel.estimates(arm, contrast, head)[metric].row()


def difference_rows(panel: Panel) -> Iterator[dict]:
    """The paired difference of each of `comparisons`, every contrast and metric."""
    for (kind, first, second), contrast, metric in product(comparisons(panel), CONTRASTS, METRICS):
        row = {"kind": kind, "first": first, "second": second}
        row |= {"contrast": contrast, "metric": metric}
        yield row | panel.difference(first, second, contrast, metric).row()


def mcnemar_rows(panel: Panel) -> Iterator[dict]:
    """McNemar's exact test for each of `comparisons`, contrast and seed."""
    for (kind, first, second), contrast in product(comparisons(panel), CONTRASTS):
        a, b = (panel.probabilities[arm]["probability"] for arm in (first, second))
        rows = panel.rows(contrast)
        for i, j in panel.seed_pairs(first, second):
            row = {"kind": kind, "first": first, "second": second, "contrast": contrast}
            row |= {"seed": panel.seeds[first][i], "seed_of_second": panel.seeds[second][j]}
            yield row | stats.mcnemar(panel.positive[rows], a[i][rows], b[j][rows])


def between_rows(panel: Panel, ask: Callable, contrasts: Sequence[str]) -> Iterator[dict]:
    """What `ask` says of every student with every teacher, its `own` and the others.

    A student never taught by a teacher agrees with it too, wherever both are right: only the
    surplus of the own teacher's pupil speaks of transfer.
    """
    for student, teacher, contrast in product(panel.students, panel.teachers, contrasts):
        row = {"student": student, "teacher": teacher, "own": teacher_of(student) == teacher}
        for name, found in panel.between(ask, teacher, student, contrast).items():
            yield row | {"contrast": contrast, "measure": name} | found.row()


def fidelity(_: object, *scores: np.ndarray) -> pd.DataFrame:
    """Return how two arms' P(pain) agree, whatever the labels; see `stats.agreement`."""
    return stats.agreement(*scores)


def disagreement_rows(panel: Panel) -> Iterator[dict]:
    """The share of test faces on which two deciders differ, labels among them.

    After the DeiT paper's disagreement table. The mean over matching seeds; an arm with itself:
    the mean over its pairs of seeds, NaN with one seed.
    """
    decisions = {arm: panel.probabilities[arm]["probability"] > THRESHOLD for arm in panel.arms}
    decisions["labels"] = panel.positive[None]
    for (first, a), (second, b) in product(decisions.items(), repeat=2):
        pairs = list(product(range(len(a)), range(len(b))))
        if first == second:
            pairs = list(combinations(range(len(a)), 2))
        elif "labels" not in (first, second):
            pairs = panel.seed_pairs(first, second)
        share = np.mean([np.mean(a[i] != b[j]) for i, j in pairs]) if pairs else np.nan
        yield {"first": first, "second": second, "disagreement": float(share)}


def error_consistency(
    positive: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return columns `kappa` and `observed` of two deciders' errors, one row a resample.

    `first`, `second`: P(pain), (faces,). `weights`: (samples, faces), none means every face once.
    κ is NaN where both are right on every face: there are then no errors to share.
    """
    right = [((score > THRESHOLD) == positive).astype(float) for score in (first, second)]
    found = stats.agreement(*right, weights)
    return pd.DataFrame({"kappa": found["kappa"], "observed": found["agreement"]})


def surplus(panel: Panel, student: str, own: str, other: str, contrast: str) -> Estimate:
    """Return error consistency of `student` with teacher `own` minus with `other`, paired."""
    a, b = (panel.between(error_consistency, student, t, contrast)["kappa"] for t in (own, other))
    return panel.minus(a, b, student, own, other)


def surpluses(panel: Panel, student: str, other: str, contrast: str) -> dict[str, Estimate]:
    """Return the `pupil`'s `surplus` over teacher `other`, its `untaught` twin's, the difference.

    The twin has seen the labels alone, so what it shares more with one teacher than with the other
    comes from the faces and the models' make, not from teaching: the difference is `inherited`.
    """
    own, twin = teacher_of(student), f"{student.rpartition('-')[0]}-none"
    found = {"pupil": surplus(panel, student, own, other, contrast)}
    if twin in panel.arms:
        found["untaught"] = surplus(panel, twin, own, other, contrast)
        found["inherited"] = panel.minus(*found.values(), student, twin, own, other)
    return found


def surplus_rows(panel: Panel) -> Iterator[dict]:
    """The `surpluses` of each pupil whose teacher is among the runs, over each other teacher."""
    for student, other, contrast in product(panel.students, panel.teachers, HARD):
        if (own := teacher_of(student)) in panel.teachers and own != other:
            row = {"student": student, "own": own, "other": other, "contrast": contrast}
            for who, found in surpluses(panel, student, other, contrast).items():
                yield row | {"who": who} | found.row()


def members_of(panel: Panel, group: str) -> dict[str, np.ndarray]:
    """Return which faces show a person of each value of `group`, (faces,), as the ID tells it."""
    people = panel.faces["identity"].map(lambda identity: getattr(parse_id(identity), group))
    return {value: (people == value).to_numpy() for value in sorted(people.unique())}


def subgroup_rows(panel: Panel) -> Iterator[dict]:
    """AUROC of every arm with its interval, by group of people and contrast."""
    for group in GROUPS:
        for (value, among), contrast in product(members_of(panel, group).items(), HARD):
            for arm in panel.arms:
                row = {"group": group, "value": value, "contrast": contrast, "arm": arm}
                found = panel.auroc(arm, contrast, among=among)
                yield row | found.row() | counts(panel, contrast, among)


def gap_rows(panel: Panel) -> Iterator[dict]:
    """For each arm, grouping and contrast how far its best value is above its worst.

    Values without an interval (too few people) are left out, and a grouping with fewer than two
    others has no row. `best` and `worst` are chosen on the faces on which the gap is measured, so
    the gap is on average too large, and its interval does not correct for the choice.
    """
    for group, contrast, arm in product(GROUPS, HARD, panel.arms):
        members = members_of(panel, group).items()
        found = {value: panel.auroc(arm, contrast, among=among) for value, among in members}
        found = {value: e for value, e in found.items() if np.isfinite(e.low)}
        if len(found) > 1:
            best, worst = (end(found, key=lambda value: found[value].value) for end in (max, min))
            row = {"group": group, "contrast": contrast, "arm": arm, "best": best, "worst": worst}
            yield row | (found[best] - found[worst]).row()


def read_pspi(faces: pd.DataFrame, attributes: str | Path = ATTRIBUTES) -> np.ndarray | None:
    """Return the PSPI (Prkachin & Solomon 2008) of each of `faces`, (faces,), 0 to 16.

    None where they are not the stand-in's faces: there is no such table, it lacks one of them, or
    it holds another label for one.
    """
    if not project_path(attributes).is_file():
        return None
    table = read_csv(attributes).set_index("image_id").reindex(faces["image_id"])
    if ((table["kind"] == "pain").to_numpy() != is_pain(faces)).any() or table["pspi"].isna().any():
        return None
    return table["pspi"].to_numpy(float)


def spearman(
    _: object, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> pd.DataFrame:
    """Return Spearman's ρ, ties midranked, one row for each of `weights`, (samples, faces).

    Weights are whole numbers: the same as repeating each face as often as it counts. NaN where x
    or y does not vary.
    """
    weights = np.ones((1, len(x))) if weights is None else weights
    ranks = [weights @ ((v[:, None] < v) + (v[:, None] == v) / 2) for v in (x, y)]
    a, b = (r - np.average(r, axis=1, weights=weights)[:, None] for r in ranks)
    ab, aa, bb = ((weights * u * v).sum(axis=1) for u, v in ((a, b), (a, a), (b, b)))
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({"spearman": ab / np.sqrt(aa * bb)})


def dose_rows(panel: Panel) -> Iterator[dict]:
    """Spearman's ρ of P(pain) with PSPI, over all expressive faces and over Pain faces alone.

    Over all of them the kind of expression speaks too: an arm that is always right has a high ρ.
    """
    pspi, right = read_pspi(panel.faces), (panel.faces["side"] == "right").to_numpy()
    for arm, faces in product(panel.arms, ("expressive", "Pain") if pspi is not None else ()):
        rows = right & panel.positive if faces == "Pain" else right
        scores = [(score, pspi) for score in panel.probabilities[arm]["probability"]]
        found = replace(panel.bootstrap(spearman, scores, rows)["spearman"], limits=(-1.0, 1.0))
        yield {"arm": arm, "faces": faces} | found.row()


def learning_rows(runs: Sequence[Run]) -> Iterator[dict]:
    """What each run learned and cost.

    `epochs_to_95_percent`: the first epoch with 95 % of the run's best validation AUROC.
    `teacher_disagreement`: the share of training views whose teacher label was not the true one.
    """
    cost = "train_seconds images_per_second parameters macs image_size".split()
    for run in runs:
        auroc = run.history["validation_auroc"]
        reached = run.history.loc[auroc >= 0.95 * auroc.max(), "epoch"]
        row = {"arm": run.name, "seed": run.seed, "device": run.params.get("device")}
        row |= {"epochs": run.metrics["epochs"], "best_validation_auroc": auroc.max()}
        row["epochs_to_95_percent"] = reached.min()
        row["teacher_disagreement"] = run.history["teacher_disagreement"].mean()
        yield row | {name: run.metrics[name] for name in cost}


def ablation_table(
    study: Sequence[Run], ablations: Mapping[str, Sequence[Run]], samples: int, seed: int
) -> pd.DataFrame:
    """Return the primary endpoint, AUROC of `PRIMARY`, of every ablation beside the study's.

    One row a number. `kind` is `arm` (a student's AUROC), `taught` (two teachers' pupils, `first`
    minus `second`) or `change` (a student minus the study's student under the same teacher).
    Intervals are paired over identities, and over the `seeds` that the ablation has. The study
    itself comes first, as the ablation `study`.
    """
    rows, taught_by_study = [], _students(study)
    for name, runs in {STUDY: study, **ablations}.items():
        changed = _students(runs)
        arms = list(dict.fromkeys(changed["arm"]))
        twins = taught_by_study[taught_by_study["seed"].isin(changed["seed"])]
        twins = twins.assign(arm=f"{STUDY}:" + twins["arm"])
        panel = panel_of(pd.concat([changed, twins]), samples, seed)
        found = [("arm", arm, "", panel.estimates(arm, PRIMARY)["auroc"]) for arm in arms]
        for kind, first, second in comparisons(panel):
            if kind == "taught":
                found.append((kind, first, second, panel.difference(first, second)))
        for arm in arms if name != STUDY else ():
            alike = [t for t in twins["arm"].unique() if teacher_of(t) == teacher_of(arm)]
            same = f"{STUDY}:{arm}"
            for twin in [same] if same in alike else alike[:1]:
                second = twin.partition(":")[2]
                found.append(("change", arm, second, panel.difference(arm, twin)))
        for kind, first, second, estimate in found:
            row = {"ablation": name, "kind": kind, "first": first, "second": second}
            rows.append(row | {"seeds": len(panel.seeds[first])} | estimate.row())
    return pd.DataFrame(rows)


def _students(runs: Sequence[Run]) -> pd.DataFrame:
    return predictions_of_runs([run for run in runs if run.stage == "student"])
