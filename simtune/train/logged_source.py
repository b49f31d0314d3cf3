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
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import LocalPolicy
from simtune.registry import DataSeen
from simtune.registry.record import RewardUsed
from simtune.train import packing
from simtune.train.actor_critic import ActorCritic
from simtune.train.advantages import whiten
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.options import PPOOptions
from simtune.train.packing import Layout
from simtune.train.parallel import Processes
from simtune.train.reward_use import rewards_used, usable_episodes
from simtune.train.sources import Gathered, summary
from simtune.train.survey import logprobs_of
from simtune.train.turns import Turn

RECOMPUTE_TOKENS = 2048
"""Tokens computed at once when behaviour log-probabilities are recomputed."""


class LoggedSource:
    """The same logged episodes in every round.

    Args:
        episodes: usable ones.
        metrics: of the data.
        seen: what was read.
        policy: names the base model that log-probabilities are recomputed under.
        model: as training starts; gives log-probabilities where decisions lack them.
    """

    def __init__(
        self,
        episodes: list[EpisodeTurns],
        metrics: dict[str, float],
        seen: DataSeen,
        policy: LocalPolicy,
        model: ActorCritic,
    ) -> None:
        turns = [turn for episode in episodes for turn in episode.turns]
        missing = [turn for turn in turns if not turn.behaviour_logprobs]
        if missing:
            seen.recomputed = len(missing)
            seen.behaviour = recompute(missing, model, policy)
        self._gathered = Gathered(episodes=episodes, metrics=metrics)
        self._seen = seen
        present = adapter_sha256(model.policy)
        self._foreign = sum(turn.adapter != present for turn in turns) / len(turns)

    @property
    def behaviour(self) -> str:
        """Where the log-probabilities of the policy that sampled are from."""
        if not self._seen.recomputed:
            return "captured"
        return (
            f"{self._seen.recomputed} of {self._seen.decisions} decisions recomputed "
            f"under {self._seen.behaviour}"
        )

    def gather(self, index: int) -> Gathered:
        """All of it; each round it is one round staler.

        Decisions of other weights than those training started from count one round more, since
        how many updates lie between is not known.
        """
        counts = {
            "staleness": index + self._foreign,
            "episodes_seen": float(len(self._gathered.episodes)),
            "decisions_seen": float(self._seen.decisions),
        }
        return Gathered(episodes=self._gathered.episodes, metrics=self._gathered.metrics | counts)

    def seen(self) -> DataSeen:
        """All of it."""
        return self._seen

    def close(self) -> None:
        """Nothing is open."""

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


def store_source(options: PPOOptions, policy: LocalPolicy, model: ActorCritic) -> LoggedSource:
    """Complete captured episodes with token ids.

    Log-probabilities are the captured ones; where a decision has none they are recomputed under
    the model that training starts from, and the run's record says so.

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
    return LoggedSource(turns, summary(complete), seen, policy, model)


def ratings_source(options: PPOOptions, policy: LocalPolicy, model: ActorCritic) -> LoggedSource:
    """A file of rated answers: each row an episode of one decision.

    Ratings are whitened over the whole file, so 1 and 5 pull in different directions whatever
    the size of a minibatch. The file has no log-probabilities: they are computed under the model
    that training starts from, and the run's record says so.

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
    metrics = {"rating_mean": float(ratings.mean())}
    return LoggedSource(episodes, metrics, seen, policy, model)


def _rated_turn(row: DecisionRow, policy: LocalPolicy) -> Turn:
    ids = encode(policy.tokenizer, Sample(prompt=row.prompt, response=row.output))
    return Turn(
        prompt_ids=ids.prompt_ids, action_ids=ids.response_ids, temperature=policy.temperature
    )


def recompute(turns: Sequence[Turn], model: ActorCritic, policy: LocalPolicy) -> str:
    """Give turns the log-probabilities, and the adapter, of the model as it is.

    Args:
        turns: changed in place.
        model: as training starts.
        policy: names the base.

    Returns:
        The name of that model, for the run's record.
    """
    adapter = adapter_sha256(model.policy)
    entries = packing.prepare(turns)
    layout = Layout(
        budget=RECOMPUTE_TOKENS,
        packed=model.packs,
        pad_id=policy.pad_id,
        device=model.value_head.weight.device,
    )
    logprobs = logprobs_of(model, entries, layout, Processes()).tolist()
    for entry in entries:
        turn = entry.turn
        turn.behaviour_logprobs = logprobs[entry.unit : entry.unit + turn.units]
        turn.adapter = adapter
    return f"{policy.name} with adapter {adapter}"
