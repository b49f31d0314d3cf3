"""Whether the torch processes of this machine ask for more threads than it has cores.

Each torch process starts as many threads as there are cores, unless OMP_NUM_THREADS says
otherwise. On two cores, two such processes slow each other down five to ten times: the threads of
one wait at each other's barriers for cores that the other holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simtune.doctor.finding import Finding, ok, warning
from simtune.doctor.subject import Subject

PROC: Final = Path("/proc")
"""Where the kernel lists processes."""

_LIBRARY: Final = "libtorch_cpu.so"
_VARIABLE: Final = b"OMP_NUM_THREADS="


def check(subject: Subject) -> Iterator[Finding]:
    """Add up the threads of this user's processes that have torch loaded."""
    cores = len(os.sched_getaffinity(0))
    asked = {pid: threads or cores for pid, threads in _torch_processes()}
    if len(asked) > 1 and sum(asked.values()) > cores and max(asked.values()) > 1:
        several = sorted(pid for pid, threads in asked.items() if threads > 1)
        yield warning(
            "too-many-threads",
            f"{len(asked)} processes with torch run {sum(asked.values())} threads on {cores} "
            f"cores (more than one: {', '.join(map(str, several[:5]))}); on 2 cores two such "
            "processes were 5 to 10 times slower",
            f"export OMP_NUM_THREADS={max(1, cores // len(asked))} before each of them starts",
        )
    else:
        yield ok("threads", f"{len(asked)} processes with torch on {cores} cores")


def _torch_processes() -> Iterator[tuple[int, int | None]]:
    """Processes that have torch loaded, and the threads that their environment asks for."""
    for directory in PROC.iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid():
            continue
        try:
            if _LIBRARY in (directory / "maps").read_text(errors="replace"):
                yield int(directory.name), _threads((directory / "environ").read_bytes())
        except OSError:  # another user's, or gone meanwhile
            continue


def _threads(environment: bytes) -> int | None:
    for entry in environment.split(b"\0"):
        value = entry.removeprefix(_VARIABLE)
        if value != entry and value.isdigit():
            return int(value)
    return None
