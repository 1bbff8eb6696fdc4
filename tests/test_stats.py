import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from helpers import stats
from helpers.files import StudyError


def faces(seed, count=60, levels=12):
    """Labels of both classes, probabilities with ties, whole weights with zeros."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.3
    positive[:2] = True, False
    probability = rng.integers(0, levels + 1, count) / levels
    weights = rng.integers(0, 4, count).astype(float)
    weights[:2] = 1
    return positive, probability, weights


def scikit_learns(positive, probability, weights):
    called, given = probability > 0.5, {"sample_weight": weights}
    return {
        "accuracy": sk.accuracy_score(positive, called, **given),
        "balanced_accuracy": sk.balanced_accuracy_score(positive, called, **given),
        "sensitivity": sk.recall_score(positive, called, **given),
        "specificity": sk.recall_score(~positive, ~called, **given),
        "f1": sk.f1_score(positive, called, **given),
        "kappa": sk.cohen_kappa_score(positive, called, **given),
        "auroc": sk.roc_auc_score(positive, probability, **given),
        "auprc": sk.average_precision_score(positive, probability, **given),
        "brier": sk.brier_score_loss(positive, probability, **given),
    }


@pytest.mark.parametrize("seed", range(4))
def test_each_metric_is_scikit_learns_with_weights_and_ties(seed):
    positive, probability, weights = faces(seed)
    found = stats.measure(positive, probability, np.stack([weights, np.ones_like(weights)]))
    for row, weight in enumerate([weights, np.ones_like(weights)]):
        for name, value in scikit_learns(positive, probability, weight).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name
    alone = stats.measure_auroc(positive, probability, weights[None])["auroc"]
    assert alone[0] == found["auroc"][0]


def test_calibration_error_of_a_known_case():
    positive = np.array([True, False, True, False])
    found = stats.measure(positive, np.array([0.15, 0.15, 0.95, 0.95]))["ece"][0]
    # Bin 2: mean 0.15, share 0.5; bin 10: mean 0.95, share 0.5; half of the faces each.
    assert found == pytest.approx(0.5 * 0.35 + 0.5 * 0.45)


def test_what_one_class_cannot_have_is_nan_and_a_half_is_no_pain():
    with np.errstate(all="raise"):
        found = stats.measure(np.array([True, True]), np.array([0.5, 0.9])).iloc[0]
    assert found[["auroc", "auprc", "balanced_accuracy", "specificity"]].isna().all()
    assert found["sensitivity"] == 0.5


def test_contrasts_choose_their_negatives():
    table = pd.DataFrame(
        {"label": ["NoPain", "Pain", "NoPain"], "side": ["left", "right", "right"]}
    )
    masks = [stats.contrast_mask(table, name).tolist() for name in ("all", "neutral", "expressive")]
    assert masks == [[True, True, True], [True, True, False], [False, True, True]]
    with pytest.raises(StudyError, match="Unknown contrast 'other'"):
        stats.contrast_mask(table, "other")


def test_agreement_is_scikit_learns_and_its_divergence_scipys():
    (_, first, weights), (_, second, _) = faces(1), faces(2)
    found = stats.agreement(first, second, weights[None]).iloc[0]
    a, b = first > 0.5, second > 0.5
    assert found["agreement"] == pytest.approx(np.average(a == b, weights=weights))
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(a, b, sample_weight=weights))
    p, q = np.array([0.8, 0.3]), np.array([0.6, 0.4])
    known = [scipy_stats.entropy([x, 1 - x], [y, 1 - y]) for x, y in zip(p, q, strict=True)]
    assert stats.agreement(p, q)["kl"][0] == pytest.approx(np.mean(known))


@pytest.mark.parametrize("seed", range(3))
def test_mcnemar_is_statsmodels(seed):
    positive, first, _ = faces(seed)
    second = faces(seed + 50)[1]
    a, b = ((score > 0.5) == positive for score in (first, second))
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    found = stats.mcnemar(positive, first, second)
    assert found["p"] == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert [found["only_first"], found["only_second"]] == [table[0][1], table[1][0]]


def test_people_are_drawn_with_both_their_faces():
    identities = np.repeat(["a", "b", "c", "d"], [2, 2, 2, 1])
    weights = stats.identity_weights(identities, 500, seed=0)
    np.testing.assert_array_equal(weights[:, :6:2], weights[:, 1:6:2])
    drawn = weights[:, [0, 2, 4, 6]]
    assert (drawn.sum(axis=1) == 4).all()


def several(seeds, draws, faces=0.0, samples=4000):
    """The same number from some seeds, whose draws have the spread `faces`, alike in all seeds."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, faces, samples)
    drawn = [value + common + rng.normal(0, draws, samples) for value in seeds]
    tables = [pd.DataFrame({"auroc": [value]}) for value in seeds]
    return stats.estimates(tables, [pd.DataFrame({"auroc": v}) for v in drawn])["auroc"]


