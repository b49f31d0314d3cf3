"""PPO's episodes from a store that is being written: those of policies that are not too old."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from simtune.policy.local import LocalPolicy
from simtune.records import Episode
from simtune.registry import DataSeen
from simtune.train.actor_critic import ActorCritic
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.following import Following
from simtune.train.options import PPOOptions
from simtune.train.reward_use import usable_episode
from simtune.train.sources import Gathered
from simtune.train.staleness import staleness

NO_LOGPROBS = "no log-probabilities of the policy that sampled"
OTHER_TOKENIZER = "token ids that this model does not have"


class FollowedSource:
    """Each round is the next episodes that PPO can learn from.

    Args:
        options: of the run.
        following: the run's place in the store.
        policy: encodes what was not captured as ids.
        model: whose token ids they are.
    """

    behaviour = "captured"

    def __init__(
        self,
        options: PPOOptions,
        following: Following,
        policy: LocalPolicy,
        model: ActorCritic,
    ) -> None:
        self.following = following
        self._options = options
        self._policy = policy
        self._ids = model.policy.get_input_embeddings().num_embeddings
        self._made: dict[str, EpisodeTurns] = {}
        self._ages: list[int] = []

    def gather(self, index: int) -> Gathered | None:
        """Wait for a round of episodes; None where the following ends before there is one."""
        self._made, self._ages = {}, []
        found = self.following.round(index, self._unfit)
        if found is None:
            return None
        ages = {
            "staleness": statistics.fmean(self._ages),
            "staleness_max": float(max(self._ages)),
        }
        return Gathered(episodes=list(self._made.values()), metrics=found[1] | ages)

    def seen(self) -> DataSeen:
        """What was learned from since the run began."""
        return self.following.seen()

    def state_dict(self) -> dict[str, Any]:
        """The run's place in the store."""
        return self.following.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.following.load_state_dict(state)

    def close(self) -> None:
        """Nothing is open."""

    def _unfit(self, episode: Episode) -> str | None:
        """Why an episode is not learned from; one that is becomes turns here."""
        options = self._options
        ages, reason = staleness(episode, self.following.versions, options.max_staleness)
        if reason is not None:
            return reason
        skipped: Counter[str] = Counter()
        made = usable_episode(episode, options.reward, self._policy, skipped)
        if made is None:
            return next(iter(skipped))
        if not all(turn.behaviour_logprobs for turn in made.turns):
            return NO_LOGPROBS
        if self._strange(made):
            return OTHER_TOKENIZER
        self._made[episode.episode_id] = made
        self._ages += ages
        return None

    def _strange(self, episode: EpisodeTurns) -> bool:
        turns = [*episode.turns, *([] if episode.final is None else [episode.final])]
        return any(
            max((*turn.prompt_ids, *turn.action_ids), default=0) >= self._ids for turn in turns
        )
