"""Measure everything and print one table, with the versions it was measured with."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version

from simtune.cli import output
from tests.benchmarks import capturing, compacting, learning, loggers, rolling, tailing

PACKAGES = ("simtune", "msgspec", "pyarrow", "gymnasium", "torch", "transformers", "peft")


def main() -> int:
    """Run every benchmark; says on stderr how far it is."""
    started = time.perf_counter()
    rows = []
    for part in (capturing, compacting, tailing, rolling, learning):
        for measured in part.measure():
            sys.stderr.write(f"{measured.what}: {measured.median:.4g} {measured.unit}\n")
            rows.append(measured)
    output.table(["measured", "unit", "median", "worst", "runs"], rows)
    output.line("worst: 99th percentile of times, slowest run of rates")
    output.line()
    compared = list(loggers.costs())
    output.table(loggers.Cost._fields, compared)
    output.line("median, p99: microseconds of the caller; ratio: of medians, to simtune-buffered;")
    output.line("cpu: microseconds of the whole process until all is in its files; bytes: on disk")
    output.line()
    output.line(f"{_machine()}; took {time.perf_counter() - started:.0f} s")
    output.line(f"python {platform.python_version()}, {_versions()}")
    return 0


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, torch on {torch.get_num_threads()}, {device}"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