def test_two_components_of_variance_are_added_with_satterthwaites_degrees():
    values = (0.60, 0.80, 0.70, 0.64)
    found = several(values, 0.0, faces=0.05)
    seeds = np.var(values, ddof=1) / 4
    total = found.draws.var() + seeds
    margin = scipy_stats.t.ppf(0.975, total**2 / (seeds**2 / 3)) * np.sqrt(total)
    assert found.high - found.low == pytest.approx(2 * margin, rel=0.03)


def test_degrees_of_freedom_are_never_fewer_than_the_seeds_allow():
    """Draws that cancel over seeds: little variance is left of what each seed's faces explain."""
    first, second = np.random.default_rng(0).normal(0, 0.05, (2, 4000))
    seeds = (0.70, 0.70 + 0.125, 0.70)
    draws = [s + d for s, d in zip(seeds, (first, second, -first - second), strict=True)]
    tables = [pd.DataFrame({"auroc": [value]}) for value in seeds]
    found = stats.estimates(tables, [pd.DataFrame({"auroc": draw}) for draw in draws])["auroc"]
    variance = found.draws.var() + found.luck[0].training / 3
    margin = scipy_stats.t.ppf(0.975, 2) * np.sqrt(variance)
    assert found.high - found.low == pytest.approx(2 * margin, rel=0.02)
    planned = found.as_planned()
    assert (planned.low, planned.high) == (0.0, 1.0)


def test_pairs_of_seeds_cancel_what_they_share_and_unpaired_ones_do_not():
    a, b = several((0.60, 0.80, 0.70), 0.0, 0.01), several((0.55, 0.75, 0.65), 0.0, 0.01)
    paired, unpaired = a - b, a.unpaired(b)
    assert paired.high - paired.low < 1e-6
    assert paired.seeds == pytest.approx((0.05, 0.05, 0.05))
    assert unpaired.high - unpaired.low > 0.3


def test_few_people_have_no_interval():
    identities, positive = np.array(list("aabbccddeeff")), np.arange(12) % 2 == 1
    assert all(stats.enough_identities(name, identities, positive) for name in stats.METRICS)
    few = positive & (identities < "e")
    assert not stats.enough_identities("auroc", identities, few)
    assert stats.enough_identities("brier", identities, few)


def test_intervals_of_a_paired_difference_cover_the_truth():
    """Two arms of known AUROC on clustered faces; 95 % intervals over 120 simulated test sets."""
    rng, inside, people = np.random.default_rng(5), 0, 90
    truth = scipy_stats.norm.cdf(1.4 / 2) - scipy_stats.norm.cdf(0.8 / 2)
    identities = np.repeat(np.arange(people).astype(str), 2)
    for run in range(120):
        positive = np.zeros(2 * people, bool)
        positive[1::2] = rng.random(people) < 0.5
        person = np.repeat(rng.normal(size=people), 2)
        weights, found = stats.identity_weights(identities, 400, run), []
        for shift in (1.4, 0.8):
            score = scipy_stats.norm.cdf(shift * positive + person + rng.normal(size=2 * people))
            asked = [[stats.measure_auroc(positive, score, w)] for w in (None, weights)]
            found.append(stats.estimates(*asked)["auroc"])
        difference = found[0] - found[1]
        inside += difference.low <= truth <= difference.high
    assert 108 <= inside <= 119
