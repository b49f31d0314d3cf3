import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtune.train.advantages import turn_gae, whiten


def test_two_decisions_worked_by_hand():
    # gamma .99, lambda .9, V = (.5, .4), rewards (0, 1), terminated.
    # delta_1 = 1 + 0 - .4 = .6                          A_1 = .6
    # delta_0 = 0 + .99 * .4 - .5 = -.104                A_0 = -.104 + .99 * .9 * .6 = .4306
    advantages, returns = turn_gae([0, 1], [0.5, 0.4], final_value=0.0, gamma=0.99, gae_lambda=0.9)
    assert advantages == pytest.approx([0.4306, 0.6])
    assert returns == pytest.approx([0.9306, 1.0])


def test_credit_passes_a_decision_however_long_its_answer_is():
    # The estimator never sees tokens: three decisions discount twice, not once a token.
    advantages, _ = turn_gae([0, 0, 1], [0, 0, 0], final_value=0.0, gamma=0.9, gae_lambda=1.0)
    assert advantages == pytest.approx([0.81, 0.9, 1.0])


def test_truncation_bootstraps_and_termination_does_not():
    cut, _ = turn_gae([0.0], [0.2], final_value=0.8, gamma=0.5, gae_lambda=1.0)
    ended, _ = turn_gae([0.0], [0.2], final_value=0.0, gamma=0.5, gae_lambda=1.0)
    assert cut == pytest.approx([0.2])  # 0 + .5 * .8 - .2
    assert ended == pytest.approx([-0.2])


def test_reward_moves_no_turn_boundary():
    advantages, returns = turn_gae([], [], final_value=0.0, gamma=0.99, gae_lambda=0.95)
    assert (advantages, returns) == ([], [])


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_lambda_one_is_the_discounted_return(rewards, gamma):
    """With lambda = 1 the critic cancels: A + V is the discounted sum of rewards."""
    values = [0.3 * i for i in range(len(rewards))]
    _, returns = turn_gae(rewards, values, final_value=0.0, gamma=gamma, gae_lambda=1.0)
    expected = sum(reward * gamma**t for t, reward in enumerate(rewards))
    assert returns[0] == pytest.approx(expected, abs=1e-6)


def test_whitening_small_batches_stays_finite():
    assert whiten(torch.tensor([])).tolist() == []
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]
    assert whiten(torch.tensor([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert whiten(torch.tensor([1.0, 5.0])).tolist() == pytest.approx([-1.0, 1.0])


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=40))
def test_whitening_gives_mean_zero_and_spread_one(values):
    whitened = whiten(torch.tensor(values, dtype=torch.float64))
    assert math.isfinite(whitened.sum().item())
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    if max(values) - min(values) > 1e-3:
        assert whitened.pow(2).mean().item() == pytest.approx(1, rel=1e-3)
