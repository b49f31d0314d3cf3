"""The simulation of these examples: a crossing of two roads. It knows nothing of simtune."""

import random

Messages = list[dict[str, str]]

ROADS = ("north", "east")
STEPS = 12


class Junction:
    """Every ten seconds one road gets green: four of its cars pass, and new cars come."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.waiting = {road: self.chance.randint(0, 9) for road in ROADS}

    def describe(self) -> str:
        """What a model is told."""
        return f"{self.waiting['north']} cars north, {self.waiting['east']} cars east. Green for?"

    def step(self, green: str | None) -> int:
        """Give one road green (None: neither); returns how many cars stand waiting afterwards."""
        for road in ROADS:
            left = self.waiting[road] - (4 if road == green else 0)
            self.waiting[road] = min(9, max(0, left) + self.chance.randint(0, 2))
        return sum(self.waiting.values())


def parse(answer: str) -> str:
    """The one road that an answer names."""
    named = [road for road in ROADS if road in answer.lower()]
    if len(named) != 1:
        raise ValueError(f"one of {', '.join(ROADS)} expected, got {answer!r}")
    return named[0]


def rule(messages: Messages) -> str:
    """What controls the crossing today: green for the longer queue."""
    north, east = (int(word) for word in messages[-1]["content"].split() if word.isdigit())
    return "north" if north >= east else "east"
