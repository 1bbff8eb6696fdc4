"""Ablations: what departs from the study, what is shared with it, and how they are compared."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_runs import SKILL, make_runs
from sklearn.metrics import roc_auc_score

from helpers.errors import StudyError
from helpers.evaluation.ablation_tables import ablation_table, load_ablations
from helpers.evaluation.ablations import Ablation, read_ablations
from helpers.evaluation.compare import load_runs
from helpers.parameters import read_config
from helpers.writeup.ablation_views import MISSING, ablation_figure, ablation_words

STUDENTS = ("deit_tiny-resnet50", "deit_tiny-swin")


@pytest.mark.parametrize(
    ("departures", "teachers", "untaught"),
    [
        ({"distillation": "soft"}, False, False),
        ({"teacher_labels": "shuffled"}, False, False),
        ({"init": "scratch", "allow_weak_teacher": True}, True, True),
        ({"students": ["deit_small"]}, False, True),
        ({"teacher_epochs": 2}, True, False),
        ({"student_epochs": 2}, False, True),
    ],
)
def test_an_ablation_shares_what_it_leaves_alone(departures, teachers, untaught):
    ablation = Ablation("one", departures)
    assert (ablation.teaches_anew, ablation.trains_untaught) == (teachers, untaught)


@pytest.mark.parametrize("config", ["quick", "standin", "synpain"])
def test_the_committed_ablations_fit_every_config_and_depart_from_it(config):
    study = read_config(f"config/{config}.yaml")
    found = read_ablations("config/ablations", study)
    assert {a.name for a in found} >= {"soft", "shuffled", "out_of_fold", "scratch", "small"}
    for ablation in found:
        assert any(study[key] != value for key, value in ablation.departures.items()), ablation


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names nothing that departs"),
        ("crop_size: 128", "shares the study's faces, so not crop_size"),
        ("disttillation: soft", "named 'disttillation'"),
        ("distillation: softly", "Unknown distillation 'softly'"),
    ],
)
def test_an_ablation_that_does_not_fit_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(StudyError, match=sentence):
        read_ablations(tmp_path, read_config("config/quick.yaml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of three seeds; an ablation of two of them, in which Swin's pupil knows nothing."""
    root = tmp_path_factory.mktemp("runs")
    make_runs(root, people=60, seeds=(0, 1, 2))
    skill = SKILL | {"swin": 0.0, "resnet50": 3.0}
    make_runs(root / "ablations/shuffled", 60, seeds=(0, 2), arms=STUDENTS, skill=skill)
    (root / "ablations/begun/student/deit_tiny-swin/seed0").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def table(made):
    return ablation_table(load_runs(made), load_ablations(made), 200, 0)


def auroc(made, arm, seed, ablation=""):
    path = made / ablation / f"student/{arm}/seed{seed}/predictions.csv"
    faces = pd.read_csv(path).query("split == 'test' and side == 'right'")
    return roc_auc_score(faces["label"] == "Pain", faces["probability"])


def row(table, **where):
    (found,) = table[(table[list(where)] == list(where.values())).all(axis=1)].itertuples()
    return found


def test_only_finished_ablations_are_compared(made):
    assert set(load_ablations(made)) == {"shuffled"}


@pytest.mark.parametrize("arm", STUDENTS)
def test_the_change_is_paired_over_the_seeds_that_both_have(made, table, arm):
    expected = np.mean(
        [auroc(made, arm, s, "ablations/shuffled") - auroc(made, arm, s) for s in (0, 2)]
    )
    found = row(table, ablation="shuffled", kind="change", first=arm)
    assert found.estimate == pytest.approx(expected)
    assert (found.second, found.seeds) == (arm, 2)
    if arm.endswith("swin"):
        assert found.low < expected < found.high < 0


def test_the_question_is_asked_within_each_ablation(made, table):
    for name, folder, seeds in (
        ("study", "", (0, 1, 2)),
        ("shuffled", "ablations/shuffled", (0, 2)),
    ):
        first, second = "deit_tiny-swin", "deit_tiny-resnet50"
        each = [auroc(made, first, s, folder) - auroc(made, second, s, folder) for s in seeds]
        found = row(table, ablation=name, kind="taught")
        assert (found.first, found.second) == (first, second)
        assert found.estimate == pytest.approx(np.mean(each))


def test_another_student_is_set_against_the_one_under_the_same_teacher(made, tmp_path):
    make_runs(tmp_path / "ablations/small", 60, arms=("deit_small-swin",))
    found = ablation_table(load_runs(made), load_ablations(tmp_path), 50, 0)
    assert row(found, ablation="small", kind="change").second == "deit_tiny-swin"
    assert "**DeiT-S** (1 seed: intervals without the luck of training)" in ablation_words(found)


def test_every_ablation_is_said_and_drawn(table):
    words = ablation_words(table)
    assert "**Shuffled labels** (2 seeds)" in words
    assert "DeiT-Ti taught by Swin-T −0." in words
    # the fixture's Swin-taught student is the worse for it, with an interval below 0
    assert "The worse for it: DeiT-Ti taught by Swin-T. There, what a teacher" in words
    changes = (table["kind"] == "change", ["low", "high"])
    table = table.copy()
    table.loc[changes] = [-0.01, 0.02]
    assert "No student is shown to be the worse for it" in ablation_words(table)
    table.loc[changes] = np.nan
    assert "Shuffled labels keep" not in ablation_words(table)
    fig = ablation_figure(table)
    fig.canvas.draw()
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == [
        "the study",
        "shuffled labels\n(2 seeds)",
    ]
    plt.close(fig)


@pytest.mark.parametrize(("lowest", "said"), [(0.49, True), (0.5, True), (0.51, False)])
def test_an_ablation_whose_students_guess_says_nothing_of_teachers(table, lowest, said):
    of_it = (table["ablation"] == "shuffled") & (table["kind"] == "arm")
    weak = table.assign(low=table["low"].mask(of_it, [lowest] * len(table)))
    assert ("cannot be told from guessing" in ablation_words(weak)) is said
    one = weak.index[of_it][0]
    assert "guessing" not in ablation_words(
        weak.assign(low=weak["low"].where(weak.index != one, 0.9))
    )


def test_without_ablations_it_is_said(made):
    assert ablation_words(ablation_table(load_runs(made), {}, 50, 0)) == MISSING
