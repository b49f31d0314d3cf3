"""What this machine computes with: GPUs that are visible and free, and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from simtune.doctor.finding import Finding, note, ok, size, warning
from simtune.doctor.subject import Subject

MEMINFO: Final = Path("/proc/meminfo")
"""The kernel's account of memory."""

_SECONDS: Final = 2.0
_USED: Final = 0.9
_MEMORY: Final = 1024**3


class _Gpu(NamedTuple):
    name: str
    total: int
    used: int


def check(subject: Subject) -> Iterator[Finding]:
    """Ask nvidia-smi and the kernel."""
    gpus = _gpus()
    available = _available()
    findings = [*_judged(gpus), *_memory(available)]
    yield from findings
    if not findings:
        shown = "; ".join(f"{g.name}, {size(g.total - g.used)} free" for g in gpus)
        yield ok(
            "devices",
            f"{shown or 'no NVIDIA GPU'}; {os.cpu_count()} cores, {size(available)} memory free",
        )


def _judged(gpus: list[_Gpu]) -> Iterator[Finding]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus and hidden in ("", "-1"):
        yield note(
            "hidden-gpu",
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides {len(gpus)} GPUs",
            "unset CUDA_VISIBLE_DEVICES",
        )
    for number, gpu in enumerate(gpus):
        if gpu.used > _USED * gpu.total:
            yield warning(
                "gpu-nearly-full",
                f"GPU {number} ({gpu.name}): {size(gpu.used)} of {size(gpu.total)} are in use",
                "nvidia-smi names the processes; --devices picks another GPU",
            )


def _memory(available: int) -> Iterator[Finding]:
    if available < _MEMORY:
        yield warning(
            "low-memory",
            f"{size(available)} of memory are available",
            "end what uses it (ps --sort=-rss aux), or train with a smaller --batch-size",
        )


def _gpus() -> list[_Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ("--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.rsplit(",", 2) for line in done.stdout.splitlines() if done.returncode == 0]
    return [
        _Gpu(name, int(total) * 1024**2, int(used) * 1024**2)
        for name, total, used in rows
        if total.strip().isdecimal() and used.strip().isdecimal()
    ]


def _available() -> int:
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _MEMORY
