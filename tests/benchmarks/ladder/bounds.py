"""The worst and the best to be expected: random and oracle policies, and their exact values."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simtune.gym import TextEnv
from simtune.records import Messages


class RandomPolicy:
    """Any of the legal actions, uniformly: where the environment has a mask, within the mask."""

    decision = "choose"

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)

    def act(self, prompts: Sequence[Messages], choices: Sequence[Sequence[str]]) -> Sequence[str]:
        return [self._chance.choice(names) for names in choices]


def toward_goal(messages: Messages) -> str:
    """The oracle of the walks: along the row first, then along the column."""
    rows = [line.split(" ") for line in messages[-1]["content"].splitlines()]
    where = {cell: (r, c) for r, row in enumerate(rows) for c, cell in enumerate(row)}
    (row, column), (goal_row, goal_column) = where["P"], where["G"]
    if column != goal_column:
        return "left" if goal_column < column else "right"
    return "up" if goal_row < row else "down"


class TableOracle:
    """Value iteration over a toy-text environment's own transition table.

    It reads the same text as the model: each state is rendered once, and answered by its text.

    Args:
        env: FrozenLake or Taxi in a `TextEnv`.
        discount: below 1, so that short ways are better.
    """

    def __init__(self, env: TextEnv, *, discount: float) -> None:
        table: Any = env.unwrapped
        self.chances, self.rewards, self.ends = arrays(table.P)
        self.best = best_actions(self.chances, self.rewards, self.ends, discount)
        self._names: Mapping[str, str] = {}
        env.reset(seed=0)
        names = {}
        for state in range(len(self.best)):
            table.s = state
            names[env._render(state, table)] = env.action_names[self.best[state]]
        self._names = names

    def __call__(self, messages: Messages) -> str:
        return self._names[messages[-1]["content"]]

    def expected(self, starts: np.ndarray, turns: int, *, at_random: bool = False) -> float:
        """Exact undiscounted return from starts `[states]` within a number of turns."""
        states, actions = self.rewards.shape
        policy = np.full((states, actions), 1 / actions)
        if not at_random:
            policy = np.eye(actions)[self.best]
        going = (self.chances * (1 - self.ends)).reshape(states * actions, states)
        here, total = np.asarray(starts, dtype=float), 0.0
        for _ in range(turns):
            taken = here[:, None] * policy
            total += float((taken * self.rewards).sum())
            here = taken.reshape(-1) @ going
        return total


def arrays(table: Mapping[int, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A transition table as chances `[s, a, s']`, expected rewards `[s, a]`, ends `[s, a, s']`."""
    states, actions = len(table), len(table[0])
    chances = np.zeros((states, actions, states))
    ends = np.zeros((states, actions, states))
    rewards = np.zeros((states, actions))
    for state in range(states):
        for action in range(actions):
            for chance, after, reward, ended in table[state][action]:
                chances[state, action, after] += chance
                rewards[state, action] += chance * reward
                ends[state, action, after] = float(ended)
    return chances, rewards, ends


def best_actions(
    chances: np.ndarray, rewards: np.ndarray, ends: np.ndarray, discount: float
) -> np.ndarray:
    """Value iteration to a fixed point, then the first best action of each state."""
    going = chances * (1 - ends)
    values = np.zeros(len(rewards))
    while True:
        of_actions = rewards + discount * going @ values
        better = of_actions.max(1)
        if np.abs(better - values).max() < 1e-12:
            return (of_actions > better[:, None] - 1e-9).argmax(1)
        values = better
