"""What a policy would earn, from decisions that other policies made: importance weighting.

Episode i has decisions t = 0…T_i-1 with rewards r_it. Under the policy in question decision t has
probability pi, under the one that made it mu, as captured:

    w_it = min(C, prod_{s <= t} pi(a_is) / mu(a_is))
    V    = sum_t  sum_i w_it r_it / sum_i w_it

which is per-decision importance sampling (Precup, Sutton and Singh 2000, "Eligibility traces for
off-policy policy evaluation") normalised in each step by the sum of the weights (Thomas 2015,
"Safe reinforcement learning", §3.10), the weights truncated at C (Ionides 2008, "Truncated
importance sampling"). An episode that ended keeps its last weight. Truncation and normalisation
each leave a bias that fades with n; both pull towards the policy that made the data.

How far the data carries is the effective sample size of the last weights (Kong 1992):

    ESS = (sum_i w_i)² / sum_i w_i²      of n episodes; n where both policies are the same.

Bounds of a difference of two such values are bootstrap quantiles over episodes (Thomas,
Theocharous and Ghavamzadeh 2015, "High confidence policy improvement", §3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from simtune.errors import OptionError
from simtune.eval.intervals import RESAMPLES, Interval

WEIGHT_CAP: Final = 20.0
_CHUNK = 2_000_000


class LoggedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode as several policies see it.

    Attributes:
        rewards: of each decision, `[T]`.
        log_ratios: for each policy in question, log pi - log mu of each decision, `[policies][T]`.
    """

    rewards: Sequence[float]
    log_ratios: Sequence[Sequence[float]]


class OffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Values of policies on the same logged episodes.

    Attributes:
        values: of each policy, `[policies]`.
        sizes: effective sample size of each, `[policies]`.
        capped: share of the episodes whose weight reached the cap, `[policies]`.
        difference: value of the first minus the second, each bound at the confidence on its own.
    """

    values: list[float]
    sizes: list[float]
    capped: list[float]
    difference: Interval


def importance_weights(log_ratios: Sequence[Sequence[float]], *, cap: float) -> np.ndarray:
    """Truncated cumulative weights, `[n, longest]`; the last one goes on where an episode ended."""
    longest = max(map(len, log_ratios))
    made = np.empty((len(log_ratios), longest))
    for row, ratios in enumerate(log_ratios):
        # Capped before the exponential, which would overflow; a ratio of -inf is a weight of 0.
        products = np.exp(np.minimum(np.cumsum(ratios), np.log(cap)))
        made[row] = np.concatenate([products, np.full(longest - len(ratios), products[-1])])
    return made


def effective_size(weights: np.ndarray) -> float:
    """Kong's effective sample size of weights `[n]`; 0 where all are 0."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def weighted_value(weights: np.ndarray, rewards: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """V where episode i is there `counts[b, i]` times.

    Args:
        weights: `[n, T]`.
        rewards: `[n, T]`, 0 after the end.
        counts: `[resamples, n]`.

    Returns:
        `[resamples]`; a step in which all weights are 0 adds nothing.
    """
    earned = counts @ (weights * rewards)
    carried = counts @ weights
    steps = np.divide(earned, carried, out=np.zeros_like(earned), where=carried > 0)
    return np.asarray(steps.sum(axis=1))


def evaluate_logged(
    episodes: Sequence[LoggedEpisode],
    *,
    cap: float = WEIGHT_CAP,
    confidence: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> OffPolicy:
    """Values of two policies on logged episodes, and bounds of their difference.

    Args:
        episodes: with log-ratios of both policies.
        cap: largest importance weight, C above.
        confidence: of each bound.
        seed: of the bootstrap.
        resamples: how many.

    Raises:
        OptionError: no episodes, or a cap below 1.
    """
    if not episodes or not cap >= 1:
        raise OptionError("logged episodes, and a cap of at least 1, are needed", got=cap)
    longest = max(len(one.rewards) for one in episodes)
    rewards = np.zeros((len(episodes), longest))
    for row, one in enumerate(episodes):
        rewards[row, : len(one.rewards)] = one.rewards
    weights = [
        importance_weights([one.log_ratios[policy] for one in episodes], cap=cap)
        for policy in range(2)
    ]
    once = np.ones((1, len(episodes)))
    values = [float(weighted_value(each, rewards, once)[0]) for each in weights]
    spread = _bootstrap(weights, rewards, seed=seed, resamples=resamples)
    low, high = np.quantile(spread, [1 - confidence, confidence])
    return OffPolicy(
        values=values,
        sizes=[effective_size(each[:, -1]) for each in weights],
        capped=[float((each[:, -1] >= cap).mean()) for each in weights],
        difference=Interval(values[0] - values[1], float(low), float(high)),
    )


def _bootstrap(
    weights: Sequence[np.ndarray], rewards: np.ndarray, *, seed: int, resamples: int
) -> np.ndarray:
    """Differences of the two values over resampled episodes, `[resamples]`."""
    generator = np.random.default_rng(seed)
    n = len(rewards)
    even = np.full(n, 1 / n)
    found = []
    done = 0
    while done < resamples:
        size = min(resamples - done, max(1, _CHUNK // n))
        counts = generator.multinomial(n, even, size=size).astype(np.float64)
        first, second = (weighted_value(each, rewards, counts) for each in weights)
        found.append(first - second)
        done += size
    return np.concatenate(found)
