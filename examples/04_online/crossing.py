"""The simulation of this example: a crossing of four roads. It knows nothing of simtune."""

import random

ROADS = ("north", "east", "south", "west")
TURNS = 2


class Crossing:
    """Each turn a car waits in one of the roads; a green light for it is worth 1."""

    def __init__(self, seed: int | None) -> None:
        self.chance = random.Random(seed)
        self.turn = self.right = 0
        self.road = self.chance.choice(ROADS)

    @property
    def over(self) -> bool:
        """Whether all turns are played."""
        return self.turn == TURNS

    @property
    def success(self) -> bool:
        """Whether every car was let through at once."""
        return self.right == TURNS

    def describe(self) -> str:
        """What a model is told."""
        return f"A car waits in the {self.road}. Green for?"

    def step(self, green: str) -> float:
        """Give one road green; returns the reward."""
        reward = float(green == self.road)
        self.right += green == self.road
        self.turn += 1
        self.road = self.chance.choice(ROADS)
        return reward
