"""Which rewards training uses, and episodes with their rewards as turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from simtune.data.samples import reasons
from simtune.errors import DataError
from simtune.policy.local import LocalPolicy
from simtune.records import Episode
from simtune.registry.record import RewardUsed
from simtune.rewards.combining import combine, failures
from simtune.rewards.registration import select
from simtune.train.episode_turns import EpisodeTurns, episode_turns


def usable_episodes(
    episodes: Sequence[Episode],
    rewards: Sequence[str],
    policy: LocalPolicy,
    skipped: Counter[str],
) -> list[EpisodeTurns]:
    """Episodes as turns with their rewards; others are counted by reason.

    Raises:
        DataError: none is usable.
    """
    found = [usable_episode(episode, rewards, policy, skipped) for episode in episodes]
    usable = [made for made in found if made is not None]
    if not usable:
        failed = failures(rewards)
        raise DataError(
            "no episode is left for PPO",
            expected="complete episodes whose decisions carry token ids and log-probabilities",
            got=f"left out: {reasons(skipped)}" + (f"; {failed}" if failed else ""),
            fix="answer with simtune.Reply(text, token_ids=..., logprobs=...); or train sft",
        )
    return usable


def usable_episode(
    episode: Episode, rewards: Sequence[str], policy: LocalPolicy, skipped: Counter[str]
) -> EpisodeTurns | None:
    """An episode as turns with their rewards; None, counted by reason, where it is of no use."""
    per_decision = combine(list(rewards), episode)
    if per_decision is None:
        skipped["a reward failed"] += 1
        return None
    return episode_turns(episode, per_decision, policy.encode, skipped)


def rewards_used(specs: Sequence[str]) -> list[RewardUsed]:
    """Names, versions and weights of rewards, for the registry."""
    return [
        RewardUsed(name=registered.name, version=registered.version, weight=weight)
        for registered, weight in select(specs)
    ]
