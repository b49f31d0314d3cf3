"""The reward that training learns from: a weighted sum of rewards, per decision."""

from __future__ import annotations

from collections.abc import Sequence

from simtune.records import Episode
from simtune.rewards.call import first_error, score_episode
from simtune.rewards.registration import select


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


def failures(specs: Sequence[str]) -> str | None:
    """Why these rewards first failed in this process: `water: KeyError: 'level'`, or None."""
    errors = {registered.name: first_error(registered) for registered, _ in select(specs)}
    said = [f"{name}: {error}" for name, error in errors.items() if error is not None]
    return "; ".join(said) or None
