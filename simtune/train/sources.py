"""What a source of PPO's episodes is, and what one round of it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from simtune.records import Episode
from simtune.registry import DataSeen
from simtune.train.episode_turns import EpisodeTurns


class Gathered(msgspec.Struct, kw_only=True):
    """One round's data.

    Attributes:
        episodes: what to learn from.
        metrics: return, success, length and roll-out speed; `staleness`, rounds of updates
            between the policy that sampled and the one that learns; `episodes_seen` and
            `decisions_seen` since the run began.
    """

    episodes: list[EpisodeTurns]
    metrics: dict[str, float]


class Source(Protocol):
    """Gives the episodes of each round, and says at the end what was used."""

    def gather(self, index: int) -> Gathered | None:
        """The episodes of round `index`; None where there will be no more of them."""

    def seen(self) -> DataSeen:
        """What was learned from so far, for the registry."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            DataError: the data is not what the checkpoint was made with.
        """

    def close(self) -> None:
        """Nothing will be gathered any more."""


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
