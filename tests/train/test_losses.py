import math

import pytest
import torch

from simtune.train import losses

CLIP = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}


def loss_of(ratio, advantage, **changes):
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    value = losses.policy_loss(
        new, torch.zeros(1), torch.tensor([advantage]), normalizer=1.0, **(CLIP | changes)
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


def test_loss_does_not_depend_on_how_the_batch_is_cut():
    generator = torch.Generator().manual_seed(1)
    new, old, advantages = (torch.randn(12, generator=generator) for _ in range(3))
    whole = losses.policy_loss(new, old, advantages, normalizer=12, **CLIP)
    parts = [
        losses.policy_loss(new[a:b], old[a:b], advantages[a:b], normalizer=12, **CLIP)
        for a, b in ((0, 1), (1, 7), (7, 12))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_k3_by_enumeration_of_three_tokens():
    """Its mean over the policy's own samples is KL(policy || reference)."""
    policy = torch.tensor([0.7, 0.2, 0.1])
    reference = torch.tensor([0.5, 0.25, 0.25])
    exact = (policy * (policy / reference).log()).sum()
    estimate = (policy * losses.kl_k3(policy.log(), reference.log())).sum()
    assert estimate.item() == pytest.approx(exact.item(), abs=1e-6)
    assert losses.kl_k3(policy.log(), policy.log()).tolist() == [0, 0, 0]


def test_clip_fraction_counts_both_sides():
    ratios = torch.tensor([0.5, 0.9, 1.0, 1.27, 1.4])
    share = losses.clip_fraction(ratios.log(), torch.zeros(5), clip_low=0.2, clip_high=0.28)
    assert share.item() == pytest.approx(2 / 5)


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert losses.explained_variance(returns, returns) == pytest.approx(1.0)
    assert losses.explained_variance(torch.ones(3), returns) == pytest.approx(0.0)
    assert math.isnan(losses.explained_variance(torch.zeros(3), torch.ones(3)))


def test_value_loss_is_half_the_mean_squared_error():
    loss = losses.value_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0]), normalizer=2)
    assert loss.item() == pytest.approx((0.5 + 2.0) / 2)
