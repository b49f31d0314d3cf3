"""Call one reward on one episode, guarded, and check what it returns."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import msgspec

from simtune import plugins
from simtune.errors import PluginError
from simtune.records import Episode
from simtune.rewards.registration import RegisteredReward


class ScoredEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """What one reward said about one episode.

    Attributes:
        episode_id: the episode.
        decisions: the score of each decision; all None where the reward scores whole episodes.
        score: the score of the episode: the reward's float, or the sum over the decisions;
            None where the reward failed or left a decision out.
        error: why there is no score.
        per_decision: the reward scores decisions, not whole episodes.
    """

    episode_id: str
    decisions: list[float | None]
    score: float | None
    error: str | None = None
    per_decision: bool = False


def score_episode(registered: RegisteredReward, episode: Episode) -> ScoredEpisode:
    """Score one episode with one reward; a failure is a missing score with its reason, never 0."""
    result, failure = plugins.call_guarded(
        registered.plugin, _hook(registered), _scores, registered, episode
    )
    unscored: list[float | None] = [None] * len(episode)
    if failure is not None or result is None:
        error = failure.error if failure is not None else "no result"
        return ScoredEpisode(
            episode_id=episode.episode_id, decisions=unscored, score=None, error=error
        )
    if isinstance(result, float):
        return ScoredEpisode(episode_id=episode.episode_id, decisions=unscored, score=result)
    known = [score for score in result if score is not None]
    missing = len(result) - len(known)
    return ScoredEpisode(
        episode_id=episode.episode_id,
        decisions=result,
        score=None if missing else math.fsum(known),
        error=f"{missing} of {len(result)} decisions were given no score" if missing else None,
        per_decision=True,
    )


def first_error(registered: RegisteredReward) -> str | None:
    """Why a reward first failed in this process: `ValueError: reason`."""
    for failure in plugins.first_failures():
        if (failure.plugin, failure.hook) == (registered.plugin, _hook(registered)):
            return failure.error
    return None


def _hook(registered: RegisteredReward) -> str:
    """The name under which failures of a reward are counted."""
    return f"reward {registered.name}"


def _scores(registered: RegisteredReward, episode: Episode) -> float | list[float | None]:
    """Call a reward and check what it returns; runs inside the guard."""
    result: Any = registered.reward(episode)
    # numpy and torch values, scalars among them, know their Python form.
    result = result.tolist() if hasattr(result, "tolist") else result
    if isinstance(result, numbers.Real):
        return _finite(result, "the episode")
    if isinstance(result, str | bytes) or not isinstance(result, Sequence):
        raise PluginError(
            "a reward must return a number or a sequence of numbers: got " + type(result).__name__
        )
    if len(result) != len(episode):
        raise PluginError(
            f"a reward returned {len(result)} scores for an episode of {len(episode)} decisions"
        )
    return [
        None if value is None else _finite(value, f"decision {index}")
        for index, value in enumerate(result)
    ]


def _finite(value: Any, of: str) -> float:
    if not isinstance(value, numbers.Real):
        raise PluginError(f"the score of {of} is not a number: got {type(value).__name__}")
    if not math.isfinite(value):
        raise PluginError(f"the score of {of} is not finite: got {float(value)}")
    return float(value)
