"""A store of a million rows: one episode of it, all of it, and how much memory that takes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Measured, of_rates, of_times
from tests.benchmarks.stores import make_store

ROWS = 1_000_000
LOOKUPS = 20
RUNS = 3

_SCAN = """
import json, resource, sys, time
from simtune.store import read
begun, what = time.process_time(), sys.argv[2]
store = read(sys.argv[1])
if what == "episodes":
    count = sum(len(episode) * 2 + 2 for episode in store.episodes())
elif what == "batches":
    count = sum(table.num_rows for table in store.batches())
else:
    count = store.sql("SELECT count(*) n FROM decisions WHERE reward = 0.5")["n"][0].as_py()
seconds = time.process_time() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([count / seconds, peak]))
"""


def measure() -> Iterator[Measured]:
    """Milliseconds of CPU for one episode, rows per second of CPU, peak memory in MB."""
    with tempfile.TemporaryDirectory() as directory:
        ids = make_store(Path(directory), rows=ROWS)
        yield of_times(
            f"one episode of {ROWS} rows, opening included", "ms", _lookups(directory, ids)
        )
        for what in ("episodes", "batches", "sql"):
            found = [_scan(directory, what) for _ in range(RUNS)]
            yield of_rates(f"{what} of {ROWS} rows", "rows/s", [rate for rate, _ in found])
            yield of_times(f"{what} of {ROWS} rows, peak memory", "MB", [mb for _, mb in found])


def _lookups(root: str, ids: list[str]) -> list[float]:
    from simtune.store import read

    read(root).episode(ids[0])  # what is imported and compiled once
    times = []
    for episode_id in random.Random(0).sample(ids, LOOKUPS):
        begun = time.process_time()
        read(root).episode(episode_id)
        times.append(1000 * (time.process_time() - begun))
    return times


def _scan(root: str, what: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, root, what], capture_output=True, text=True, check=True
    )
    rate, peak = json.loads(done.stdout)
    return rate, peak


def main() -> int:
    """Print each as it is measured."""
    for measured in measure():
        sys.stdout.write(f"{measured.what}: {measured.median:.4g} {measured.unit}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
