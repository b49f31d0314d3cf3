"""Intervals against numbers worked out by hand or published."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import OptionError
from simtune.eval.intervals import Interval, bootstrap_mean, paired_difference, wilson


def test_wilson_by_hand():
    # n=10, p=0.8, z=1.959964: z²/n = 0.384146; centre = (0.8 + 0.192073) / 1.384146 = 0.716740
    # half = 1.959964 / 1.384146 * sqrt(0.016 + 0.0096036) = 0.226578
    found = wilson(8, 10)
    assert found.estimate == 0.8
    assert found.low == pytest.approx(0.490162, abs=1e-5)
    assert found.high == pytest.approx(0.943318, abs=1e-5)


def test_wilson_at_the_ends_is_neither_empty_nor_outside():
    # With no success the upper limit is z² / (n + z²): 3.841459 / 203.841459 for 200 trials.
    none = wilson(0, 200)
    assert (none.estimate, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(3.841459 / 203.841459, abs=1e-7)
    every = wilson(200, 200)
    assert (every.estimate, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(1 - none.high, abs=1e-12)


@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_is_symmetric_and_holds_its_estimate(trials, data):
    successes = data.draw(st.integers(0, trials))
    found, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_more_confidence_is_a_wider_interval():
    assert wilson(5, 10, confidence=0.99).low < wilson(5, 10, confidence=0.9).low


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_rate(successes, trials):
    with pytest.raises(OptionError, match=f"{successes} of {trials}"):
        wilson(successes, trials)


def test_bootstrap_of_a_constant_has_no_width():
    assert bootstrap_mean([2.5] * 7) == Interval(2.5, 2.5, 2.5)


def test_bootstrap_of_two_values_is_the_binomial():
    # Means of two draws from {0, 1} are 0, 1/2, 1 with 1/4, 1/2, 1/4: at 40 % confidence the
    # limits are the 30 % and 70 % quantiles, both 1/2; at 95 % they are 0 and 1.
    assert bootstrap_mean([0.0, 1.0], confidence=0.4) == Interval(0.5, 0.5, 0.5)
    assert bootstrap_mean([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample():
    values = [(i * 37 % 101) / 100 for i in range(1000)]
    half = 1.959964 * statistics.pstdev(values) / 1000**0.5
    found = bootstrap_mean(values, seed=3)
    assert found.low == pytest.approx(found.estimate - half, abs=0.002)
    assert found.high == pytest.approx(found.estimate + half, abs=0.002)


def test_bootstrap_repeats_with_its_seed_and_only_with_it():
    values = [i**1.5 for i in range(50)]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(OptionError, match="finite numbers"):
        bootstrap_mean(values)


def test_pairing_removes_the_difficulty_of_the_seeds():
    hard_or_easy = [0.0, 10.0] * 50
    better = [value + 1 for value in hard_or_easy]
    assert paired_difference(better, hard_or_easy) == Interval(1.0, 1.0, 1.0)
    assert not bootstrap_mean(better).apart(bootstrap_mean(hard_or_easy))


def test_pairs_need_a_partner():
    with pytest.raises(OptionError, match="2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


def test_apart_means_no_shared_value():
    assert Interval(0.2, 0.1, 0.3).apart(Interval(0.5, 0.4, 0.6))
    assert not Interval(0.2, 0.1, 0.4).apart(Interval(0.5, 0.4, 0.6))


def test_confidence_is_a_share():
    with pytest.raises(OptionError, match="between 0 and 1"):
        wilson(1, 2, confidence=95)
