"""What `@simtune.capture` costs the simulation's own thread, for each size and durability."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import get_args

import simtune
from simtune.config import Durability
from simtune.records import Messages
from tests.benchmarks.decisions import SIZES
from tests.benchmarks.measure import Measured, of_times

CALLS = {"buffered": 5000, "os": 5000, "disk": 200}
WARM_UP = 100


def measure() -> Iterator[Measured]:
    """Microseconds per decision: the decorated function's time less the bare one's."""
    for durability in get_args(Durability):
        for size, (prompt, answer) in SIZES.items():
            times = _added(prompt, answer, durability)
            yield of_times(f"capture a {size} decision, {durability}", "µs", times)


def _added(prompt: Messages, answer: str, durability: Durability) -> list[float]:
    def ask(messages: Messages) -> str:
        return answer

    calls = CALLS[durability]
    bare = statistics.median(_times(lambda: ask(prompt), calls))
    with tempfile.TemporaryDirectory() as root:
        simtune.configure(root=root, durability=durability)
        captured = simtune.capture(ask)
        with simtune.episode(env="bench"):
            times = _times(lambda: captured(prompt), calls)
        simtune.flush()
    return [one - bare for one in times]


def _times(call: Callable[[], object], calls: int) -> list[float]:
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(calls):
        started = perf_counter_ns()
        call()
        times.append((perf_counter_ns() - started) / 1000)
    return times
