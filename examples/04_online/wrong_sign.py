"""A reward with the wrong sign, such as anybody writes once: it counts the cars left waiting."""

import simtune
from simtune.hookspecs import RegisterReward


def left_waiting(episode: simtune.Episode) -> float:
    """How many turns gave green to an empty road."""
    return float(sum(decision.reward == 0 for decision in episode.decisions))


@simtune.hookimpl
def simtune_register_rewards(register: RegisterReward) -> None:
    """Tell simtune the name."""
    register("left_waiting", left_waiting, version="1")
