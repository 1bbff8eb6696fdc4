import json

import numpy as np
import pandas as pd
import pytest
from made_runs import ARMS, made_faces, make_run, make_runs
from sklearn.metrics import f1_score, roc_auc_score

from helpers import prose
from helpers.bootstrap import Estimate
from helpers.errors import StudyError
from helpers.evaluation.compare import load_runs, make_panel, own_teacher, panel_of
from helpers.evaluation.tables import (
    comparisons,
    epochs_to_converge,
    evaluate,
    gap_closed,
    heads_of,
    write_external,
    write_tables,
)
from helpers.writeup import frame as writeup
from helpers.writeup import readings, views
from helpers.writeup.model_card import model_card
from helpers.writeup.samples import choose

TEACHER = "teacher/resnet50/seed0"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All five arms, three seeds, forty test identities."""
    folder = make_runs(tmp_path_factory.mktemp("runs"), seeds=(0, 1, 2))
    return evaluate(load_runs(folder), samples=200, seed=0)


def texts(study):
    """Every paragraph and table that the notebook renders."""
    tables = [views.headline(study.test), views.by_contrast(study.test), views.heads(study.test)]
    tables += [views.differences(study.test), views.mcnemar(study), views.convergence(study)]
    tables += [views.cost(study), views.headline(study.test, "expressive", views.DETAIL)]
    functions = [writeup.abstract, writeup.method, writeup.limits, writeup.meaning]
    functions += [writeup.departure, model_card]
    functions += [readings.gains, readings.gap_words, readings.fidelity, readings.transfer]
    functions += [readings.convergence, readings.cost, readings.groups]
    panels = [readings.best, readings.chance_list, readings.contrasts, readings.outside]
    panels += [readings.mistakes, readings.calibration]
    words = [f(study) for f in functions] + [f(study.test) for f in panels]
    return "\n".join(words + [prose.markdown_table(table) for table in tables])


def test_the_departure_from_the_plan_is_told_with_both_intervals(study):
    found = study.test.difference("deit_tiny-swin", "deit_tiny-resnet50", "expressive", "auroc")
    low, high = found.interval_of_the_plan()
    words = writeup.departure(study)
    assert f"[{prose.signed(low)}, {prose.signed(high)}] by the plan's letter" in words
    assert f"{prose.bracket(found, prose.signed)} as used here" in words


def test_runs_come_in_the_order_of_the_arms_whatever_else_lies_there(tmp_path):
    make_runs(tmp_path, people=6, seeds=(1, 0), arms=ARMS[::-1])
    (tmp_path / TEACHER / "fold0").mkdir()
    (tmp_path / "student" / "deit_tiny-none" / "seed0" / "notebook.ipynb").touch()
    (tmp_path / "notes" / "x" / "seed0").mkdir(parents=True)
    runs = load_runs(tmp_path)
    assert [(run.name, run.seed) for run in runs] == [
        (arm, seed) for arm in ARMS for seed in (0, 1)
    ]


@pytest.mark.parametrize("name", ["params.json", "history.csv", "predictions.csv", "metrics.json"])
def test_a_run_that_lacks_a_file_is_named_with_it(tmp_path, name):
    make_runs(tmp_path, people=6)
    (tmp_path / TEACHER / name).unlink()
    with pytest.raises(StudyError, match=rf"{TEACHER} lacks {name}\.$"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "column"),
    [("history.csv", "validation_auroc"), ("predictions.csv", "probability_class")],
)
def test_a_table_that_lacks_a_column_is_named_with_it(tmp_path, name, column):
    make_runs(tmp_path, people=6)
    path = tmp_path / TEACHER / name
    pd.read_csv(path, dtype=str).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(StudyError, match=rf"{TEACHER}/{name} lacks the column {column}"):
        load_runs(tmp_path)


@pytest.mark.parametrize(("name", "key"), [("metrics.json", "macs"), ("params.json", "stage")])
def test_a_json_file_that_lacks_an_entry_is_named_with_it(tmp_path, name, key):
    make_runs(tmp_path, people=6)
    path = tmp_path / TEACHER / name
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=rf"{TEACHER}/{name} lacks '{key}'"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("probability", "1.5", "a probability that is not in 0..1"),
        ("probability", "", "a probability that is not in 0..1"),
        ("label", "pain", "a label that is not Pain or NoPain"),
        ("image_id", "1100000000_left", "a face twice"),
        ("split", "train", "an identity in two splits"),
    ],
)
def test_impossible_predictions_are_refused(tmp_path, column, value, message):
    make_runs(tmp_path, people=6)
    path = tmp_path / TEACHER / "predictions.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[3, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(StudyError, match=message):
        load_runs(tmp_path)


def test_missing_empty_and_runless_folders_are_named(tmp_path):
    with pytest.raises(StudyError, match=r"none .* does not exist"):
        load_runs(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="is empty"):
        load_runs(tmp_path / "empty")
    (tmp_path / "empty" / "teacher").mkdir()
    with pytest.raises(StudyError, match="holds no run"):
        load_runs(tmp_path / "empty")


def test_runs_on_other_faces_or_other_crops_are_not_compared(tmp_path):
    make_runs(tmp_path / "a", people=6, arms=ARMS[:1])
    make_run(tmp_path / "a", "swin", 0, made_faces(7), np.zeros((2, 26)))
    with pytest.raises(StudyError, match=r"resnet50/seed0 and .*swin/seed0 have different test"):
        load_runs(tmp_path / "a")
    make_runs(tmp_path / "b", people=6, arms=ARMS[:1])
    make_runs(tmp_path / "b", people=6, arms=ARMS[1:2], crops_sha256="11")
    with pytest.raises(StudyError, match="different crops"):
        load_runs(tmp_path / "b")


def test_the_tables_are_scikit_learns_numbers_averaged_over_seeds(study):
    predictions = study.tables["test_predictions"]
    table = study.tables["metrics"].set_index(["arm", "contrast", "metric"])
    for arm in ARMS:
        right = predictions[(predictions["arm"] == arm) & (predictions["side"] == "right")]
        parts = [part for _, part in right.groupby("seed")]
        auroc = [roc_auc_score(part["label"] == "Pain", part["probability"]) for part in parts]
        f1 = [f1_score(part["label"] == "Pain", part["probability"] > 0.5) for part in parts]
        assert table.loc[(arm, "expressive", "auroc"), "estimate"] == pytest.approx(np.mean(auroc))
        assert table.loc[(arm, "expressive", "f1"), "estimate"] == pytest.approx(np.mean(f1))
    each = study.tables["seeds"]
    assert len(each) == 3 * len(table)
    row = table.loc[("swin", "neutral", "auroc")]
    labels = study.test.faces["label"]
    assert row["pain"] == (labels == "Pain").sum()
    assert row["other"] == 40
    assert row["low"] < row["estimate"] < row["high"]


def test_an_arm_minus_itself_is_nothing_and_pairing_narrows(study):
    same = study.test.difference("swin", "swin", "all", "auroc")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    first, second = "deit_tiny-resnet50", "resnet50"
    found = study.test.difference(first, second, "all", "auroc")
    a, b = (study.test.estimates(arm, "all")["auroc"] for arm in (first, second))
    assert found.value == pytest.approx(a.value - b.value)
    width, apart, other = (np.ptp(np.quantile(e.draws, [0.025, 0.975])) for e in (found, a, b))
    assert width < apart + other
    assert len(found.seeds) == 3


def test_all_pairs_that_the_question_is_about_are_compared(study):
    assert comparisons(study.test) == [
        ("teachers", "swin", "resnet50"),
        ("gain", "deit_tiny-resnet50", "deit_tiny-none"),
        ("gain", "deit_tiny-swin", "deit_tiny-none"),
        ("taught", "deit_tiny-swin", "deit_tiny-resnet50"),
    ]
    assert len(study.tables["mcnemar"]) == 4 * 3 * 3


def test_the_share_of_the_gap_is_known_and_only_given_for_a_gap(tmp_path):
    skill = {"resnet50": 6.0, "none": 0.5, "swin": 0.5}
    study = evaluate(load_runs(make_runs(tmp_path, people=60, skill=skill)), 200, 0)
    share = gap_closed(study.test, "deit_tiny-resnet50", "all")
    value = {arm: study.test.estimates(arm)["auroc"].value for arm in study.test.arms}
    top, base = value["resnet50"], value["deit_tiny-none"]
    assert share.value == pytest.approx((value["deit_tiny-resnet50"] - base) / (top - base))
    assert share.low <= share.value <= share.high
    assert gap_closed(study.test, "deit_tiny-swin", "all") is None
    row = study.tables["gap_closed"].query("student == 'deit_tiny-swin' and contrast == 'all'")
    assert row["share_estimate"].isna().all()
    assert "no share of it is given" in readings.gap_words(study, "all") or (
        "no gap to close" in readings.gap_words(study, "all")
    )


def test_a_student_that_copies_its_teacher_agrees_fully(tmp_path):
    faces = made_faces(12)
    logits = np.random.default_rng(0).normal(size=(2, len(faces)))
    logits[1] = logits[0]
    for arm, sign in (("swin", 1), ("deit_tiny-swin", 1), ("deit_tiny-none", -1)):
        make_run(tmp_path, arm, 0, faces, sign * logits)
    study = evaluate(load_runs(tmp_path), 50, 0)
    table = study.tables["fidelity"].set_index("student")
    assert table.loc["deit_tiny-swin", ["agreement_estimate", "train_agreement"]].tolist() == [1, 1]
    assert table.loc["deit_tiny-swin", "disagreement_seen"] == pytest.approx(0.1)
    assert table.loc["deit_tiny-none", "agreement_estimate"] == 0
    matrix = study.tables["disagreement"].pivot(index="first", columns="second")["disagreement"]
    assert matrix.loc["swin", "deit_tiny-swin"] == 0
    assert matrix.loc["swin", "deit_tiny-none"] == 1
    assert np.isnan(matrix.loc["swin", "swin"])
    pd.testing.assert_frame_equal(matrix, matrix.T, check_names=False)


def test_the_matrix_sets_an_arms_own_seeds_apart_and_counts_errors(study):
    matrix = study.tables["disagreement"].set_index(["first", "second"])["disagreement"]
    assert 0 < matrix["swin", "swin"] < 1
    accuracy = study.test.estimates("swin")["accuracy"].value
    assert matrix["swin", "labels"] == pytest.approx(1 - accuracy)


def test_only_trained_heads_are_shown(study):
    assert heads_of(study.test, "deit_tiny-none") == ["probability", "probability_class"]
    assert len(heads_of(study.test, "deit_tiny-swin")) == 3
    table = views.heads(study.test)
    assert table.iloc[0, -1] == "–"


@pytest.mark.parametrize(
    ("auroc", "expected"), [([0.5, 0.75, 0.77, 0.8], 3), ([0.8, 0.9], 2), ([np.nan, np.nan], None)]
)
def test_convergence_is_the_first_epoch_at_95_percent_of_the_best(auroc, expected):
    history = pd.DataFrame({"epoch": np.arange(len(auroc)) + 1, "validation_auroc": auroc})
    found = epochs_to_converge(history)
    assert np.isnan(found) if expected is None else found == expected


def test_subgroups_split_the_faces(study):
    table = study.tables["subgroups"].query("arm == 'swin' and contrast == 'all'")
    for _, part in table.groupby("group"):
        assert part["identities"].sum() == 40
    men = study.test.faces["identity"].str[2] == "0"
    faces = study.tables["test_predictions"].query("arm == 'swin' and seed == 0")
    chosen = faces[men.to_numpy()]
    others = [
        study.tables["test_predictions"].query("arm == 'swin' and seed == @seed")[men.to_numpy()]
        for seed in (1, 2)
    ]
    expected = [roc_auc_score(t["label"] == "Pain", t["probability"]) for t in (chosen, *others)]
    row = table[table["value"] == "Man"]
    assert row["estimate"].item() == pytest.approx(np.mean(expected))


def test_the_largest_gap_is_between_the_best_and_the_worst_group(study):
    gaps = study.tables["subgroup_gaps"].query("arm == 'deit_tiny-none' and group == 'gender'")
    faces = study.tables["test_predictions"].query("arm == 'deit_tiny-none' and side == 'right'")
    auroc = {
        gender: np.mean(
            [
                roc_auc_score(part["label"] == "Pain", part["probability"])
                for _, part in faces[faces["identity"].str[2] == digit].groupby("seed")
            ]
        )
        for digit, gender in (("0", "Man"), ("1", "Woman"))
    }
    row = gaps.query("contrast == 'expressive'").iloc[0]
    assert row["estimate"] == pytest.approx(max(auroc.values()) - min(auroc.values()))
    assert auroc[row["best"]] > auroc[row["worst"]]
    assert row["low"] < row["estimate"] < row["high"]
    widest = study.tables["subgroup_gaps"].query("arm == 'swin' and contrast == 'expressive'")
    assert f"Swin-T {prose.signed(widest['estimate'].max())} [" in readings.groups(study)


def test_arms_with_other_seeds_are_compared_without_pairing_seeds(tmp_path):
    make_runs(tmp_path, people=12, seeds=(0, 1), arms=ARMS[:1])
    make_runs(tmp_path, people=12, seeds=(2, 3), arms=ARMS[1:2])
    panel = make_panel(load_runs(tmp_path), 50, 0)
    assert panel.seed_pairs("resnet50", "swin") == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert panel.difference("resnet50", "swin", "all", "auroc").seeds == ()


def test_faces_that_only_one_arm_has_are_refused():
    faces = made_faces(4).assign(probability=0.5, probability_class=0.5, arm="a")
    faces["probability_distillation"] = np.nan
    other = faces.iloc[1:].assign(arm="b")
    with pytest.raises(StudyError, match="The arm b lacks a face"):
        panel_of(pd.concat([faces, other]), 10, 0)
    swapped = faces.assign(arm="b", label="Pain")
    with pytest.raises(StudyError, match="disagree on the label"):
        panel_of(pd.concat([faces, swapped]), 10, 0)
    with pytest.raises(StudyError, match="no face"):
        panel_of(faces.iloc[:0], 10, 0)


def test_tables_are_written_and_give_the_same_numbers_again(study, tmp_path):
    write_tables(study, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.csv")} == set(study.tables)
    written = pd.read_csv(tmp_path / "test_predictions.csv", dtype={"identity": str})
    again = panel_of(written, 200, 0)
    for arm in ARMS:
        found, known = (p.estimates(arm, "expressive")["auroc"] for p in (again, study.test))
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-4)


@pytest.mark.parametrize(("people", "pain"), [(1, {0}), (1, set()), (2, {0}), (3, {0, 1, 2})])
def test_a_handful_of_faces_gives_words_and_no_numbers_made_up(tmp_path, people, pain):
    study = evaluate(load_runs(make_runs(tmp_path, people=people, pain=pain)), 20, 0)
    assert study.tables["metrics"][["low", "high"]].isna().all().all()
    said = texts(study)
    assert "nan" not in said.lower().replace("finance", "")
    assert "no arm" in said
    assert "not settled" in said


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (("resnet50", "deit_tiny-none", "deit_tiny-resnet50"), "pupils of ResNet-50 only"),
        (("resnet50",), "no taught pupil"),
        (("deit_tiny-none",), "no taught pupil"),
        (("deit_tiny-swin", "deit_tiny-resnet50"), "There is no student without a teacher"),
    ],
)
def test_missing_arms_are_said(tmp_path, arms, words):
    study = evaluate(load_runs(make_runs(tmp_path, people=20, arms=arms)), 50, 0)
    said = texts(study)
    assert words in said
    assert "nan" not in said
    assert own_teacher(study.test, "deit_tiny-swin") is None


def test_arms_at_chance_rank_no_teachers(tmp_path):
    skill = dict.fromkeys(("resnet50", "swin", "none"), 0.0)
    study = evaluate(load_runs(make_runs(tmp_path, skill=skill)), 200, 3)
    said = writeup.abstract(study)
    assert "cannot rank the teachers" in said
    assert "no arm" in said
    assert readings.chance_list(study.test).count("not distinguishable from chance") >= 4


def test_the_abstract_reports_the_primary_endpoint(study):
    found = study.test.difference("deit_tiny-swin", "deit_tiny-resnet50", "expressive", "auroc")
    for number in (found.value, found.low, found.high):
        assert prose.signed(number) in writeup.finding(study)
    assert "means over 3 seeds" in writeup.abstract(study)
    assert "stand-in" in writeup.abstract(study)
    assert "random weights" in writeup.method(study)


def test_mistakes_are_what_sensitivity_and_specificity_leave(study):
    missed = study.test.estimates("swin")["sensitivity"]
    alarms = study.test.estimates("swin", "expressive")["specificity"]
    (line,) = [x for x in readings.mistakes(study.test).split("\n") if "**Swin-T**" in x]
    assert f"misses {100 - 100 * missed.value:.0f} % [{100 - 100 * missed.high:.0f} %, " in line
    assert f"{100 - 100 * alarms.value:.0f} % [{100 - 100 * alarms.high:.0f} %, " in line


def test_results_on_another_source_are_written_beside_the_others(study, tmp_path):
    write_external(study.test, tmp_path)
    table = pd.read_csv(tmp_path / "external_metrics.csv")
    pd.testing.assert_frame_equal(table, study.tables["metrics"])
    assert len(pd.read_csv(tmp_path / "external_predictions.csv")) == 5 * 3 * 80


def estimate(value, low, high, seeds=()):
    """An estimate whose interval is, very nearly, [low, high]."""
    return Estimate(value, np.r_[np.full(500, low), np.full(500, high)], seeds)


def test_numbers_are_written_plainly():
    assert prose.number(-0.126) == "−0.13"
    assert prose.number(-0.001) == "0.00"
    assert prose.number(np.nan) == "–"
    assert prose.signed(0.0541) == "+0.054"
    assert prose.signed(-0.0541) == "−0.054"
    assert prose.signed(0.0001) == "0.000"
    assert prose.percent(0.126) == "13 %"
    assert prose.with_interval(estimate(0.84, 0.79, 0.88)) == "0.84 [0.79, 0.88]"
    assert prose.with_interval(Estimate(0.84, np.full(3, np.nan), ())) == "0.84 [no interval]"
    assert prose.with_interval(Estimate(np.nan, np.full(3, np.nan), ())) == "–"
    assert prose.listing(["a"]) == "a"
    assert prose.listing(["a", "b", "c"]) == "a, b and c"
    assert prose.plural(1, "identity") == "1 identity"
    assert prose.plural(2000, "identity") == "2,000 identities"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.51, 0.9, "above"), (0.5, 0.9, "level"), (0.4, 0.6, "level"), (0.1, 0.49, "below")],
)
def test_above_chance_means_the_whole_interval(low, high, verdict):
    assert prose.chance(estimate((low + high) / 2, low, high)) == verdict


def test_verdicts_on_a_difference():
    assert "A scores higher than B: +0.050" in prose.difference(
        estimate(0.05, 0.01, 0.09), "A", "B"
    )
    assert "A scores lower than B" in prose.difference(estimate(-0.05, -0.09, -0.01), "A", "B")
    null = prose.difference(estimate(0.05, -0.01, 0.11), "A", "B")
    assert "no difference" in null
    assert "(+0.050 AUROC; the interval allows −0.010 to +0.110)" in null
    assert "settles nothing" in prose.difference(Estimate(0.1, np.full(3, np.nan), ()), "A", "B")
    assert "only one class" in prose.difference(Estimate(np.nan, np.full(3, np.nan), ()), "A", "B")
    mixed = prose.difference(estimate(0.05, 0.01, 0.09, (-0.02, 0.12)), "A", "B")
    assert "the 2 seeds: −0.020 to +0.120), but not in every seed" in mixed


def test_sample_faces_are_chosen_by_rule_and_once(study):
    everything = [row for part in choose(study.test, count=99).values() for row in part]
    assert len(everything) == len(set(everything)) == 40
    chosen = choose(study.test, count=3)
    rows = [row for part in chosen.values() for row in part]
    faces = study.test.faces
    assert (faces["side"].iloc[rows] == "right").all()
    assert (faces["label"].iloc[chosen["found"] + chosen["missed"]] == "Pain").all()
    assert (faces["label"].iloc[chosen["false_alarm"]] == "NoPain").all()
    mean = np.mean([study.test.mean_probability(arm) for arm in ARMS], axis=0)
    assert (mean[chosen["found"]] > 0.5).all()
    assert (mean[chosen["missed"]] <= 0.5).all()
    assert mean[chosen["found"][0]] == mean[study.test.positive].max()
