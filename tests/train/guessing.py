"""The smallest environment with text: name the direction that is shown, twice."""

from __future__ import annotations

import gymnasium
from gymnasium.spaces import Text

from tests.train.conftest import DIRECTIONS


class Guessing(gymnasium.Env):
    """Reward 1 for each answer that holds the direction; success is a right last answer."""

    observation_space = Text(100)
    action_space = Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turn = 0
        self.shown = DIRECTIONS[int(self.np_random.integers(len(DIRECTIONS)))]
        return f"go {self.shown}", {}

    def step(self, action):
        self.turn += 1
        reward = float(self.shown in action)
        return f"go {self.shown}", reward, self.turn == 2, False, {"success": reward > 0}
