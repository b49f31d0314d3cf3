"""Capture next to other loggers: the same decisions, a process for each, one after another."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.peers.environment import interpreter

SCRIPT = Path(__file__).parent / "peers" / "logging_costs.py"
RUNS = 3
CALLS = {"mlflow": 200, "simtune-disk": 1000, "simtune-parquet": 50_000}
OTHERWISE = 10_000
OURS = ("simtune-buffered", "simtune-os", "simtune-disk", "simtune-parquet")
PEERS = ("json-lines", "opentelemetry", "mlflow", "minari")


class Cost(NamedTuple):
    """One logger on decisions of one size; medians of `RUNS` processes.

    Attributes:
        size: of the decisions, `small` or `full`.
        logger: which one; `simtune-parquet` is `simtune-buffered` and the compaction of it all.
        median: what a decision costs its caller, microseconds.
        p99: 99th percentile of the same.
        ratio: `median` over that of `simtune-buffered`.
        cpu: microseconds of the whole process until everything is in its files, a decision.
        bytes: on disk, a decision.
    """

    size: str
    logger: str
    median: float
    p99: float
    ratio: float
    cpu: float
    bytes: float


def costs() -> Iterator[Cost]:
    """Every logger on both sizes."""
    peers = interpreter("loggers.txt")
    for size in ("small", "full"):
        base = 0.0
        for logger in (*OURS, *PEERS):
            python = Path(sys.executable) if logger in OURS else peers
            runs = [_run(python, logger, size) for _ in range(RUNS)]
            found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            base = base or found["median"]
            yield Cost(size=size, logger=logger, ratio=found["median"] / base, **found)


def _run(python: Path, logger: str, size: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        calls = str(CALLS.get(logger, OTHERWISE))
        command = [str(python), "-W", "ignore", str(SCRIPT), logger, size, calls, directory]
        done = subprocess.run(command, check=True, capture_output=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found
