"""The built-in rewards, number by number."""

import pytest

from simtune.errors import DataError
from simtune.rewards import builtin


def test_environment_is_what_the_simulation_gave(make_episode):
    assert builtin.environment(make_episode([0.5, None, -1.0])) == [0.5, 0.0, -1.0]


def test_environment_without_any_reward_is_a_failure_not_zero(make_episode):
    with pytest.raises(DataError, match="no reward"):
        builtin.environment(make_episode([None, None]))


def test_success_is_one_or_zero(make_episode):
    assert builtin.success(make_episode(success=True)) == 1.0
    assert builtin.success(make_episode(success=False)) == 0.0


def test_success_that_nobody_stated_is_a_failure_not_zero(make_episode):
    with pytest.raises(DataError, match="does not say"):
        builtin.success(make_episode(success=None))


def test_valid_scores_each_decision(make_episode):
    assert builtin.valid(make_episode(valid=[True, False])) == [1.0, 0.0]


def test_length_penalty_is_a_thousandth_per_character(make_episode):
    found = builtin.length_penalty(make_episode(responses=["", "x" * 250]))
    assert found == [pytest.approx(0.0), pytest.approx(-0.25)]
