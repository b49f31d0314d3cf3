"""Measure a policy in an environment, and compare two on the same seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from simtune import gym
from simtune.errors import OptionError
from simtune.eval.intervals import Interval, bootstrap_mean, paired_difference, wilson
from simtune.records import Episode


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy did over the episodes of consecutive seeds.

    Attributes:
        label: name of the policy.
        episodes: how many were played.
        seed: seed of the first; episode i has `seed + i`.
        success: share of episodes whose outcome says `success`, with Wilson's interval; None
            where the environment does not say.
        mean_return: mean undiscounted return, with a bootstrap interval.
        valid_rate: share of decisions whose answer could be parsed; None without decisions.
        decisions: how many decisions were made.
        returns: return of each episode, in order of seeds.
        successes: success of each episode, in order of seeds; empty where `success` is None.
    """

    label: str
    episodes: int
    seed: int
    success: Interval | None
    mean_return: Interval
    valid_rate: float | None
    decisions: int
    returns: list[float]
    successes: list[bool]


def evaluate(
    policy: Any,
    env: str | Callable[[], Any],
    *,
    episodes: int,
    seed: int = 0,
    label: str = "policy",
    num_envs: int = 32,
    history: int | str | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Evaluation:
    """Play episodes with a policy, capture nothing, and summarise them.

    Args:
        policy: a callable from messages to text, or an object with `act(prompts)`.
        env: a factory of environments, or a spec that `simtune.gym.build` understands.
        episodes: how many, at least one.
        seed: the same seed gives every policy the same episodes.
        label: name of the policy in tables.
        num_envs: environments stepped together.
        history: earlier turns in the chats; None leaves it to the environment.
        on_episode: called as each episode ends.

    Raises:
        OptionError: fewer than one episode.
        EnvironmentSpecError: the environment cannot be made or turned into text.
    """
    if episodes < 1:
        raise OptionError("an evaluation needs at least one episode", got=episodes)
    played = gym.rollout(
        env,
        policy,
        episodes=episodes,
        seed=seed,
        num_envs=min(num_envs, episodes),
        history=history,
        capture=False,
        on_episode=on_episode,
    )
    return summarise(played, seed=seed, label=label)


def summarise(played: list[Episode], *, seed: int, label: str) -> Evaluation:
    """Make an evaluation of episodes that were already played, in order of their seeds."""
    returns = [episode.total_reward for episode in played]
    successes = [episode.success for episode in played if episode.success is not None]
    known = len(successes) == len(played)
    valid = [decision.valid for episode in played for decision in episode.decisions]
    return Evaluation(
        label=label,
        episodes=len(played),
        seed=seed,
        success=wilson(sum(successes), len(played)) if known else None,
        mean_return=bootstrap_mean(returns, seed=seed),
        valid_rate=sum(valid) / len(valid) if valid else None,
        decisions=len(valid),
        returns=returns,
        successes=successes if known else [],
    )


def difference(first: Evaluation, second: Evaluation) -> Interval:
    """Mean return of the first minus the second, paired by seed.

    Raises:
        OptionError: they were not played on the same seeds.
    """
    if (first.seed, first.episodes) != (second.seed, second.episodes):
        raise OptionError(
            "only evaluations on the same seeds can be paired",
            got=f"{first.label}: {first.episodes} from {first.seed}; "
            f"{second.label}: {second.episodes} from {second.seed}",
        )
    return paired_difference(first.returns, second.returns, seed=first.seed)
