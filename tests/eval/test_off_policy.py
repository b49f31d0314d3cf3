"""Importance weighting: three decisions by hand, and a bandit whose truth is known."""

import math

import numpy as np
import pytest

from simtune.errors import OptionError
from simtune.eval.off_policy import (
    LoggedEpisode,
    effective_size,
    evaluate_logged,
    importance_weights,
    weighted_value,
)


def logs(*values):
    return [math.log(value) for value in values]


def test_three_decisions_by_hand():
    # Episode 1: two decisions, ratios 2 and 0.5, rewards 1 and 0. Episode 2: one, ratio 0.5,
    # reward 4; its weight goes on.
    weights = importance_weights([logs(2, 0.5), logs(0.5)], cap=10.0)
    assert weights == pytest.approx(np.array([[2.0, 1.0], [0.5, 0.5]]))
    rewards = np.array([[1.0, 0.0], [4.0, 0.0]])
    # Step 1: (2 · 1 + 0.5 · 4) / 2.5 = 1.6; step 2: 0.
    assert weighted_value(weights, rewards, np.ones((1, 2)))[0] == pytest.approx(1.6)
    # (1 + 0.5)² / (1 + 0.25) = 1.8
    assert effective_size(weights[:, -1]) == pytest.approx(1.8)


def test_the_same_policy_has_weight_one_and_the_plain_mean():
    episodes = [LoggedEpisode(rewards=[float(n)], log_ratios=[[0.0], [0.0]]) for n in range(10)]
    found = evaluate_logged(episodes, confidence=0.95, resamples=100)
    assert found.values == [4.5, 4.5]
    assert found.sizes == [10.0, 10.0]
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)


def test_weights_are_truncated_and_never_overflow():
    weights = importance_weights([[800.0], [-math.inf], [0.0]], cap=20.0)
    assert weights[:, 0].tolist() == pytest.approx([20.0, 0.0, 1.0])
    assert effective_size(np.zeros(3)) == 0.0


BEHAVIOUR = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
CANDIDATE = np.array([[0.2, 0.2, 0.6], [0.1, 0.3, 0.6]])
CHAMPION = np.array([[0.6, 0.2, 0.2], [0.3, 0.4, 0.3]])
PAID = np.array([[0.2, 0.5, 0.8], [0.3, 0.4, 0.6]])


def bandit(generator, n):
    """Two contexts, three arms: what `BEHAVIOUR` did, as the two other policies see it."""
    contexts = generator.integers(2, size=n)
    arms = (generator.random((n, 1)) > BEHAVIOUR[contexts].cumsum(1)).sum(1)
    paid = generator.random(n) < PAID[contexts, arms]
    ratios = [
        np.log(policy[contexts, arms] / BEHAVIOUR[contexts, arms])
        for policy in (CANDIDATE, CHAMPION)
    ]
    return [
        LoggedEpisode(rewards=[float(paid[i])], log_ratios=[[ratios[0][i]], [ratios[1][i]]])
        for i in range(n)
    ]


def test_the_interval_covers_the_truth_of_a_bandit():
    truth = float(((CANDIDATE - CHAMPION) * PAID).sum(1).mean())
    assert truth == pytest.approx(0.16)
    generator = np.random.default_rng(0)
    below = above = 0
    for run in range(150):
        found = evaluate_logged(bandit(generator, 200), confidence=0.95, seed=run, resamples=400)
        below += found.difference.low <= truth
        above += found.difference.high >= truth
    # 95 % is promised as n grows; 0.90 is three standard errors below.
    assert below / 150 >= 0.90
    assert above / 150 >= 0.90


def test_the_value_is_right_in_the_mean():
    generator = np.random.default_rng(1)
    found = [
        evaluate_logged(bandit(generator, 400), confidence=0.9, resamples=1) for _ in range(60)
    ]
    truth = [float((policy * PAID).sum(1).mean()) for policy in (CANDIDATE, CHAMPION)]
    assert np.mean([one.values for one in found], axis=0) == pytest.approx(truth, abs=0.015)


def test_nothing_or_a_cap_below_one_is_refused():
    with pytest.raises(OptionError, match="logged episodes"):
        evaluate_logged([], confidence=0.95)
    one = LoggedEpisode(rewards=[1.0], log_ratios=[[0.0], [0.0]])
    with pytest.raises(OptionError, match="cap"):
        evaluate_logged([one], confidence=0.95, cap=0.5)
