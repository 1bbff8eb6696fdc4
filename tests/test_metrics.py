import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from helpers.bootstrap import Estimate, enough_identities, estimates, identity_weights
from helpers.errors import StudyError
from helpers.metrics import (
    METRICS,
    agreement,
    contrast_mask,
    mcnemar,
    measure,
    measure_auroc,
    reliability,
    roc_curve,
)


def faces(seed, count=60, levels=12):
    """Labels of both classes, probabilities with ties, whole weights with zeros."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.3
    positive[:2] = True, False
    probability = rng.integers(0, levels + 1, count) / levels
    weights = rng.integers(0, 4, count).astype(float)
    weights[:2] = 1
    return positive, probability, weights


def independent(positive, probability, weights):
    """The same metrics from scikit-learn."""
    called = probability > 0.5
    given_weights = {"sample_weight": weights}
    return {
        "accuracy": sk.accuracy_score(positive, called, **given_weights),
        "balanced_accuracy": sk.balanced_accuracy_score(positive, called, **given_weights),
        "sensitivity": sk.recall_score(positive, called, **given_weights),
        "specificity": sk.recall_score(~positive, ~called, **given_weights),
        "f1": sk.f1_score(positive, called, **given_weights),
        "kappa": sk.cohen_kappa_score(positive, called, **given_weights),
        "auroc": sk.roc_auc_score(positive, probability, **given_weights),
        "auprc": sk.average_precision_score(positive, probability, **given_weights),
        "brier": sk.brier_score_loss(positive, probability, **given_weights),
    }


@pytest.mark.parametrize("seed", range(5))
def test_each_metric_equals_scikit_learns_with_weights_and_ties(seed):
    positive, probability, weights = faces(seed)
    found = measure(positive, probability, np.stack([weights, np.ones_like(weights)]))
    for row, weight in enumerate([weights, np.ones_like(weights)]):
        for name, value in independent(positive, probability, weight).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


def test_without_weights_every_face_counts_once():
    positive, probability, _ = faces(7)
    plain, weighted = measure(positive, probability), np.ones((1, len(positive)))
    pd.testing.assert_frame_equal(plain, measure(positive, probability, weighted))


def test_auroc_alone_is_scikit_learns_and_nothing_without_both_classes():
    positive, probability, weights = faces(9)
    only_others = np.where(positive, 0, weights)
    found = measure_auroc(positive, probability, np.stack([weights, only_others]))["auroc"]
    expected = sk.roc_auc_score(positive, probability, sample_weight=weights)
    assert found[0] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[1])
    expected = sk.roc_auc_score(positive, probability)
    assert measure_auroc(positive, probability)["auroc"][0] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(measure_auroc(positive & False, probability)["auroc"][0])


def test_a_weight_of_two_is_the_face_twice():
    positive, probability, weights = faces(8)
    times = weights.astype(int)
    repeated = measure(np.repeat(positive, times), np.repeat(probability, times))
    found = measure(positive, probability, weights[None])
    np.testing.assert_allclose(found.to_numpy(), repeated.to_numpy(), atol=1e-12)


def test_calibration_error_of_a_known_case():
    positive = np.array([True, False, True, False])
    probability = np.array([0.15, 0.15, 0.95, 0.95])
    # Bin 2: mean 0.15, share 0.5; bin 10: mean 0.95, share 0.5; half of the faces each.
    assert measure(positive, probability)["ece"][0] == pytest.approx(0.5 * 0.35 + 0.5 * 0.45)
    table = reliability(positive, probability)
    assert table["faces"].tolist() == [2, 2]
    assert table["observed"].tolist() == [0.5, 0.5]
    gaps = (table["observed"] - table["predicted"]).abs() * table["faces"] / 4
    assert gaps.sum() == pytest.approx(measure(positive, probability)["ece"][0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_auroc_depends_on_the_order_alone_and_turns_over(seed):
    positive, probability, weights = faces(seed, count=25, levels=6)
    auroc = measure(positive, probability, weights[None])["auroc"][0]
    assert measure(positive, probability**3, weights[None])["auroc"][0] == pytest.approx(auroc)
    assert measure(positive, 1 - probability, weights[None])["auroc"][0] == pytest.approx(1 - auroc)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_one_class_has_no_ranking_and_no_warning(positive):
    with np.errstate(all="raise"):
        found = measure(np.array(positive), np.array([0.2, 0.9])).iloc[0]
    assert found[["auroc", "auprc", "balanced_accuracy"]].isna().all()
    assert found["accuracy"] == 0.5
    assert np.isnan(found["specificity" if positive[0] else "sensitivity"])


def test_a_resample_that_loses_a_class_is_not_defined_there():
    positive, probability = np.array([True, False]), np.array([0.9, 0.1])
    found = measure(positive, probability, np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    assert found["auroc"].isna().tolist() == [False, True, True]
    assert found["auprc"].isna().tolist() == [False, True, True]


def test_f1_without_a_true_positive_is_zero_and_undefined_without_any_pain():
    assert measure([True, False], [0.1, 0.1])["f1"][0] == 0
    assert np.isnan(measure([False, False], [0.1, 0.1])["f1"][0])


def test_a_probability_of_exactly_a_half_is_no_pain():
    assert measure([True, False], [0.5, 0.5])["sensitivity"][0] == 0


def test_contrasts_choose_their_negatives():
    table = pd.DataFrame(
        {"label": ["NoPain", "Pain", "NoPain", "NoPain"], "side": ["left", "right"] * 2}
    )
    assert contrast_mask(table, "all").tolist() == [True] * 4
    assert contrast_mask(table, "neutral").tolist() == [True, True, True, False]
    assert contrast_mask(table, "expressive").tolist() == [False, True, False, True]
    with pytest.raises(StudyError, match="Unknown contrast 'other'"):
        contrast_mask(table, "other")


def test_agreement_equals_scikit_learns_and_a_known_divergence():
    _, first, weights = faces(1)
    _, second, _ = faces(2)
    found = agreement(first, second, weights[None]).iloc[0]
    a, b = first > 0.5, second > 0.5
    assert found["agreement"] == pytest.approx(np.average(a == b, weights=weights))
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(a, b, sample_weight=weights))
    p, q = np.array([0.8, 0.3]), np.array([0.6, 0.4])
    expected = [stats.entropy([x, 1 - x], [y, 1 - y]) for x, y in zip(p, q, strict=True)]
    assert agreement(p, q)["kl"][0] == pytest.approx(np.mean(expected))


def test_agreement_of_two_that_always_say_the_same_has_no_kappa():
    found = agreement(np.array([0.1, 0.2]), np.array([0.3, 0.1])).iloc[0]
    assert found["agreement"] == 1
    assert np.isnan(found["kappa"])


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_equals_statsmodels(seed):
    positive, first, _ = faces(seed)
    second = faces(seed + 50)[1]
    found = mcnemar(positive, first, second)
    right = [(score > 0.5) == positive for score in (first, second)]
    table = pd.crosstab(*(pd.Categorical(r, [True, False]) for r in right), dropna=False)
    assert found["p"] == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert (found["only_first"], found["only_second"]) == (table.iloc[0, 1], table.iloc[1, 0])


def test_mcnemar_of_an_arm_with_itself_is_one():
    positive, first, _ = faces(3)
    assert mcnemar(positive, first, first) == {"only_first": 0, "only_second": 0, "p": 1.0}


def test_roc_curve_has_the_area_of_its_auroc():
    positive, probability, _ = faces(4)
    false, true = roc_curve(positive, probability)
    assert np.trapezoid(true, false) == pytest.approx(measure(positive, probability)["auroc"][0])
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert len(roc_curve(np.array([True]), np.array([0.3]))[0]) == 0


def test_both_faces_of_an_identity_are_drawn_together():
    identities = np.repeat(["a", "b", "c", "d"], [2, 2, 2, 1])
    weights = identity_weights(identities, 500, seed=0)
    for start in (0, 2, 4):
        np.testing.assert_array_equal(weights[:, start], weights[:, start + 1])
    drawn = weights[:, [0, 2, 4, 6]]
    assert (drawn.sum(axis=1) == 4).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.12)
    np.testing.assert_array_equal(weights, identity_weights(identities, 500, seed=0))
    assert not np.array_equal(weights, identity_weights(identities, 500, seed=1))


def test_the_interval_of_a_mean_is_the_textbooks():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.8
    weights = identity_weights(np.arange(400).astype(str), 4000, seed=1)
    positive, probability = np.ones(400, bool), np.where(right, 0.9, 0.1)
    found = estimates([measure(positive, probability)], [measure(positive, probability, weights)])[
        "accuracy"
    ]
    margin = stats.norm.ppf(0.975) * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.low == pytest.approx(found.value - margin, abs=0.006)
    assert found.high == pytest.approx(found.value + margin, abs=0.006)


def test_seeds_are_averaged_in_every_draw():
    tables = [pd.DataFrame({"x": [0.2]}), pd.DataFrame({"x": [0.6]})]
    draws = [pd.DataFrame({"x": [0.1, 0.3]}), pd.DataFrame({"x": [0.5, 0.9]})]
    found = estimates(tables, draws)["x"]
    assert found.value == pytest.approx(0.4)
    np.testing.assert_allclose(found.draws, [0.3, 0.6])
    assert found.seeds == (0.2, 0.6)


def test_differences_and_ratios_are_taken_draw_by_draw():
    a = Estimate(0.8, np.array([0.7, 0.9, 0.8]), (0.8,))
    b = Estimate(0.5, np.array([0.6, 0.8, 0.8]), (0.5,))
    difference = a - b
    assert difference.value == pytest.approx(0.3)
    np.testing.assert_allclose(difference.draws, [0.1, 0.1, 0.0], atol=1e-12)
    assert difference.seeds == pytest.approx((0.3,))
    exact = Estimate(0.0, np.array([1.0, -1.0, 0.0, 2.0]), ())
    assert exact.share_above_zero == 0.625
    zero = Estimate(0.0, np.zeros(3), ())
    assert np.isnan((a / zero).value)
    assert np.isnan((a / zero).low)


def several(seeds, draws, faces=0.0, samples=4000):
    """The same number from some seeds, whose draws have the spread `faces`, alike in all seeds."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, faces, samples)
    tables = [pd.DataFrame({"auroc": [value]}) for value in seeds]
    drawn = [value + common + rng.normal(0, draws, samples) for value in seeds]
    return estimates(tables, [pd.DataFrame({"auroc": values}) for values in drawn])["auroc"]


