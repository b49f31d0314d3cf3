"""Curricula: options for each episode, by how far the play has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from simtune.errors import OptionError
from simtune.gym.environments import named
from simtune.records import Episode

RECENT = 100
"""Episodes that the statistics are about."""

Curriculum: TypeAlias = Callable[[int, Mapping[str, float]], Mapping[str, Any] | None]
"""`(index, stats) -> options` for the `reset` of episode `index`; None for no options."""


class Progress:
    """What has been played so far.

    Attributes:
        episodes: finished episodes.
    """

    def __init__(self) -> None:
        self.episodes = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def add(self, episode: Episode) -> None:
        """An episode ended."""
        self.episodes += 1
        self._recent.append((episode.total_reward, float(bool(episode.success))))

    def stats(self) -> dict[str, float]:
        """`episodes`, and the mean `return` and `success` of the last 100; 0 before the first."""
        count = len(self._recent) or 1
        returns, successes = zip(*self._recent, strict=True) if self._recent else ((), ())
        return {
            "episodes": float(self.episodes),
            "return": sum(returns) / count,
            "success": sum(successes) / count,
        }

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"episodes": self.episodes, "recent": [list(one) for one in self._recent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.episodes = state["episodes"]
        self._recent = deque(map(tuple, state["recent"]), maxlen=RECENT)


def load_curriculum(spec: str) -> Curriculum:
    """A curriculum by name.

    Args:
        spec: `module:function`.

    Raises:
        OptionError: there is no such function.
    """
    if ":" not in spec:
        raise OptionError(f"no curriculum {spec!r}", expected="module:function", got=spec)
    curriculum: Curriculum = named(spec, "a function (index, stats) -> options")
    return curriculum
