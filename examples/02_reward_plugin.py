"""A reward plugin: score captured episodes anew, without simulating again.

simtune score --store STORE --plugin examples/02_reward_plugin.py --reward junction.longer_queue

It is made for the episodes of 01_capture.py. Run by itself, it checks itself.
"""

import re
import sys
from itertools import pairwise

import simtune
from simtune.hookspecs import RegisterReward


def longer_queue(episode: simtune.Episode) -> list[float]:
    """1 for each decision that gave green to a longest queue; a list scores each decision."""
    return [float(_chose_longest(decision)) for decision in episode.decisions]


def steady(episode: simtune.Episode) -> float:
    """Minus the share of decisions that change the light; a number scores the whole episode."""
    roads = [decision.parsed for decision in episode.decisions if decision.valid]
    changes = sum(before != after for before, after in pairwise(roads))
    return -changes / max(1, len(roads) - 1)


def _chose_longest(decision: simtune.Decision) -> bool:
    if not decision.valid:
        return False
    found = re.findall(r"(\d+) cars (\w+)", decision.prompt[-1]["content"])
    waiting = {road: int(cars) for cars, road in found}
    if decision.parsed not in waiting:
        # Whatever a reward raises becomes a missing score with this text, never a 0.
        raise ValueError(f"not a decision of the junction: {decision.prompt[-1]['content']!r}")
    return waiting[decision.parsed] == max(waiting.values())


@simtune.hookimpl
def simtune_register_rewards(register: RegisterReward) -> None:
    """Tell simtune the names; raise a version when its meaning changes."""
    register("junction.longer_queue", longer_queue, version="1")
    register("junction.steady", steady, version="1")


if __name__ == "__main__":
    names = simtune.testing.check_plugin(sys.modules[__name__])
    print(f"nothing wrong with {', '.join(names)}")
