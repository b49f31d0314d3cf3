"""FrozenLake with a new random map for every seed, so that held-out seeds are held-out maps."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map

ID = "simtune/RandomFrozenLake-v0"


class RandomFrozenLake(FrozenLakeEnv):
    """Gymnasium's FrozenLake on a map that every `reset` draws anew.

    `reset(seed=s)` plays `generate_random_map(size=size, p=p, seed=s)`; a reset without a seed
    draws the map from `np_random`.

    Args:
        size: rows and columns of the map.
        p: share of cells that are ice; maps without a way to the goal are never drawn.
        slippery: whether a step may slide sideways.
        render_mode: as in FrozenLake.
    """

    def __init__(
        self,
        size: int = 4,
        p: float = 0.8,
        slippery: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.size = size
        self.p = p
        self.slippery = slippery
        first = generate_random_map(size=size, p=p, seed=0)
        super().__init__(render_mode=render_mode, desc=first, is_slippery=slippery)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw a map and stand on its start."""
        drawn_from = int(self.np_random.integers(2**31)) if seed is None else seed
        cells = generate_random_map(size=self.size, p=self.p, seed=drawn_from)
        # The transition table is gymnasium's own, taken from a lake made on that map.
        lake = FrozenLakeEnv(desc=cells, is_slippery=self.slippery)
        self.desc, self.P = lake.desc, lake.P
        self.initial_state_distrib = lake.initial_state_distrib
        start, info = super().reset(seed=seed, options=options)
        return start, info


gymnasium.register(ID, entry_point=f"{__name__}:RandomFrozenLake", max_episode_steps=20)


def random_map(
    size: int = 4,
    p: float = 0.8,
    slippery: bool = False,
    max_steps: int = 20,
    render_mode: str | None = None,
) -> gymnasium.Env[int, int]:
    """Make `RandomFrozenLake` with a time limit.

    Args:
        size: rows and columns of the map.
        p: share of cells that are ice.
        slippery: whether a step may slide sideways.
        max_steps: steps after which an episode is truncated.
        render_mode: as in FrozenLake.
    """
    return gymnasium.make(
        ID,
        size=size,
        p=p,
        slippery=slippery,
        render_mode=render_mode,
        max_episode_steps=max_steps,
        disable_env_checker=True,
    )
