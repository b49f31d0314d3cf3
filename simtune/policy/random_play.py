"""Uniformly random play of an environment as conversations: words without any idea of good."""

from __future__ import annotations

import random
from collections.abc import Sequence

from simtune.errors import EnvironmentSpecError
from simtune.gym import TextEnv, make, rollout
from simtune.records import Messages


def conversations(env: str, *, count: int, seed: int = 0) -> list[Messages]:
    """Play at random; every decision becomes the prompt and one random action as the answer.

    Args:
        env: a gymnasium id or `module:callable`.
        count: how many conversations.
        seed: of the play; the first `count` seeds below 2**31 are kept away from training's.

    Raises:
        EnvironmentSpecError: the environment has no named actions.
    """
    text_env = make(env)
    if not isinstance(text_env, TextEnv):
        raise EnvironmentSpecError(
            f"{env!r} has no named actions to play at random", expected="a discrete action space"
        )
    names: Sequence[str] = text_env.action_names
    chance = random.Random(seed)
    made: list[Messages] = []
    first = 2**30 + seed * count
    while len(made) < count:
        episodes = rollout(
            text_env,
            lambda _: chance.choice(names),
            episodes=64,
            seed=first,
            capture=False,
        )
        first += 64
        made += [
            [*decision.prompt, {"role": "assistant", "content": decision.response}]
            for episode in episodes
            for decision in episode.decisions
        ]
    text_env.close()
    return made[:count]
