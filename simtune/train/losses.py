"""The PPO losses as pure functions of tensors.

Shapes: `[N]` units of a batch (sampled tokens and chosen options), flat; `[K]` values. Losses
come per element; whoever sums them divides by a count of the whole optimisation batch, so that
the loss does not depend on how the batch is cut into micro-batches or processes.
"""

from __future__ import annotations

import torch


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> torch.Tensor:
    """Clipped surrogate (arXiv 1707.06347, eq. 7), with separate bounds and dual clip.

    ratio = exp(logprobs - old_logprobs); the loss of a unit is
    -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A). With `dual_clip` = c and A < 0
    the loss is at most -c * A (arXiv 1912.09729, eq. 5); the separate upper bound is clip-higher
    (arXiv 2503.14476).

    Args:
        logprobs: of the policy being trained, `[N]`, with gradient.
        old_logprobs: of the policy that the ratio is taken to, `[N]`.
        advantages: of each unit, `[N]`.
        clip_low: distance below 1.
        clip_high: distance above 1.
        dual_clip: c > 1, or None to leave negative advantages unbounded.

    Returns:
        `[N]`.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss


def importance_weights(
    proximal_logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, *, cap: float
) -> torch.Tensor:
    """min(rho, cap), rho = proximal / behaviour, for the decoupled form (arXiv 2505.24298, eq. 5).

    The behaviour policy sampled; the proximal one is the trainer's own before the round's first
    step, and the ratio that is clipped is taken to it. The weight corrects for the difference of
    the two, is truncated as in V-trace (arXiv 1802.01561), and carries no gradient.

    Args:
        proximal_logprobs: `[N]`.
        behaviour_logprobs: `[N]`.
        cap: largest weight.

    Returns:
        `[N]`, detached.
    """
    return (proximal_logprobs - behaviour_logprobs).detach().exp().clamp(max=cap)


def value_loss(
    values: torch.Tensor,
    returns: torch.Tensor,
    old_values: torch.Tensor,
    *,
    clip: float | None,
) -> torch.Tensor:
    """Half the squared error of the critic, `[K]`.

    With `clip`, a value may move from the one before the update by no more than that before its
    gradient ends: the larger of both errors counts (PPO's reference code; arXiv 2403.17031).
    """
    loss = (values - returns).pow(2)
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, (clipped - returns).pow(2))
    return 0.5 * loss


def kl_k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Per-unit estimate log(policy / reference) of KL(policy || reference), `[N]`.

    Unbiased for samples of the policy, of either sign. As a penalty it belongs into the reward:
    its own gradient in a loss would be zero in expectation (arXiv 2512.21852).
    """
    return logprobs - reference_logprobs


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Per-unit estimate of KL(policy || reference) from what the policy chose, `[N]`.

    k3 = exp(d) - d - 1 with d = reference - policy: never negative, unbiased for samples of the
    policy (Schulman, "Approximating KL divergence"; gradients discussed in arXiv 2512.21852).
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1


def outside_clip(ratio: torch.Tensor, *, clip_low: float, clip_high: float) -> torch.Tensor:
    """Which ratios lie outside the clip range, bool `[N]`."""
    return (ratio < 1 - clip_low) | (ratio > 1 + clip_high)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns); NaN where the returns do not vary."""
    variance = returns.var(unbiased=False)
    if returns.numel() < 2 or variance == 0:
        return float("nan")
    return float(1 - (returns - values).var(unbiased=False) / variance)
