"""The PPO losses as pure functions of tensors.

Shapes: `N` action tokens of a batch, flat. `normalizer` is the number of action tokens of the
whole optimisation batch, so a sum over micro-batches or processes equals the loss of one batch.
"""

from __future__ import annotations

import torch


def policy_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    normalizer: float,
) -> torch.Tensor:
    """Clipped surrogate (arXiv 1707.06347, eq. 7), with separate bounds and dual clip.

    ratio = exp(logprobs - behaviour_logprobs); the loss of a token is
    -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A). With `dual_clip` = c and A < 0
    the loss is at most -c * A (arXiv 1912.09729, eq. 5); the separate upper bound is clip-higher
    (arXiv 2503.14476).

    Args:
        logprobs: of the policy being trained, `[N]`, with gradient.
        behaviour_logprobs: of the policy that sampled, `[N]`.
        advantages: of each token's decision, `[N]`.
        clip_low: distance below 1.
        clip_high: distance above 1.
        dual_clip: c > 1, or None to leave negative advantages unbounded.
        normalizer: divides the sum.

    Returns:
        Scalar.
    """
    ratio = (logprobs - behaviour_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss.sum() / normalizer


def value_loss(values: torch.Tensor, returns: torch.Tensor, *, normalizer: float) -> torch.Tensor:
    """Half squared error of the critic, summed over decisions `[D]` and divided."""
    return 0.5 * (values - returns).pow(2).sum() / normalizer


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Per-token estimate of KL(policy || reference) from sampled tokens, `[N]`.

    k3 = exp(d) - d - 1 with d = reference - policy: never negative, unbiased for samples of the
    policy (Schulman, "Approximating KL divergence"; gradients discussed in arXiv 2512.21852).
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1


def clip_fraction(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """Share of tokens whose ratio lies outside the clip range; scalar."""
    ratio = (logprobs - behaviour_logprobs).exp()
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return outside.float().mean()


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns); NaN where the returns do not vary."""
    variance = returns.var(unbiased=False)
    if returns.numel() < 2 or variance == 0:
        return float("nan")
    return float(1 - (returns - values).var(unbiased=False) / variance)
