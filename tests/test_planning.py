import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from helpers.bootstrap import Estimate, Seeds
from helpers.evaluation.planning import Components, components, identities_needed, planning_table


def test_without_luck_of_training_it_is_the_power_of_a_paired_test():
    needed = identities_needed(Components(0.3**2, 0.0, 0.0), 0.05, 3)
    theirs = TTestPower().solve_power(effect_size=0.05 / 0.3, alpha=0.05, power=0.8)
    assert needed == pytest.approx(theirs, rel=0.08)


@pytest.mark.parametrize(("seeds", "training"), [(5, 0.0002), (3, 0.00003), (10, 0.0004)])
def test_what_the_table_asks_for_finds_the_difference_four_times_in_five(seeds, training):
    """Studies drawn from the model itself, each with the variances that its own seeds show."""
    parts, true, rng = Components(0.15, 0.10, training), 0.03, np.random.default_rng(0)
    n, studies = identities_needed(parts, true, seeds), 1000
    people = rng.normal(true, np.sqrt(parts.common / n), studies)
    found = 0
    for person in people:  # each study through the interval of the report
        values = person + rng.normal(0, np.sqrt(parts.apart / n + training), seeds)
        drawn = rng.normal(0, np.sqrt(parts.common / n), 400)
        draws = drawn + rng.normal(0, np.sqrt(parts.apart / n), (seeds, 400)) + values[:, None]
        study = Estimate(values.mean(), draws.mean(0), tuple(values), (Seeds(values, draws),))
        found += study.low > 0
    assert found / studies == pytest.approx(0.8, abs=0.05)


def test_seeds_that_differ_more_than_the_difference_need_company():
    assert identities_needed(Components(0.25, 0.0, 0.01), 0.02, 3) == np.inf
    assert np.isfinite(identities_needed(Components(0.25, 0.0, 0.01), 0.02, 300))


def test_components_are_read_from_the_draws_and_the_seeds():
    rng = np.random.default_rng(0)
    values = np.array([0.0, 0.02, 0.04])
    by_seed = values[:, None] + rng.normal(0, 0.03, 20_000)
    found = Estimate(0.02, by_seed.mean(0), tuple(values), (Seeds(values, by_seed),))
    parts = components(found, identities=150)
    assert parts.common == pytest.approx(150 * 0.03**2, rel=0.03)
    assert parts.apart == pytest.approx(0)
    assert parts.training == pytest.approx(0.02**2, rel=0.01)
    by_seed = values[:, None] + rng.normal(0, 0.015, (3, 20_000))
    apart = Estimate(0.02, by_seed.mean(0), tuple(values), (Seeds(values, by_seed),))
    parts = components(apart, identities=150)
    assert parts.common == pytest.approx(0, abs=0.001)
    assert parts.apart == pytest.approx(150 * 0.015**2, rel=0.03)
    assert parts.training == pytest.approx(0.02**2 - 0.015**2, rel=0.03)
    table = planning_table(found, 150, (0.05,), (3, 20))
    assert table["identities"].iloc[0] > table["identities"].iloc[1]


def test_one_seed_or_no_interval_plans_nothing():
    one = Estimate(0.02, np.random.default_rng(0).normal(size=50), (0.02,))
    assert planning_table(one, 150).empty
    nothing = Estimate(0.02, np.full(50, np.nan), (0.02,))
    assert planning_table(nothing, 150).empty
