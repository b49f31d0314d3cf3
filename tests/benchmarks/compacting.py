"""How many rows of the log become Parquet in a second, on one core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import simtune
from simtune.recording import seal
from simtune.store import compact
from tests.benchmarks.decisions import FULL_ANSWER, FULL_PROMPT
from tests.benchmarks.measure import Measured, of_rates

EPISODES = 500
DECISIONS = 20
RUNS = 3


def measure() -> Iterator[Measured]:
    """Full rows per second of `compact`, reading, sorting, compression and fsync included."""
    rates = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as root:
            for _ in range(EPISODES):
                with simtune.episode(env="bench", root=root) as episode:
                    for _ in range(DECISIONS):
                        episode.decision(FULL_PROMPT, FULL_ANSWER, reward=0.5)
            seal(root)
            report = compact(root)
        assert report.rows == EPISODES * (DECISIONS + 2)
        rates.append(report.rows / report.seconds)
    yield of_rates("compact full rows", "rows/s", rates)
