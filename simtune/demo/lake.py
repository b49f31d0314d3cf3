"""The demo's task: cross a frozen lake that is new every time; and who can do it without a model.

The heuristic and the oracle read the same messages as the model, nothing else.
"""

from __future__ import annotations

import random
from collections import deque

from simtune.gym import TextEnv
from simtune.gym.frozenlake import random_map
from simtune.records import Messages

MOVES = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
INSTRUCTIONS = "Walk to G."
MAX_STEPS = 16


def lake() -> TextEnv:
    """FrozenLake 4x4, not slippery, a new random map for every seed.

    It is cut after 16 steps, and an answer that names no move ends it.
    """
    return TextEnv(random_map(max_steps=MAX_STEPS), instructions=INSTRUCTIONS, max_invalid=1)


class RandomWalk:
    """Any of the four moves, uniformly."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def __call__(self, messages: Messages) -> str:
        """Answer one prompt."""
        return self._chance.choice(list(MOVES))


def heuristic(messages: Messages) -> str:
    """Walk towards the goal, right before down, and avoid only a hole that is next.

    It never looks further, so it walks into dead ends and goes back and forth there: mistakes
    that are systematic, which imitation copies and reward can mend.
    """
    around = _neighbours(messages)
    for move in ("right", "down", "left", "up"):
        if around[move] not in ("hole", "wall"):
            return move
    return "right"


def oracle(messages: Messages) -> str:
    """The first move of a shortest way to the goal, by breadth-first search on the map shown."""
    cells = _map(messages)
    size = len(cells)
    start = next((r, c) for r in range(size) for c in range(size) if cells[r][c] == "P")
    first: dict[tuple[int, int], str] = {start: ""}
    queue = deque([start])
    while queue:
        row, column = queue.popleft()
        if cells[row][column] == "G":
            return first[row, column]
        for move, (down, right) in MOVES.items():
            there = (row + down, column + right)
            inside = 0 <= there[0] < size and 0 <= there[1] < size
            if inside and there not in first and cells[there[0]][there[1]] != "H":
                first[there] = first[row, column] or move
                queue.append(there)
    return "right"


def _lines(messages: Messages) -> list[str]:
    lines: list[str] = messages[-1]["content"].splitlines()
    return lines


def _map(messages: Messages) -> list[list[str]]:
    rows = [line.split() for line in _lines(messages)]
    return rows[: len(rows[0])]


def _neighbours(messages: Messages) -> dict[str, str]:
    rows = _lines(messages)
    around = rows[len(rows[0].split())]
    pairs = (part.split() for part in around.split(", "))
    return {move: cell for move, cell in pairs}
