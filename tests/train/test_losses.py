import math

import pytest
import torch

from simtune.train import losses

CLIP = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}


def loss_of(ratio, advantage, **changes):
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    (value,) = losses.policy_loss(
        new, torch.zeros(1), torch.tensor([advantage]), **(CLIP | changes)
    )
    value.backward()
    return value.item(), new.grad.item()


def test_inside_the_clip_range_the_loss_is_ratio_times_advantage():
    assert loss_of(1.1, 2.0) == (pytest.approx(-2.2), pytest.approx(-2.2))


def test_a_good_action_gains_nothing_above_one_plus_clip_high():
    assert loss_of(1.5, 2.0) == (pytest.approx(-2.56), 0.0)


def test_a_bad_action_gains_nothing_below_one_minus_clip_low():
    assert loss_of(0.5, -2.0) == (pytest.approx(1.6), 0.0)


def test_dual_clip_bounds_the_loss_of_a_bad_action():
    # ratio 10, A = -1: without it 10, with c = 3 it is 3 and carries no gradient.
    assert loss_of(10.0, -1.0) == (pytest.approx(3.0), 0.0)
    assert loss_of(10.0, -1.0, dual_clip=None) == (pytest.approx(10.0), pytest.approx(10.0))


def test_k3_by_enumeration_of_three_tokens():
    """Its mean over the policy's own samples is KL(policy || reference)."""
    policy = torch.tensor([0.7, 0.2, 0.1])
    reference = torch.tensor([0.5, 0.25, 0.25])
    exact = (policy * (policy / reference).log()).sum()
    estimate = (policy * losses.kl_k3(policy.log(), reference.log())).sum()
    assert estimate.item() == pytest.approx(exact.item(), abs=1e-6)
    assert losses.kl_k3(policy.log(), policy.log()).tolist() == [0, 0, 0]


def test_both_sides_of_the_clip_range():
    ratios = torch.tensor([0.5, 0.9, 1.0, 1.27, 1.4])
    outside = losses.outside_clip(ratios, clip_low=0.2, clip_high=0.28)
    assert outside.tolist() == [True, False, False, False, True]


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert losses.explained_variance(returns, returns) == pytest.approx(1.0)
    assert losses.explained_variance(torch.ones(3), returns) == pytest.approx(0.0)
    assert math.isnan(losses.explained_variance(torch.zeros(3), torch.ones(3)))


def test_value_loss_is_half_the_squared_error():
    values, returns = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    loss = losses.value_loss(values, returns, torch.zeros(2), clip=None)
    assert loss.tolist() == [0.5, 2.0]


def test_a_clipped_value_counts_where_it_is_further_off():
    # Old value 0, clip .2. At .5 with target 1: clipped to .2, error .8 counts, no gradient.
    # At -.5 with target 1: clipped to -.2, the unclipped error 1.5 counts.
    values = torch.tensor([0.5, -0.5], requires_grad=True)
    loss = losses.value_loss(values, torch.ones(2), torch.zeros(2), clip=0.2)
    assert loss.tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 1.5**2])
    loss.sum().backward()
    assert values.grad.tolist() == pytest.approx([0.0, -1.5])


def test_k1_by_enumeration_of_three_tokens():
    """Its mean over the policy's own samples is KL(policy || reference) too, of either sign."""
    policy = torch.tensor([0.7, 0.2, 0.1])
    reference = torch.tensor([0.5, 0.25, 0.25])
    exact = (policy * (policy / reference).log()).sum()
    estimate = losses.kl_k1(policy.log(), reference.log())
    assert (policy * estimate).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    assert estimate.tolist() == pytest.approx([0.33647, -0.22314, -0.91629], abs=1e-4)
