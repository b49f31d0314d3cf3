"""The same crossing as an environment, for the gate: `simtune eval --gate --env crossing_env:make`.

Its observations are the very texts that the simulations show, and `choices` are their options.
"""

from typing import Any

import gymnasium
from crossing import ROADS, Crossing
from gymnasium.spaces import Text


class CrossingEnv(gymnasium.Env[str, str]):
    """Text in, text out."""

    observation_space = Text(100)
    action_space = Text(100)
    choices = ROADS

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """A new episode; equal seeds show equal cars."""
        super().reset(seed=seed)
        self.crossing = Crossing(seed)
        return self.crossing.describe(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Give green."""
        reward = self.crossing.step(action)
        over = self.crossing.over
        info = {"success": self.crossing.success} if over else {}
        return self.crossing.describe(), reward, over, False, info


def make() -> CrossingEnv:
    """The environment."""
    return CrossingEnv()