def test_with_no_doubt_about_faces_the_interval_is_students_over_seeds():
    values = (0.70, 0.76, 0.73)
    found = several(values, 0.0)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.low == pytest.approx(low, abs=2e-3)
    assert found.high == pytest.approx(high, abs=2e-3)


def test_seeds_that_differ_as_the_faces_explain_widen_nothing():
    found = several((0.70, 0.71, 0.70), 0.02, faces=0.01)
    np.testing.assert_array_equal(found.widened, found.draws)
    one = several((0.7,), 0.02)
    np.testing.assert_array_equal(one.widened, one.draws)


def test_the_two_components_of_variance_are_added_with_satterthwaites_degrees():
    values, faces = (0.60, 0.80, 0.70, 0.64), 0.05
    found = several(values, 0.0, faces)
    seeds = np.var(values, ddof=1) / 4
    total = found.draws.var() + seeds
    freedom = total**2 / (seeds**2 / 3)
    margin = stats.t.ppf(0.975, freedom) * np.sqrt(total)
    assert found.high - found.low == pytest.approx(2 * margin, rel=0.03)


def test_degrees_of_freedom_are_never_fewer_than_the_seeds_allow():
    """Draws that cancel over seeds: little variance is left of what each seed's faces explain."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.05, (2, 4000))
    draws = (first, second, -first - second)
    seeds = (0.70, 0.70 + 0.125, 0.70)
    found = estimates(
        [pd.DataFrame({"auroc": [value]}) for value in seeds],
        [pd.DataFrame({"auroc": value + draw}) for value, draw in zip(seeds, draws, strict=True)],
    )["auroc"]
    (luck,) = found.luck
    assert 0 < luck.training < luck.variance / 4
    margin = stats.t.ppf(0.975, 2) * np.sqrt(found.draws.var() + luck.training / 3)
    assert found.high - found.low == pytest.approx(2 * margin, rel=0.02)
    low, high = found.interval_of_the_plan()
    assert (low, high) == (0.0, 1.0)


def test_pairs_of_seeds_cancel_what_they_share_and_unpaired_ones_do_not():
    a, b = several((0.60, 0.80, 0.70), 0.0, 0.01), several((0.55, 0.75, 0.65), 0.0, 0.01)
    paired, unpaired = a - b, a.unpaired(b)
    assert paired.high - paired.low < 1e-6
    assert paired.seeds == pytest.approx((0.05, 0.05, 0.05))
    assert unpaired.high - unpaired.low > 0.3
    assert unpaired.seeds == ()


def test_a_share_stays_within_its_limits_and_has_a_complement():
    found = several((0.99, 0.90, 1.00), 0.0, 0.01)
    assert found.high == 1.0
    assert found.low < 0.9
    rest = found.complement()
    assert (rest.low, rest.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert rest.seeds == pytest.approx((0.01, 0.10, 0.00))


def test_few_identities_have_no_interval():
    identities = np.array(list("aabbccddeeff"))
    positive = np.arange(12) % 2 == 1
    assert all(enough_identities(name, identities, positive) for name in METRICS)
    few = positive & (identities < "e")
    assert not enough_identities("auroc", identities, few)
    assert not enough_identities("sensitivity", identities, few)
    assert enough_identities("specificity", identities, few)
    assert enough_identities("brier", identities, few)
    assert not enough_identities("brier", identities[:8], few[:8])
    assert np.isnan(Estimate(0.5, np.full(9, np.nan), (0.5,)).low)


def test_intervals_of_a_paired_difference_cover_the_truth():
    """Two arms of known AUROC on clustered faces; 95 % intervals over 160 simulated test sets."""
    rng, inside = np.random.default_rng(5), 0
    truth = stats.norm.cdf(1.4 / np.sqrt(4)) - stats.norm.cdf(0.8 / np.sqrt(4))
    people = 90
    identities = np.repeat(np.arange(people).astype(str), 2)
    for run in range(160):
        positive = np.zeros(2 * people, bool)
        positive[1::2] = rng.random(people) < 0.5
        person = np.repeat(rng.normal(size=people), 2)
        scores = [
            stats.norm.cdf(shift * positive + person + rng.normal(size=2 * people))
            for shift in (1.4, 0.8)
        ]
        weights = identity_weights(identities, 300, run)
        first, second = (
            estimates([measure(positive, s)], [measure(positive, s, weights)])["auroc"]
            for s in scores
        )
        found = first - second
        inside += found.low <= truth <= found.high
    assert 0.89 <= inside / 160 <= 0.99
