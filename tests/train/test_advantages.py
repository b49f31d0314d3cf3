import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from simtune.train.advantages import Trace, gae, group_relative, rloo, whiten


def one_gae(rewards, values, final_value=0.0, gamma=0.99, gae_lambda=0.9):
    trace = Trace(rewards=rewards, values=values, final_value=final_value)
    (estimate,) = gae([trace], gamma=gamma, gae_lambda=gae_lambda)
    return estimate


def test_two_steps_worked_by_hand():
    # gamma .99, lambda .9, V = (.5, .4), rewards (0, 1), terminated.
    # delta_1 = 1 + 0 - .4 = .6                          A_1 = .6
    # delta_0 = 0 + .99 * .4 - .5 = -.104                A_0 = -.104 + .99 * .9 * .6 = .4306
    estimate = one_gae([0, 1], [0.5, 0.4])
    assert estimate.advantages == pytest.approx([0.4306, 0.6])
    assert estimate.returns == pytest.approx([0.9306, 1.0])


def test_truncation_bootstraps_and_termination_does_not():
    cut = one_gae([0.0], [0.2], final_value=0.8, gamma=0.5, gae_lambda=1.0)
    ended = one_gae([0.0], [0.2], gamma=0.5, gae_lambda=1.0)
    assert cut.advantages == pytest.approx([0.2])  # 0 + .5 * .8 - .2
    assert ended.advantages == pytest.approx([-0.2])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(0, 1))
def test_lambda_one_is_the_discounted_return(rewards, gamma):
    """With lambda = 1 the critic cancels: A + V is the discounted sum of rewards."""
    values = [0.3 * i for i in range(len(rewards))]
    estimate = one_gae(rewards, values, gamma=gamma, gae_lambda=1.0)
    expected = sum(reward * gamma**t for t, reward in enumerate(rewards))
    assert estimate.returns[0] == pytest.approx(expected, abs=1e-6)


def traces(*episodes):
    return [Trace(rewards=r, values=[0.0] * len(r), group=group) for group, r in episodes]


def test_leave_one_out_by_hand():
    # Group a: returns 1, 0, 5; each minus the mean of the other two. Discount .5 on the second
    # step: (1, 8) returns 1 + .5 * 8 = 5, and both of its steps have its advantage.
    found = rloo(
        traces(("a", [1.0]), ("a", [0.0]), ("a", [1.0, 8.0]), ("b", [7.0])),
        gamma=0.5,
        gae_lambda=0.9,
    )
    assert [list(one.advantages) for one in found] == [[-1.5], [-3.0], [4.5, 4.5], [0.0]]


def test_group_relative_by_hand():
    # Returns 1, 2, 3: mean 2, deviation of the sample 1. A group without spread teaches nothing.
    found = group_relative(
        traces(("a", [1.0]), ("a", [2.0]), ("a", [3.0]), ("b", [4.0]), ("b", [4.0])),
        gamma=1.0,
        gae_lambda=0.9,
    )
    assert [one.advantages[0] for one in found] == [-1.0, 0.0, 1.0, 0.0, 0.0]


def test_whitening_small_batches_stays_finite():
    assert whiten(torch.tensor([])).tolist() == []
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]
    assert whiten(torch.tensor([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert whiten(torch.tensor([1.0, 5.0])).tolist() == pytest.approx([-1.0, 1.0])


@example([86.32924331108316] * 3)  # whose mean is not exactly the value
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=40))
def test_whitening_gives_mean_zero_and_spread_one(values):
    whitened = whiten(torch.tensor(values, dtype=torch.float64))
    assert math.isfinite(whitened.sum().item())
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    if max(values) - min(values) > 1e-3:
        assert whitened.pow(2).mean().item() == pytest.approx(1, rel=1e-3)
