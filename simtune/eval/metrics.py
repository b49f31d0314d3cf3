"""What an episode is worth: its success, its return, or what a reward plugin says of it."""

from __future__ import annotations

import math
from typing import Final

from simtune.errors import DataError, OptionError
from simtune.records import Episode
from simtune.rewards.combining import combine, failures
from simtune.rewards.registration import select

SUCCESS: Final = "success"
RETURN: Final = "return"
SUCCESS_RANGE: Final = (0.0, 1.0)


class Metric:
    """One number for an episode, and where in the episode it was earned.

    Args:
        name: `success` (1 or 0, as the outcome says), `return` (sum of the environment's own
            rewards), or the name of a reward.
        bounds: least and largest value that an episode can have, where the caller knows; of
            `success` it is known to be (0, 1).

    Raises:
        OptionError: no such reward, or bounds that are none.
    """

    def __init__(self, name: str, bounds: tuple[float, float] | None = None) -> None:
        if name not in (SUCCESS, RETURN):
            select([name])
        self.name = name
        self.bounds = SUCCESS_RANGE if name == SUCCESS and bounds is None else bounds
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise OptionError(
                "a range of scores begins below where it ends",
                expected="LOW HIGH, LOW < HIGH",
                got=" ".join(map(str, self.bounds)),
            )

    def score(self, episode: Episode) -> float | None:
        """The episode's value; None where it has none.

        Raises:
            DataError: it lies outside of the bounds that were stated.
        """
        if self.name == SUCCESS:
            value = None if episode.success is None else float(episode.success)
        elif self.name == RETURN:
            value = episode.total_reward
        else:
            credit = combine([self.name], episode)
            value = None if credit is None else math.fsum(credit)
        if value is not None and self.bounds is not None:
            self._check(value, episode)
        return value

    def credit(self, episode: Episode) -> list[float] | None:
        """The value shared among the decisions that earned it, `[T]`; None where it has none."""
        if self.name == SUCCESS:
            value = self.score(episode)
            if value is None or not episode.decisions:
                return None
            return [0.0] * (len(episode) - 1) + [value]
        if self.name == RETURN:
            return [decision.reward or 0.0 for decision in episode.decisions]
        return combine([self.name], episode)

    def explain(self) -> str:
        """Why an episode can have no value."""
        if self.name == SUCCESS:
            return "the outcome does not say `success`"
        return failures([self.name]) or "the reward gave no score"

    def _check(self, value: float, episode: Episode) -> None:
        assert self.bounds is not None
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise DataError(
                f"{self.name} of episode {episode.episode_id!r} lies outside of the stated range",
                expected=f"from {self.bounds[0]:g} to {self.bounds[1]:g}",
                got=f"{value:g}",
                fix="state a range that every episode keeps to: the guarantees rest on it",
            )
