"""Measure everything, or the parts that are named, and print tables, with the versions.

python -m tests.benchmarks [PART ...]
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from types import ModuleType

from simtune.cli import output
from tests.benchmarks import (
    compacting,
    following,
    loggers,
    reading,
    rolling,
    serving,
    tailing,
    trainers,
    updating,
)

PACKAGES = ("simtune", "msgspec", "pyarrow", "gymnasium", "torch", "transformers", "peft")


MEASURED = {
    "compacting": compacting,
    "tailing": tailing,
    "following": following,
    "reading": reading,
    "rolling": rolling,
    "updating": updating,
    "serving": serving,
}


def main(named: Sequence[str]) -> int:
    """Run the benchmarks that are named, or all; says on stderr how far it is."""
    parts: dict[str, Callable[[], None]] = {
        **{name: partial(_measured, [module]) for name, module in MEASURED.items()},
        "loggers": _loggers,
        "trainers": _trainers,
    }
    unknown = set(named) - parts.keys()
    if unknown:
        sys.stderr.write(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}\n")
        return 2
    started = time.perf_counter()
    if named:
        for name in named:
            parts[name]()
    else:
        _measured(list(MEASURED.values()))
        _loggers()
        _trainers()
    output.line(f"{_machine()}; took {time.perf_counter() - started:.0f} s")
    output.line(f"python {platform.python_version()}, {_versions()}")
    return 0


def _measured(modules: Sequence[ModuleType]) -> None:
    rows = []
    for part in modules:
        for measured in part.measure():
            sys.stderr.write(f"{measured.what}: {measured.median:.4g} {measured.unit}\n")
            rows.append(measured)
    output.table(["measured", "unit", "median", "worst", "runs"], rows)
    output.line("worst: 99th percentile of times, slowest run of rates")
    output.line()


def _loggers() -> None:
    output.table(loggers.Cost._fields, list(loggers.costs()))
    output.line("median, p99: microseconds of the caller; ratio: of medians, to simtune-buffered;")
    output.line("cpu: microseconds of the whole process until all is in its files; bytes: on disk")
    output.line()


def _trainers() -> None:
    compared = trainers.compare()
    output.table(trainers.Walked._fields, compared.walked)
    output.line(
        "grid walk to 90 % of the last 256 episodes: seconds of processor time, and decisions"
    )
    output.line()
    output.table(trainers.Read._fields, compared.read)
    output.line("10M model: tokens a second of processor time, one thread; memory in MB")
    output.line()
    output.table(trainers.Ratio._fields, compared.ratios)
    output.line("simtune to the better peer in that measure; above 1 is better")
    output.line()


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, torch on {torch.get_num_threads()}, {device}"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
