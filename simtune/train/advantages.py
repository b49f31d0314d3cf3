"""How much better a decision was than expected: advantages over decisions, not tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def turn_gae(
    rewards: Sequence[float],
    values: Sequence[float],
    *,
    final_value: float,
    gamma: float,
    gae_lambda: float,
) -> tuple[list[float], list[float]]:
    """Generalised advantage estimation over the decisions of one episode.

    delta_t = r_t + gamma * V_{t+1} - V_t and A_t = delta_t + gamma * lambda * A_{t+1}
    (Schulman et al. 2015, arXiv 1506.02438, eq. 11-16), with one step per decision however many
    tokens it has: credit does not decay over the words of an answer or of an observation.

    Args:
        rewards: reward of each decision, `[T]`.
        values: critic's value at the last prompt token of each decision, `[T]`.
        final_value: V after the last decision: 0 where the episode terminated, the critic's
            value of the next prompt where it was truncated (arXiv 1712.00378).
        gamma: discount per decision.
        gae_lambda: lambda per decision.

    Returns:
        Advantages `[T]` and returns (advantage + value, the critic's targets) `[T]`.
    """
    advantages = [0.0] * len(rewards)
    running = 0.0
    next_value = final_value
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_value - values[t]
        running = delta + gamma * gae_lambda * running
        advantages[t] = running
        next_value = values[t]
    returns = [advantage + value for advantage, value in zip(advantages, values, strict=True)]
    return advantages, returns


def whiten(values: torch.Tensor, *, epsilon: float = 1e-8) -> torch.Tensor:
    """Shift to mean 0 and scale to standard deviation 1 over the whole tensor.

    Call it on the global batch, never on a sample or a micro-batch: a batch of one has no
    spread, and whitening it would make a rating of 1 and a rating of 5 the same.

    Args:
        values: one number per decision, `[N]`, any N.
        epsilon: added to the standard deviation.

    Returns:
        `[N]`; finite for every N. A single value, or equal values, become zeros.
    """
    if values.numel() == 0:
        return values
    centred = values - values.mean()
    return centred / (centred.pow(2).mean().sqrt() + epsilon)
