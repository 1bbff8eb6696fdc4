import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from helpers import compare
from helpers.files import StudyError
from helpers.runs import load_runs


@pytest.fixture(scope="module")
def runs():
    return load_runs("results/standin/runs")


def predictions(arm, scores, seed=0):
    """P(pain) of two faces a person; every other person's right face is Pain."""
    faces = [(f"{i}_{side}", str(i), side) for i in range(len(scores) // 2) for side in "lr"]
    table = pd.DataFrame(faces, columns=["image_id", "identity", "side"])
    table["side"] = table["side"].map({"l": "left", "r": "right"})
    hurts = (table["identity"].astype(int) % 2 == 0) & (table["side"] == "right")
    table["label"] = np.where(hurts, "Pain", "NoPain")
    heads = dict.fromkeys(compare.HEADS, np.asarray(scores, float))
    return table.assign(split="test", arm=arm, seed=seed, **heads)


def panel(samples=50, **arms):
    tables = [predictions(arm.replace("__", "-"), scores) for arm, scores in arms.items()]
    return compare.panel_of(pd.concat(tables), samples, 0)


def test_faces_are_aligned_whatever_their_order_and_must_be_the_same():
    scores = np.random.default_rng(0).random(24)
    first, second = predictions("swin", scores), predictions("resnet50", scores)
    found = compare.panel_of(pd.concat([first, second.sample(frac=1, random_state=0)]), 20, 0)
    same = found.difference("swin", "resnet50", "all")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(StudyError, match="lacks a face that another arm has"):
        compare.panel_of(pd.concat([first, second.iloc[1:]]), 20, 0)
    second.loc[0, "label"] = "Pain"
    with pytest.raises(StudyError, match="disagree on the label"):
        compare.panel_of(pd.concat([first, second]), 20, 0)
    with pytest.raises(StudyError, match="no predictions to compare"):
        compare.panel_of(first.iloc[:0], 20, 0)


def test_a_pupil_that_copies_its_teacher_shares_every_decision_and_error():
    teacher = np.random.default_rng(1).random(40)
    study = panel(swin=teacher, deit_tiny__swin=teacher, deit_tiny__none=1 - teacher)
    rows = pd.DataFrame(compare.between_rows(study, compare.fidelity, ["all"]))
    agree = rows.query("measure == 'agreement'").set_index("student")["estimate"]
    assert agree.to_dict() == {"deit_tiny-swin": 1, "deit_tiny-none": 0}
    by_seed = [("swin", teacher), ("deit_tiny-swin", teacher), ("swin", 1 - teacher)]
    by_seed.append(("deit_tiny-swin", 1 - teacher))
    tables = [predictions(*made, seed=place // 2) for place, made in enumerate(by_seed)]
    matched = compare.panel_of(pd.concat(tables), 20, 0)
    found = matched.between(compare.error_consistency, "deit_tiny-swin", "swin")["kappa"]
    assert found.seeds == (1, 1)
    matrix = pd.DataFrame(compare.disagreement_rows(study)).set_index(["first", "second"])
    assert matrix.loc[("swin", "deit_tiny-none"), "disagreement"] == 1
    assert np.isnan(matrix.loc[("swin", "swin"), "disagreement"])
    score = study.probabilities["swin"]["probability"][0]
    other, wrong = np.roll(score, 3), (score > 0.5) != study.positive
    assert matrix.loc[("swin", "labels"), "disagreement"] == wrong.mean()
    found = compare.error_consistency(study.positive, score, other)["kappa"][0]
    assert found == pytest.approx(cohen_kappa_score(wrong, (other > 0.5) != study.positive))


def test_one_teacher_gives_tables_without_rows_but_with_columns(runs):
    few = [run for run in runs if run.name in ("swin", "deit_tiny-swin") and run.seed == 0]
    _, tables = compare.evaluate(few, 20, 0)
    assert tables["differences"].query("kind == 'taught' and metric == 'auroc'").empty
    assert tables["error_surplus"].empty
    assert tables["learning"]["seed"].tolist() == [0, 0]


def test_an_ablation_is_paired_with_the_study_on_the_seeds_it_has(runs):
    few = [run for run in runs if run.seed == 1]
    found = compare.ablation_table(runs, {"same": few}, 30, 0)
    change = found.query("ablation == 'same' and kind == 'change'")
    assert change["first"].tolist() == change["second"].tolist()
    assert (change[["estimate", "low", "high", "seeds"]] == [0, 0, 0, 1]).all(axis=None)
    assert found.query("ablation == 'study'")["seeds"].eq(3).all()


def test_spearman_is_scipys_of_repeated_faces_and_the_dose_is_the_stand_ins_alone():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 40)).astype(float)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=3)
    known = [spearmanr(np.repeat(x, w), np.repeat(y, w)).statistic for w in weights]
    found = compare.spearman(None, x, y, weights.astype(float))["spearman"]
    np.testing.assert_allclose(found, known, atol=1e-12)
    assert list(compare.dose_rows(panel(swin=np.linspace(0, 1, 24)))) == []
