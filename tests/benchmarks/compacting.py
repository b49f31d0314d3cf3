"""How many rows of the log become Parquet in a second of one core's time."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator

import simtune
from simtune.recording import seal
from simtune.store import compact
from tests.benchmarks.decisions import varied
from tests.benchmarks.measure import Measured, of_rates

EPISODES = 500
DECISIONS = 20
RUNS = 5


def measure() -> Iterator[Measured]:
    """Full rows per second of CPU time of `compact`: reading, sorting, compression and fsync.

    The first run, in which libraries are loaded, is not counted.
    """
    rates = [_rate(seed) for seed in range(RUNS + 1)]
    yield of_rates("compact full rows", "rows/CPU s", rates[1:])


def _rate(seed: int) -> float:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        for _ in range(EPISODES):
            with simtune.episode(env="bench", root=root) as episode:
                for _ in range(DECISIONS):
                    episode.decision(*varied(chance), reward=0.5)
        seal(root)
        started = time.process_time()
        report = compact(root)
        spent = time.process_time() - started
    assert report.rows == EPISODES * (DECISIONS + 2)
    return report.rows / spent
