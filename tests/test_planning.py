import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from helpers.bootstrap import Estimate, Seeds
from helpers.planning import components, identities_needed, planning_table


def test_without_luck_of_training_it_is_the_power_of_a_paired_test():
    needed = identities_needed(0.3**2, 0.0, 0.05, 3)
    theirs = TTestPower().solve_power(effect_size=0.05 / 0.3, alpha=0.05, power=0.8)
    assert needed == pytest.approx(theirs, abs=3)


def test_what_the_table_asks_for_finds_the_difference_four_times_in_five():
    people, training, true, seeds = 0.25, 0.0004, 0.03, 5
    n = identities_needed(people, training, true, seeds)
    spread = np.sqrt(people / n + training / seeds)
    found = stats.norm.rvs(true, spread, size=20_000, random_state=0)
    assert np.mean(found > 1.96 * spread) == pytest.approx(0.8, abs=0.01)


def test_seeds_that_differ_more_than_the_difference_need_company():
    assert identities_needed(0.25, 0.01, 0.02, 3) == np.inf
    assert np.isfinite(identities_needed(0.25, 0.01, 0.02, 250))


def test_components_are_read_from_the_draws_and_the_seeds():
    rng = np.random.default_rng(0)
    values = np.array([0.0, 0.02, 0.04])
    by_seed = values[:, None] + rng.normal(0, 0.03, 20_000)
    found = Estimate(0.02, by_seed.mean(0), tuple(values), (Seeds(values, by_seed),))
    people, training = components(found, identities=150)
    assert people == pytest.approx(150 * 0.03**2, rel=0.03)
    assert training == pytest.approx(0.02**2, rel=0.01)
    table = planning_table(found, 150, (0.05,), (3, 20))
    assert table["identities"].iloc[0] > table["identities"].iloc[1]


def test_one_seed_or_no_interval_plans_nothing():
    one = Estimate(0.02, np.random.default_rng(0).normal(size=50), (0.02,))
    assert planning_table(one, 150).empty
    nothing = Estimate(0.02, np.full(50, np.nan), (0.02,))
    assert planning_table(nothing, 150).empty
