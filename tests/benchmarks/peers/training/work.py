"""The work that every trainer does, and how it is counted; standard library only.

Two games. Both show text, take text, and put observations and answers one after another into the
prompt, as they are, with nothing in between.
"""

from __future__ import annotations

import ast
import gc
import json
import random
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

LORA_R = 8
LORA_ALPHA = 16
LORA_TARGET = "all-linear"

WINDOW = 256
"""Latest episodes among which success is counted."""

GOAL = 0.9
MOST_TURNS = 20_000
"""A run that has not got there by then has failed."""

Shown = tuple[str, dict[str, Any]]
Stepped = tuple[str, float, bool, bool, dict[str, Any]]


class Ended(NamedTuple):
    """An episode that ended: the order it was begun in, whether it succeeded, its decisions."""

    slot: int
    success: bool
    turns: int


class Tally:
    """Counts episodes by the batch, and processor time from `start` on.

    Short episodes end first, and those are the solved ones: within a batch the order is the one
    that episodes were begun in.
    """

    def __init__(self) -> None:
        self._open: list[Ended] = []
        self._won: list[bool] = []
        self.turns = 0
        self._started = time.process_time()

    def start(self) -> None:
        """Everything before this is loading, and what loading left behind is collected."""
        gc.collect()
        self._started = time.process_time()

    def ended(self, episode: Ended) -> None:
        """An episode of the batch under way."""
        self._open.append(episode)

    def commit(self) -> bool:
        """The batch is over and learned from; says whether the run can end."""
        self._won += [episode.success for episode in sorted(self._open)]
        self.turns += sum(episode.turns for episode in self._open)
        self._open.clear()
        return self.reached or self.turns >= MOST_TURNS

    @property
    def rate(self) -> float:
        """Share of successes in the window, counted once it is full."""
        latest = self._won[-WINDOW:]
        return sum(latest) / len(latest) if len(latest) == WINDOW else 0.0

    @property
    def reached(self) -> bool:
        """Whether the goal is."""
        return self.rate >= GOAL

    def found(self) -> dict[str, float]:
        """What a script prints."""
        return {
            "reached": float(self.reached),
            "cpu": time.process_time() - self._started,
            "turns": float(self.turns),
            "episodes": float(len(self._won)),
            "success": self.rate,
        }


class GridWalk:
    """Four cells in a row, five turns to reach a target that only the first observation names.

    Answers `1`, `2`, `3` go left, stay and go right; -0.1 a turn, 1 at the target, -1 out of
    turns. It is `agilerl.utils.probe_envs_llm.GridNavigationEnv`, counted.
    """

    characters = string.digits
    answers = ("1", "2", "3")
    max_turns = 5
    answer_tokens = 1

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._slot = self._position = self._target = self._turn = 0

    def reset(self, seed: int | None = None, **_: Any) -> Shown:
        """Position and target."""
        draw = random.Random(seed)
        self._slot = seed or 0
        self._position = draw.randrange(4)
        self._target = draw.choice([cell for cell in range(4) if cell != self._position])
        self._turn = 0
        return f"{self._position}{self._target}", {}

    def step(self, action: str) -> Stepped:
        """The new position."""
        self._turn += 1
        move = next((int(sign) - 2 for sign in str(action) if sign in "123"), 0)
        self._position = min(3, max(0, self._position + move))
        if self._position == self._target:
            return self._end(1.0, success=True)
        if self._turn == self.max_turns:
            return self._end(-1.0, success=False)
        return str(self._position), -0.1, False, False, {}

    def _end(self, reward: float, *, success: bool) -> Stepped:
        self._tally.ended(Ended(self._slot, success, self._turn))
        return str(self._position), reward, True, False, {"is_success": success}


class Reading:
    """Six turns of 40 random characters each, whatever is answered; a random reward at the end."""

    characters = "".join(chr(code) for code in range(32, 127))
    answers = tuple(string.ascii_lowercase)
    max_turns = 6
    answer_tokens = 8
    shown = 40
    episodes = 64

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._draw = random.Random(0)
        self._slot = self._turn = 0

    def reset(self, seed: int | None = None, **_: Any) -> Shown:
        """The first characters."""
        self._draw = random.Random(seed)
        self._slot = seed or 0
        self._turn = 0
        return self._text(), {}

    def step(self, action: str) -> Stepped:
        """The next ones."""
        self._turn += 1
        ended = self._turn == self.max_turns
        if ended:
            self._tally.ended(Ended(self._slot, False, self._turn))
        return self._text(), self._draw.random() if ended else 0.0, ended, False, {}

    def _text(self) -> str:
        return "".join(self._draw.choices(string.ascii_lowercase, k=self.shown))


class Throughput(NamedTuple):
    """One batch of `Reading`: roll-outs, and one pass over them.

    Attributes:
        sampled: tokens that were sampled.
        rollout_cpu: seconds of processor time of the roll-outs.
        row_tokens: tokens of all episodes, each counted once.
        update_cpu: seconds from collected episodes to changed weights.
    """

    sampled: int
    rollout_cpu: float
    row_tokens: int
    update_cpu: float

    def found(self) -> dict[str, float]:
        """What a script prints."""
        return {
            "rollout": self.sampled / self.rollout_cpu,
            "update": self.row_tokens / self.update_cpu,
            "sampled": float(self.sampled),
            "row_tokens": float(self.row_tokens),
        }


class Memory:
    """Resident memory of this process: what loading left, and the highest since then."""

    def __init__(self) -> None:
        # Sets the highest mark back to what is in use now.
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self.loaded = _resident("VmRSS")

    def found(self) -> dict[str, float]:
        """In MB."""
        peak = _resident("VmHWM")
        return {"peak_mb": peak, "above_loaded_mb": peak - self.loaded}


def _resident(name: str) -> float:
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines[name].split()[0]) / 1024


def single_thread() -> None:
    """Torch on one thread: processor time is then comparable."""
    import torch

    torch.set_num_threads(1)


def script(measure: Callable[..., dict[str, Any]]) -> None:
    """Run `measure(part, bases, seed, **options)` as a command; JSON on its last line."""
    _, part, bases, seed, *pairs = sys.argv
    given = dict(pair.split("=", 1) for pair in pairs)
    changed = {name: ast.literal_eval(value) for name, value in given.items()}
    found = measure(part, Path(bases), int(seed), **changed)
    sys.stdout.write("\n" + json.dumps(found) + "\n")
