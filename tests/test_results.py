"""The committed tables, recomputed from the committed predictions by other libraries.

Everything here starts from `results/standin/runs/*/predictions.csv` and uses none of the helpers
that made the tables.
"""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from committed import RESULTS, among, needs_results, read_runs, table
from scipy.stats import spearmanr
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar

from helpers.files import ROOT

CONTRASTS = ("all", "neutral", "expressive")
pytestmark = needs_results


@pytest.fixture(scope="module")
def runs():
    return read_runs()


def ece(positive, probability):
    place = np.minimum((probability * 10).astype(int), 9)
    return sum(
        abs(probability[place == k].mean() - positive[place == k].mean()) * np.mean(place == k)
        for k in np.unique(place)
    )


METRICS = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p > 0.5),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p > 0.5),
    "sensitivity": lambda y, p: sk.recall_score(y, p > 0.5),
    "specificity": lambda y, p: sk.recall_score(~y, p <= 0.5),
    "f1": lambda y, p: sk.f1_score(y, p > 0.5),
    "kappa": lambda y, p: sk.cohen_kappa_score(y, p > 0.5),
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "ece": ece,
}


def value(faces, metric, contrast, head="probability"):
    faces = among(faces, contrast)
    return METRICS[metric]((faces["label"] == "Pain").to_numpy(), faces[head].to_numpy())


def test_every_seed_of_every_metric(runs):
    rows = table("seeds")
    assert set(rows["metric"]) == set(METRICS)
    assert len(rows) == sum(len(seeds) for seeds in runs.values()) * len(METRICS) * len(CONTRASTS)
    for row in rows.itertuples():
        expected = value(runs[row.arm][row.seed], row.metric, row.contrast)
        assert row.estimate == pytest.approx(expected, abs=1e-9), row


def test_every_mean_over_seeds(runs):
    rows = table("metrics")
    for row in rows.itertuples():
        expected = [value(faces, row.metric, row.contrast) for faces in runs[row.arm].values()]
        assert row.estimate == pytest.approx(np.mean(expected), abs=1e-9), row
        faces = among(next(iter(runs[row.arm].values())), row.contrast)
        assert row.identities == faces["identity"].nunique()
        assert (row.pain, row.other) == tuple(
            (faces["label"] == k).sum() for k in ("Pain", "NoPain")
        )


def test_every_head(runs):
    for row in table("heads").itertuples():
        each = [value(f, row.metric, row.contrast, row.head) for f in runs[row.arm].values()]
        assert row.estimate == pytest.approx(np.mean(each), abs=1e-9), row


def test_every_difference(runs):
    for row in table("differences").itertuples():
        a, b = (
            np.mean([value(f, row.metric, row.contrast) for f in runs[arm].values()])
            for arm in (row.first, row.second)
        )
        assert row.estimate == pytest.approx(a - b, abs=1e-9), row


def test_every_share_of_a_gap(runs):
    for row in table("gap_closed").itertuples():
        untaught = f"{row.student.rpartition('-')[0]}-none"
        student, teacher, alone = (
            np.mean([value(f, "auroc", row.contrast) for f in runs[arm].values()])
            for arm in (row.student, row.teacher, untaught)
        )
        assert row.gap_estimate == pytest.approx(teacher - alone, abs=1e-9)
        if row.gap_low > 0:
            expected = (student - alone) / (teacher - alone)
            assert row.share_estimate == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(row.share_estimate)


def test_every_mcnemar(runs):
    for row in table("mcnemar").itertuples():
        first, second = runs[row.first][row.seed], runs[row.second][row.seed_of_second]
        first, second = among(first, row.contrast), among(second, row.contrast)
        truth = (first["label"] == "Pain").to_numpy()
        a = (first["probability"] > 0.5).to_numpy() == truth
        b = (second["probability"] > 0.5).to_numpy() == truth
        found = mcnemar([[sum(a & b), sum(a & ~b)], [sum(~a & b), sum(~a & ~b)]], exact=True)
        assert (row.only_first, row.only_second) == (sum(a & ~b), sum(~a & b))
        assert row.p == pytest.approx(found.pvalue, abs=1e-9)


def decisions(faces):
    return (faces["probability"] > 0.5).to_numpy()


def test_fidelity_and_disagreement(runs):
    for row in table("fidelity").itertuples():
        pairs = [
            (decisions(runs[row.teacher][seed]), decisions(faces))
            for seed, faces in runs[row.student].items()
        ]
        assert row.agreement_estimate == pytest.approx(np.mean([np.mean(a == b) for a, b in pairs]))
        kappa = np.mean([sk.cohen_kappa_score(a, b) for a, b in pairs])
        assert row.kappa_estimate == pytest.approx(kappa)
    for row in table("disagreement").itertuples():
        if row.first == row.second and row.first != "labels":
            found = [decisions(faces) for faces in runs[row.first].values()]
            expected = [np.mean(a != b) for a, b in itertools.combinations(found, 2)]
        elif "labels" in (row.first, row.second):
            arm = row.first if row.second == "labels" else row.second
            if arm == "labels":
                continue
            expected = [
                np.mean(decisions(f) != (f["label"] == "Pain").to_numpy())
                for f in runs[arm].values()
            ]
        else:
            expected = [
                np.mean(decisions(runs[row.first][s]) != decisions(runs[row.second][s]))
                for s in runs[row.first]
            ]
        assert row.disagreement == pytest.approx(np.mean(expected)), row


