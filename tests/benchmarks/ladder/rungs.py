"""Small environments that a learner has to climb one after the other.

One decision, the same answer always; one decision that depends on what is shown; several
decisions towards a goal on a line and on a grid; gymnasium's FrozenLake and Taxi. All are made as
`tests.benchmarks.ladder.rungs:NAME`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from simtune.gym import TextEnv

LETTERS = ("a", "b", "c", "d")
TARGET = 2
LINE_CELLS, LINE_TURNS = 4, 5
GRID_SIDE, GRID_TURNS = 4, 8


class Guess(gymnasium.Env[int, int]):
    """One decision among four letters; a reward of 1 for the right one.

    Args:
        shown: the letter is the observation; else it is `c`, and the observation says nothing.
    """

    observation_space = spaces.Discrete(len(LETTERS))
    action_space = spaces.Discrete(len(LETTERS))

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.target = TARGET

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw the letter."""
        super().reset(seed=seed)
        if self.shown:
            self.target = int(self.np_random.integers(len(LETTERS)))
        return self.target if self.shown else 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Guess; that is the end."""
        return self.target, float(action == self.target), True, False, {}


class Walk(gymnasium.Env[np.ndarray, int]):
    """Walk to a goal on a board; player and goal stand on different cells, drawn anew each time.

    A reward of 1 at the goal, which ends the episode. The limit of turns truncates it.

    Args:
        shape: rows and columns.
        turns: the limit.
        shaped: each step also gives 0.1 for coming closer, -0.1 for going away.

    `reset(options={"distance": d})` puts the goal at most d steps away.
    """

    def __init__(self, shape: tuple[int, int], turns: int, *, shaped: bool = False) -> None:
        self.shape = shape
        self.turns = turns
        self.shaped = shaped
        self.moves = ((0, -1), (0, 1)) if shape[0] == 1 else ((0, -1), (0, 1), (-1, 0), (1, 0))
        self.observation_space = spaces.MultiDiscrete([*shape, *shape])
        self.action_space = spaces.Discrete(len(self.moves))
        self.player = self.goal = (0, 0)
        self.left = turns

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the player's cell, then the goal's."""
        super().reset(seed=seed)
        cells = [(r, c) for r in range(self.shape[0]) for c in range(self.shape[1])]
        self.player = cells[int(self.np_random.integers(len(cells)))]
        most = (options or {}).get("distance", sum(self.shape))
        near = [cell for cell in cells if 0 < self._distance(cell) <= most]
        self.goal = near[int(self.np_random.integers(len(near)))]
        self.left = self.turns
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step; the border holds."""
        before = self._distance(self.goal)
        down, right = self.moves[action]
        self.player = (
            min(max(self.player[0] + down, 0), self.shape[0] - 1),
            min(max(self.player[1] + right, 0), self.shape[1] - 1),
        )
        self.left -= 1
        there = self.player == self.goal
        reward = float(there)
        if self.shaped:
            reward += 0.1 * (before - self._distance(self.goal))
        return self._seen(), reward, there, self.left == 0 and not there, {"success": there}

    def _distance(self, cell: tuple[int, int]) -> int:
        return abs(self.player[0] - cell[0]) + abs(self.player[1] - cell[1])

    def _seen(self) -> np.ndarray:
        return np.array([*self.player, *self.goal])


def one_turn() -> TextEnv:
    """Always answer `c`."""
    return TextEnv(Guess(shown=False), lambda seen, env: "guess", LETTERS, "Guess.", max_invalid=1)


def shown_target() -> TextEnv:
    """Answer the letter that is shown."""
    return TextEnv(
        Guess(shown=True), lambda seen, env: LETTERS[seen], LETTERS, "Repeat.", max_invalid=1
    )


def line_walk() -> TextEnv:
    """Four cells in a row, at most five turns: the task that peers were measured on."""
    walk = Walk((1, LINE_CELLS), LINE_TURNS)
    return TextEnv(walk, board, ("left", "right"), "Walk to G.", max_invalid=1)


def grid_walk(shaped: bool = False) -> TextEnv:
    """Four by four cells, at most eight turns; terminal reward, or one for every step."""
    walk = Walk((GRID_SIDE, GRID_SIDE), GRID_TURNS, shaped=shaped)
    return TextEnv(walk, board, ("left", "right", "up", "down"), "Walk to G.", max_invalid=1)


def frozen_lake(slippery: bool = False) -> TextEnv:
    """Gymnasium's FrozenLake-v1 4x4 on its own map."""
    lake = gymnasium.make("FrozenLake-v1", is_slippery=slippery)
    return TextEnv(lake, instructions="Walk to G.", max_invalid=1)


def slippery_lake() -> TextEnv:
    """The same lake, on which one step in three goes where it was meant to."""
    return frozen_lake(slippery=True)


def taxi() -> TextEnv:
    """Gymnasium's Taxi-v4; its action mask says what is legal."""
    return TextEnv(gymnasium.make("Taxi-v4"), instructions="Drive.", max_invalid=1)


def board(seen: np.ndarray, env: Any) -> str:
    """A row a line: P the player, G the goal, G alone where the player is there."""
    rows = [["."] * env.shape[1] for _ in range(env.shape[0])]
    rows[seen[0]][seen[1]] = "P"
    rows[seen[2]][seen[3]] = "G"
    return "\n".join(" ".join(cells) for cells in rows)
