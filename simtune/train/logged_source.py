"""PPO's episodes from logged data: a store, or a file of ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from simtune.data.decisions import DecisionRow, read_decisions
from simtune.data.samples import Sample, reasons
from simtune.data.selection import episodes_digest
from simtune.data.tokens import encode
from simtune.errors import DataError
from simtune.policy.local import LocalPolicy
from simtune.registry import DataSeen
from simtune.registry.record import RewardUsed
from simtune.train.actor_critic import ActorCritic
from simtune.train.advantages import whiten
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.options import PPOOptions
from simtune.train.reward_use import rewards_used, usable_episodes
from simtune.train.sources import Gathered, summary
from simtune.train.turns import Turn, collate

RECOMPUTE_BATCH = 64
"""Rows per pass when behaviour log-probabilities are recomputed."""


class LoggedSource:
    """The same logged episodes in every round."""

    def __init__(
        self, episodes: list[EpisodeTurns], metrics: dict[str, float], seen: DataSeen
    ) -> None:
        self._gathered = Gathered(episodes=episodes, metrics=metrics)
        self._seen = seen

    def gather(self, index: int) -> Gathered:
        """All of it; each round it is one round staler."""
        counts = {
            "staleness": float(index),
            "episodes_seen": float(len(self._gathered.episodes)),
            "decisions_seen": float(self._seen.decisions),
        }
        return Gathered(episodes=self._gathered.episodes, metrics=self._gathered.metrics | counts)

    def seen(self) -> DataSeen:
        """All of it."""
        return self._seen

    def state_dict(self) -> dict[str, Any]:
        """Which data it is."""
        return {"digest": self._seen.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make sure that the data is still the same.

        Raises:
            DataError: it is not.
        """
        if state["digest"] != self._seen.digest:
            raise DataError(
                "the data has changed since the run began, so it cannot go on exactly",
                expected=f"data with digest {state['digest']}",
                got=f"{self._seen.digest} in {self._seen.root}",
                fix="start a new run; --adapter continues from a registered adapter",
            )


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
