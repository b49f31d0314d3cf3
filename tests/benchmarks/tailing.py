"""How long a captured decision takes to come out of a tail, and what waiting for one costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import simtune
from simtune.recording import seal
from simtune.store import compact, tail
from tests.benchmarks.decisions import FULL_ANSWER, FULL_PROMPT
from tests.benchmarks.measure import Measured, of_rates, of_times

DECISIONS = 400
PAUSE_SECONDS = 0.02
IDLE_SECONDS = 10.0
ROWS = 20_000
WRITER = f"""
import sys, time, simtune
sys.path.insert(0, ".")
from tests.benchmarks.decisions import FULL_ANSWER, FULL_PROMPT
simtune.configure(root=sys.argv[1])
with simtune.episode(env="bench") as episode:
    for number in range({DECISIONS}):
        time.sleep({PAUSE_SECONDS})
        episode.decision(FULL_PROMPT, FULL_ANSWER)
"""


def measure() -> Iterator[Measured]:
    """Latency from another process's capture to the batch, idle cost, rows per second."""
    with tempfile.TemporaryDirectory() as root:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, root])
        yield of_times("tail latency, buffered", "ms", list(_latencies(root)))
        writer.wait()
        following = tail(root, follow=True, timeout=IDLE_SECONDS)
        list(following)
        started = time.process_time()
        list(following)
        spent = time.process_time() - started
        yield of_rates("tail idle, of a core", "%", [100 * spent / IDLE_SECONDS])
        _fill(root)
        rates = {"log": _rates(root)}
        seal(root)
        compact(root)
        rates["parquet"] = _rates(root)
        for source, found in rates.items():
            yield of_rates(f"tail rows from {source}", "rows/s", found)


def _latencies(root: str) -> Iterator[float]:
    """Milliseconds; the clock is the monotonic one, which processes of a host share."""
    seen = 0
    for batch in tail(root, follow=True, timeout=60):
        now = time.monotonic_ns()
        for captured in batch.decisions["mono_ns"].to_pylist():
            yield (now - captured) / 1e6
            seen += 1
        if seen == DECISIONS:
            return


def _fill(root: str) -> None:
    with simtune.episode(env="bench", root=root) as episode:
        for _ in range(ROWS):
            episode.decision(FULL_PROMPT, FULL_ANSWER, reward=0.5)
    simtune.flush()


def _rates(root: str) -> list[float]:
    found = []
    for _ in range(3):
        started = time.process_time()
        rows = sum(batch.rows.num_rows for batch in tail(root))
        found.append(rows / (time.process_time() - started))
    return found