def test_error_consistency(runs):
    for row in table("error_consistency").itertuples():
        each = []
        for seed in runs[row.student]:
            pair = [among(runs[arm][seed], row.contrast) for arm in (row.student, row.teacher)]
            right = [decisions(f) == (f["label"] == "Pain").to_numpy() for f in pair]
            each.append(sk.cohen_kappa_score(*right))
        assert row.kappa_estimate == pytest.approx(np.mean(each), abs=1e-9), row


def test_subgroups(runs):
    digit = {"gender": 2, "age": 3, "ethnicity": 4}
    names = {
        "gender": ("Man", "Woman"),
        "age": ("Young", "Old"),
        "ethnicity": ("Black", "South Asian", "Middle Eastern", "Caucasian", "Asian"),
    }
    for row in table("subgroups").itertuples():
        code = str(names[row.group].index(row.value))
        each = [
            value(f[f["identity"].str[digit[row.group]] == code], "auroc", row.contrast)
            for f in runs[row.arm].values()
        ]
        assert row.estimate == pytest.approx(np.mean(each), abs=1e-9), row


def test_dose(runs):
    attributes = pd.read_csv(ROOT / "data/standin/attributes.csv", dtype=str)
    pspi = attributes.set_index("image_id")["pspi"].astype(float)
    for row in table("dose_response").itertuples():
        each = []
        for faces in runs.get(row.arm, runs["swin"]).values():
            right = faces[faces["side"] == "right"]
            said = right["label"].eq("Pain") if row.arm == "labels" else right["probability"]
            each.append(spearmanr(pspi[right.index], said).statistic)
        assert row.rho_estimate == pytest.approx(np.mean(each), abs=1e-9), row


def test_the_interval_of_the_primary_endpoint(runs):
    """A plain loop over drawn people and scikit-learn, then the formula of `bootstrap`'s text."""
    first, second = runs["deit_tiny-swin"], runs["deit_tiny-resnet50"]
    seeds = sorted(first)
    people = {
        seed: [
            {
                person: (part["label"].eq("Pain").to_numpy(), part["probability"].to_numpy())
                for person, part in among(arm[seed], "expressive").groupby("identity")
            }
            for arm in (first, second)
        ]
        for seed in seeds
    }
    names = sorted(people[seeds[0]][0])
    generator = np.random.default_rng(1)
    draws = np.empty((1000, len(seeds)))
    for draw in draws:
        drawn = generator.choice(names, len(names))
        for place, seed in enumerate(seeds):
            auroc = []
            for arm in people[seed]:
                truth, scores = zip(*(arm[person] for person in drawn), strict=True)
                auroc.append(sk.roc_auc_score(np.concatenate(truth), np.concatenate(scores)))
            draw[place] = auroc[0] - auroc[1]
    each = [
        value(first[s], "auroc", "expressive") - value(second[s], "auroc", "expressive")
        for s in seeds
    ]
    apart = draws - draws.mean(axis=1, keepdims=True)
    between = np.var(each, ddof=1)
    luck = max(0, between - apart.var(axis=0).sum() / (len(seeds) - 1)) / len(seeds)
    faces = draws.mean(axis=1).var()
    row = table("differences").query(
        "kind == 'taught' and contrast == 'expressive' and metric == 'auroc'"
    )
    width = (row["high"] - row["low"]).item()
    if luck == 0:
        low, high = np.quantile(draws.mean(axis=1), [0.025, 0.975])
        assert width == pytest.approx(high - low, rel=0.12)
    else:
        from scipy.stats import t

        freedom = (faces + luck) ** 2 / ((between / len(seeds)) ** 2 / (len(seeds) - 1))
        freedom = max(freedom, len(seeds) - 1)
        assert width == pytest.approx(2 * np.sqrt(faces + luck) * t.ppf(0.975, freedom), rel=0.2)


def test_the_runs_say_how_they_were_made(runs):
    commits = set()
    for path in (RESULTS / "runs").glob("*/*/seed*/params.json"):
        params = json.loads(path.read_text())
        assert params["parameters"]["init"] == "faces"
        assert params["versions"]["torch"]
        assert params["device"]
        commits.add(params["git_commit"])
    assert len(commits) == 1, "one study, one state of the code"
    assert re.fullmatch(r"[0-9a-f]{40}", commits.pop())
