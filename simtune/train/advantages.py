"""How much better a step was than expected: advantages of the steps of episodes.

A step is whatever credit moves over: a decision, or (for token-level estimators) a unit that the
policy chose. Tokens that nobody chose are no steps, so credit never decays over an observation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    import torch


_Relative: TypeAlias = Callable[[float, Sequence[float]], float]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One episode as an estimator sees it.

    Attributes:
        rewards: of each step, `[S]`.
        values: the critic's value of the state before each step, `[S]`; zeros without a critic.
        final_value: V after the last step: 0 where the episode terminated, the critic's value of
            the next prompt where it was truncated (arXiv 1712.00378).
        group: equal for episodes that began alike; of one episode alone where that is unknown.
    """

    rewards: Sequence[float]
    values: Sequence[float]
    final_value: float = 0.0
    group: str = ""


class Estimate(msgspec.Struct, frozen=True):
    """What an estimator says about one episode.

    Attributes:
        advantages: of each step, `[S]`.
        returns: the critic's target at each step, `[S]`; not read without a critic.
    """

    advantages: Sequence[float]
    returns: Sequence[float]


def gae(traces: Sequence[Trace], *, gamma: float, gae_lambda: float) -> list[Estimate]:
    """Generalised advantage estimation.

    delta_t = r_t + gamma * V_{t+1} - V_t and A_t = delta_t + gamma * lambda * A_{t+1}
    (Schulman et al. 2015, arXiv 1506.02438, eq. 11-16); the return is A_t + V_t.
    """
    return [_gae(trace, gamma, gae_lambda) for trace in traces]


def _gae(trace: Trace, gamma: float, gae_lambda: float) -> Estimate:
    advantages = [0.0] * len(trace.rewards)
    running = 0.0
    next_value = trace.final_value
    for t in reversed(range(len(trace.rewards))):
        delta = trace.rewards[t] + gamma * next_value - trace.values[t]
        running = delta + gamma * gae_lambda * running
        advantages[t] = running
        next_value = trace.values[t]
    returns = [a + v for a, v in zip(advantages, trace.values, strict=True)]
    return Estimate(advantages, returns)


def rloo(traces: Sequence[Trace], *, gamma: float, gae_lambda: float) -> list[Estimate]:
    """REINFORCE leave-one-out (arXiv 2402.14740, eq. 7): no critic.

    With G the discounted return of an episode, every step's advantage is G minus the mean G of
    the other episodes of its group; 0 where it is alone.
    """
    return _relative(traces, gamma, lambda own, g: (own - _mean(g)) * len(g) / (len(g) - 1))


def group_relative(traces: Sequence[Trace], *, gamma: float, gae_lambda: float) -> list[Estimate]:
    """Group-relative advantages (GRPO, arXiv 2402.03300, section 4.1.2): no critic.

    Every step's advantage is (G - mean) / standard deviation over the episode's group, with the
    deviation of a sample (n - 1); 0 where all returns of a group are equal.
    """

    def relative(own: float, group: Sequence[float]) -> float:
        mean = _mean(group)
        spread = math.sqrt(sum((g - mean) ** 2 for g in group) / (len(group) - 1))
        return (own - mean) / spread if spread > 0 else 0.0

    return _relative(traces, gamma, relative)


def _relative(traces: Sequence[Trace], gamma: float, relative: _Relative) -> list[Estimate]:
    returns = [sum(r * gamma**t for t, r in enumerate(trace.rewards)) for trace in traces]
    groups: dict[str, list[float]] = defaultdict(list)
    for trace, return_ in zip(traces, returns, strict=True):
        groups[trace.group].append(return_)
    estimates = []
    for trace, return_ in zip(traces, returns, strict=True):
        group = groups[trace.group]
        advantage = relative(return_, group) if len(group) > 1 else 0.0
        steps = len(trace.rewards)
        estimates.append(Estimate([advantage] * steps, [return_] * steps))
    return estimates


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def whiten(values: torch.Tensor, *, epsilon: float = 1e-8) -> torch.Tensor:
    """Shift to mean 0 and scale to standard deviation 1 over the whole tensor.

    Call it on the global batch, never on a sample or a micro-batch: a batch of one has no
    spread, and whitening it would make a rating of 1 and a rating of 5 the same.

    Args:
        values: one number per step, `[N]`, any N.
        epsilon: added to the standard deviation.

    Returns:
        `[N]`; finite for every N. A single value, or equal values, become zeros.
    """
    import torch

    if values.numel() == 0:
        return values
    centred = values - values.mean()
    spread = centred.pow(2).mean().sqrt()
    if spread <= 8 * torch.finfo(values.dtype).eps * values.abs().max():
        return torch.zeros_like(values)  # equal but for the rounding of their mean
    return centred / (spread + epsilon)
