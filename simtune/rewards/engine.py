"""Run rewards over episodes: for training (`combine`), and over a whole store (`score_store`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from simtune import store
from simtune.errors import DataError
from simtune.records import Episode
from simtune.rewards.call import ScoredEpisode, score_episode
from simtune.rewards.registration import RegisteredReward, collect, select
from simtune.store.scores import Score

__all__ = [
    "RegisteredReward",
    "RewardSummary",
    "ScoredEpisode",
    "collect",
    "combine",
    "score_episode",
    "score_store",
    "select",
]


def combine(specs: Sequence[str], episode: Episode) -> list[float] | None:
    """The weighted sum of rewards, per decision, as training uses it.

    A reward of the whole episode is given to its last decision, where the outcome is known.

    Args:
        specs: `NAME[=WEIGHT]` each; none means the environment's own reward.
        episode: an assembled episode.

    Returns:
        One number per decision, or None where a reward failed: the episode is to be left out.

    Raises:
        OptionError: an unknown name or a weight that is no number.
    """
    total = [0.0] * len(episode)
    for registered, weight in select(specs):
        scored = score_episode(registered, episode)
        if scored.score is None:
            return None
        if not scored.per_decision:
            if total:
                total[-1] += weight * scored.score
            continue
        for index, score in enumerate(scored.decisions):
            total[index] += weight * (score or 0.0)
    return total


