"""The rewards that come with simtune, registered through the same hook as anyone's."""

from __future__ import annotations

from simtune.errors import DataError
from simtune.hookspecs import RegisterReward, hookimpl
from simtune.records import Episode

PENALTY_PER_CHARACTER = 0.001


def environment(episode: Episode) -> list[float]:
    """What the simulation itself gave, decision by decision; a decision without one adds nothing.

    Raises:
        DataError: the simulation gave this episode no reward at all.
    """
    if all(decision.reward is None for decision in episode.decisions):
        raise DataError("the simulation gave no reward in this episode")
    return [decision.reward or 0.0 for decision in episode.decisions]


def success(episode: Episode) -> float:
    """1 where the outcome says `success`, 0 where it says there was none.

    Raises:
        DataError: the outcome does not say.
    """
    if episode.success is None:
        raise DataError("the episode's outcome does not say `success`")
    return float(episode.success)


def valid(episode: Episode) -> list[float]:
    """1 for each decision whose answer could be parsed, 0 for the others."""
    return [float(decision.valid) for decision in episode.decisions]


def length_penalty(episode: Episode) -> list[float]:
    """-0.001 for each character of each answer, so that weights read as points per 1000.

    Characters, not tokens: they are known for every decision and mean the same for every model.
    """
    return [-PENALTY_PER_CHARACTER * len(decision.response) for decision in episode.decisions]


@hookimpl
def simtune_register_rewards(register: RegisterReward) -> None:
    """Register the four of them."""
    register("environment", environment)
    register("success", success)
    register("valid", valid)
    register("length_penalty", length_penalty)
