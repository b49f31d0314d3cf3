"""The sign-flip bound: by hand, exact at its level, and with the power to see a difference."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import OptionError
from simtune.eval.sign_flip import sign_flip_bounds


def test_five_differences_by_hand():
    # 2^5 = 32 sign patterns; at 0.95 k = floor(1.6) = 1: the smallest mean of a subset, which is
    # that of {1} alone. The upper bound likewise is {5}.
    found = sign_flip_bounds([1.0, 2.0, 3.0, 4.0, 5.0], confidence=0.95)
    assert (found.estimate, found.low, found.high) == (3.0, 1.0, 5.0)
    # At 0.9 k = floor(3.2) = 3: means are 1, 1.5 ({1, 2}), then 2 ({2} or {1, 3}).
    assert sign_flip_bounds([1.0, 2.0, 3.0, 4.0, 5.0], confidence=0.9).low == 2.0


def test_four_differences_can_say_nothing_at_095():
    found = sign_flip_bounds([1.0, 1.0, 1.0, 1.0], confidence=0.95)
    assert (found.low, found.high) == (-math.inf, math.inf)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8), st.sampled_from([0.8, 0.9, 0.95]))
def test_the_bound_is_the_inverted_test(differences, confidence):
    """The bound is above m exactly where the sign-flip test rejects "symmetric around m"."""
    low = sign_flip_bounds(differences, confidence=confidence).low
    for m in (-3.25, -0.75, 0.0, 0.5, 2.75):
        moved = [d - m for d in differences]
        patterns = list(itertools.product([1, -1], repeat=len(moved)))
        seen = sum(moved)
        large = sum(
            sum(s * d for s, d in zip(signs, moved, strict=True)) >= seen for signs in patterns
        )
        rejected = large <= math.floor((1 - confidence) * len(patterns) + 1e-9)
        assert rejected == (low > m)


def test_without_any_difference_it_is_above_zero_at_most_at_its_level():
    """Continuous, skewed in pairs, 12 exact and 30 drawn: 2000 matches of equals."""
    generator = np.random.default_rng(5)
    for n, matches in ((12, 1000), (30, 400)):
        wrong = 0
        for _ in range(matches):
            ours, theirs = generator.exponential(size=(2, n))
            wrong += sign_flip_bounds(ours - theirs, confidence=0.9, seed=1).low > 0
        # 10 % are allowed; three standard errors of a rate of 0.1 are 0.028 and 0.045.
        assert wrong / matches == pytest.approx(0.1, abs=0.03 if n == 12 else 0.045)


def test_successes_of_equals_are_promoted_at_most_at_the_level():
    generator = np.random.default_rng(6)
    wrong = 0
    for _ in range(400):
        ours, theirs = generator.random((2, 40)) < 0.7
        wrong += sign_flip_bounds(ours.astype(float) - theirs, confidence=0.95).low > 0
    assert wrong / 400 <= 0.05


def test_a_real_difference_is_seen():
    """0.75 against 0.55 on 150 seeds, half of what they do shared."""
    generator = np.random.default_rng(7)
    seen = 0
    for _ in range(100):
        luck = generator.random((2, 150))
        theirs = luck[0] < 0.55
        ours = np.where(luck[1] < 0.5, theirs, generator.random(150) < 0.95)
        seen += sign_flip_bounds(ours.astype(float) - theirs, confidence=0.95).low > 0
    assert seen >= 95


def test_many_episodes_fit_into_memory_and_the_seed_decides():
    differences = np.random.default_rng(1).normal(size=1000)
    one, same = (sign_flip_bounds(differences, confidence=0.95, seed=3) for _ in range(2))
    assert one == same
    # Near the normal bound, 1.645 standard errors below the mean.
    assert one.low == pytest.approx(differences.mean() - 1.645 / math.sqrt(1000), abs=0.005)


@pytest.mark.parametrize("differences", [[], [math.nan], [[1.0]]])
def test_what_is_no_sample_is_refused(differences):
    with pytest.raises(OptionError, match="finite differences"):
        sign_flip_bounds(differences, confidence=0.95)


@pytest.mark.parametrize("confidence", [0.3, 1.0])
def test_what_is_no_confidence_is_refused(confidence):
    with pytest.raises(OptionError, match="confidence"):
        sign_flip_bounds([1.0], confidence=confidence)
