"""Bounds that hold at every moment: by hand, under peeking, and stopping early."""

import math

import numpy as np
import pytest

from simtune.errors import OptionError
from simtune.eval.betting import SHARES, Betting, log_wealth


def test_wealth_of_two_scores_by_hand():
    # Against a mean of 1/2 a score of 1 multiplies the share g by 1 + g, a score of 0 by 1 - g.
    expected = np.mean([(1 + g) * (1 - g) for g in SHARES])
    assert log_wealth(np.array([1.0, 0.0]), 0.5) == pytest.approx(math.log(expected))


def test_the_bound_is_where_the_wealth_is_one_over_alpha():
    bets = Betting(0.0, 1.0, confidence=0.95)
    scores = [1.0] * 30 + [0.0] * 10
    bets.add(scores)
    found = bets.interval()
    assert found.estimate == 0.75
    assert log_wealth(np.array(scores), found.low) == pytest.approx(math.log(20), abs=1e-6)
    assert found.low < 0.75 < found.high


def test_a_shifted_range_shifts_the_bounds():
    plain, moved = Betting(0.0, 1.0, confidence=0.9), Betting(-2.0, 2.0, confidence=0.9)
    scores = np.random.default_rng(0).random(50)
    plain.add(scores)
    moved.add(4 * scores - 2)
    one, other = plain.interval(), moved.interval()
    assert other.low == pytest.approx(4 * one.low - 2)
    assert other.high == pytest.approx(4 * one.high - 2)


def test_looking_after_every_batch_is_wrong_at_most_at_the_level():
    """Skewed differences of mean 0, which a t test would get wrong: +1 often, -9 seldom."""
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        bets = Betting(-9.0, 9.0, confidence=0.9)
        for _ in range(10):
            bets.add(generator.choice([1.0, -9.0], p=[0.9, 0.1], size=10))
            if bets.interval().low > 0:
                wrong += 1
                break
    assert wrong / 200 <= 0.1


def test_a_large_difference_is_decided_early_and_both_ways():
    generator = np.random.default_rng(3)
    for sign in (1, -1):
        needed = []
        for _ in range(20):
            bets = Betting(-1.0, 1.0, confidence=0.95)
            while True:
                bets.add(sign * generator.choice([0.0, 1.0, -1.0], p=[0.5, 0.45, 0.05], size=16))
                found = bets.interval()
                if found.low > 0 or found.high < 0:
                    break
            assert (found.low > 0) == (sign > 0)
            needed.append(bets.n)
        assert np.median(needed) <= 64


def test_what_was_excluded_stays_excluded():
    bets = Betting(0.0, 1.0, confidence=0.95)
    bets.add([1.0] * 40)
    before = bets.interval().low
    bets.add([0.0] * 400)
    assert bets.interval().low == before > 0.8


def test_nothing_seen_says_nothing():
    found = Betting(-1.0, 1.0, confidence=0.95).interval()
    assert (found.low, found.high) == (-1.0, 1.0)


def test_what_cannot_be_bet_on_is_refused():
    with pytest.raises(OptionError, match="finite range"):
        Betting(1.0, 1.0, confidence=0.95)
    with pytest.raises(OptionError, match="confidence"):
        Betting(0.0, 1.0, confidence=1.0)
    with pytest.raises(OptionError, match="outside"):
        Betting(0.0, 1.0, confidence=0.9).add([1.5])
