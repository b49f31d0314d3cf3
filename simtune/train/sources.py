"""Where PPO's episodes come from: roll-outs in an environment, a store, or a file of ratings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from simtune.data.decisions import DecisionRow, read_decisions
from simtune.data.samples import Sample, reasons
from simtune.data.selection import episodes_digest
from simtune.data.tokens import encode
from simtune.errors import DataError
from simtune.policy.local import LocalPolicy
from simtune.records import Episode
from simtune.registry import DataSeen
from simtune.registry.record import RewardUsed
from simtune.rewards.engine import combine, failures
from simtune.rewards.registration import select
from simtune.train.actor_critic import ActorCritic
from simtune.train.advantages import whiten
from simtune.train.episode_turns import EpisodeTurns, episode_turns
from simtune.train.options import PPOOptions
from simtune.train.turns import Turn, collate

RECOMPUTE_BATCH = 64
"""Rows per pass when behaviour log-probabilities are recomputed."""


class Gathered(msgspec.Struct, kw_only=True):
    """One round's data.

    Attributes:
        episodes: what to learn from.
        metrics: return, success, length and roll-out speed.
    """

    episodes: list[EpisodeTurns]
    metrics: dict[str, float]


class Source(Protocol):
    """Gives the episodes of each round, and says at the end what was used."""

    def gather(self, index: int) -> Gathered:
        """The episodes of round `index`."""

    def seen(self) -> DataSeen:
        """What was learned from so far, for the registry."""


class EnvSource:
    """Rolls out the policy as it is now; every decision is captured into the store.

    Episode i of the run is reset with seed `seed * 1_000_000 + i`, so runs of different seeds
    see different episodes and a run can be repeated.
    """

    def __init__(self, options: PPOOptions, policy: LocalPolicy, run_id: str) -> None:
        self.options = options
        self.policy = policy
        self.run_id = run_id
        self.skipped: Counter[str] = Counter()
        self.episode_ids: list[str] = []
        self.decisions = 0

    def gather(self, index: int) -> Gathered:
        """Play this round's episodes.

        Raises:
            DataError: a reward failed on every one of them.
        """
        from simtune.gym import make, rollout

        options = self.options
        started = time.perf_counter()
        episodes = rollout(
            lambda: make(str(options.env), **options.env_arg),
            self.policy,
            episodes=options.episodes_per_iteration,
            seed=options.seed * 1_000_000 + index * options.episodes_per_iteration,
            num_envs=options.num_envs,
            root=options.capture_root,
            run_id=self.run_id,
        )
        seconds = time.perf_counter() - started
        turns = usable_episodes(episodes, options.reward, self.policy, self.skipped)
        self.episode_ids += [episode.episode_id for episode in episodes]
        self.decisions += sum(map(len, episodes))
        tokens = sum(len(d.token_ids) for episode in episodes for d in episode.decisions)
        metrics = summary(episodes) | {"rollout_tokens_per_s": tokens / seconds}
        return Gathered(episodes=turns, metrics=metrics)

    def seen(self) -> DataSeen:
        """The captured roll-outs."""
        return DataSeen(
            source="env",
            root=self.options.capture_root,
            digest=episodes_digest(self.episode_ids),
            episodes=len(self.episode_ids),
            decisions=self.decisions,
            rewards=rewards_used(self.options.reward),
            skipped=dict(self.skipped),
        )


class LoggedSource:
    """The same logged episodes in every round."""

    def __init__(
        self, episodes: list[EpisodeTurns], metrics: dict[str, float], seen: DataSeen
    ) -> None:
        self._gathered = Gathered(episodes=episodes, metrics=metrics)
        self._seen = seen

    def gather(self, index: int) -> Gathered:
        """All of it."""
        return self._gathered

    def seen(self) -> DataSeen:
        """All of it."""
        return self._seen


def store_source(options: PPOOptions, policy: LocalPolicy) -> LoggedSource:
    """Complete captured episodes with token ids and log-probabilities.

    Raises:
        DataError: none of the store's episodes has them; says why each was left out.
    """
    from simtune.store import read

    skipped: Counter[str] = Counter()
    complete = []
    for episode in read(str(options.store)).episodes():
        if episode.ended and not episode.aborted:
            complete.append(episode)
        else:
            skipped["unfinished or aborted"] += 1
    turns = usable_episodes(complete, options.reward, policy, skipped)
    seen = DataSeen(
        source="store",
        root=str(options.store),
        digest=episodes_digest(one.episode_id for one in turns),
        episodes=len(turns),
        decisions=sum(len(one.turns) for one in turns),
        rewards=rewards_used(options.reward),
        skipped=dict(skipped),
    )
    return LoggedSource(turns, summary(complete), seen)


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
    usable = []
    for episode in episodes:
        per_decision = combine(list(rewards), episode)
        if per_decision is None:
            skipped["a reward failed"] += 1
            continue
        made = episode_turns(episode, per_decision, policy.encode, skipped)
        if made is not None:
            usable.append(made)
    if not usable:
        failed = failures(rewards)
        raise DataError(
            "no episode is left for PPO",
            expected="complete episodes whose decisions carry token ids and log-probabilities",
            got=f"left out: {reasons(skipped)}" + (f"; {failed}" if failed else ""),
            fix="answer with simtune.Reply(text, token_ids=..., logprobs=...); or train sft",
        )
    return usable


def ratings_source(options: PPOOptions, policy: LocalPolicy, model: ActorCritic) -> LoggedSource:
    """A file of rated answers: each row an episode of one decision.

    Ratings are whitened over the whole file, so 1 and 5 pull in different directions whatever
    the size of a minibatch. The file has no log-probabilities: they are computed under the model
    that training starts from, and the record's parameter `behaviour_policy` says so.

    Raises:
        DataError: no rated row, or all ratings are equal: there is nothing to learn.
    """
    found = read_decisions(str(options.dataset_path))
    skipped = found.skip_counts()
    rated = [row for row in found.rows if row.rating is not None and row.output]
    if len(rated) < len(found.rows):
        skipped["unrated, or without an output"] += len(found.rows) - len(rated)
    ratings = torch.tensor([row.rating for row in rated], dtype=torch.float64)
    if len(rated) == 0 or bool((ratings == ratings[0]).all()):
        raise DataError(
            f"{Path(found.path).name!r} holds no ratings to learn from",
            expected="rows with different values of `rating` (or `reward`)",
            got=f"{len(rated)} rated rows, all equal" if rated else f"{reasons(skipped)}",
            fix="rate some answers higher than others; or train sft, which needs no ratings",
        )
    turns = [_rated_turn(row, policy) for row in rated]
    _recompute_logprobs(turns, model, pad_id=policy.pad_id)
    episodes = [
        EpisodeTurns(turns=[turn], rewards=[reward])
        for turn, reward in zip(turns, whiten(ratings).tolist(), strict=True)
    ]
    seen = DataSeen(
        source="file",
        root=found.path,
        digest=found.digest,
        decisions=len(rated),
        rewards=[RewardUsed(name="rating", version="1")],
        skipped=dict(skipped),
    )
    return LoggedSource(episodes, {"rating_mean": float(ratings.mean())}, seen)


def _rated_turn(row: DecisionRow, policy: LocalPolicy) -> Turn:
    ids = encode(policy.tokenizer, Sample(prompt=row.prompt, response=row.output))
    return Turn(
        prompt_ids=ids.prompt_ids, action_ids=ids.response_ids, temperature=policy.temperature
    )


@torch.no_grad()
def _recompute_logprobs(turns: Sequence[Turn], model: ActorCritic, *, pad_id: int) -> None:
    """Set each turn's behaviour log-probabilities to those of the model as it is."""
    device = model.value_head.weight.device
    for start in range(0, len(turns), RECOMPUTE_BATCH):
        some = turns[start : start + RECOMPUTE_BATCH]
        logprobs = iter(model(collate(some, pad_id=pad_id, device=device)).logprobs.tolist())
        for turn in some:
            turn.behaviour_logprobs = [next(logprobs) for _ in turn.action_ids]


def summary(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean return, success rate (where said) and length of episodes, and the valid share."""
    if not episodes:
        return {}
    decisions = [decision for episode in episodes for decision in episode.decisions]
    said = [episode.success for episode in episodes if episode.success is not None]
    metrics = {
        "return": sum(episode.total_reward for episode in episodes) / len(episodes),
        "length": len(decisions) / len(episodes),
    }
    if said:
        metrics["success"] = sum(said) / len(said)
    if decisions:
        metrics["valid"] = sum(decision.valid for decision in decisions) / len(decisions)
    return metrics


def rewards_used(specs: Sequence[str]) -> list[RewardUsed]:
    """Names, versions and weights of rewards, for the registry."""
    return [
        RewardUsed(name=registered.name, version=registered.version, weight=weight)
        for registered, weight in select(specs)
    ]
