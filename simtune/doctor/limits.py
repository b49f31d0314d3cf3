"""Limits of this process that many environments and loaders run into."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Final

from simtune.doctor.finding import Finding, note, ok, size, warning
from simtune.doctor.subject import Subject

_DESCRIPTORS: Final = 1024
_WANTED: Final = 4096
_SHARED: Final = 256 * 1024**2


def check(subject: Subject) -> Iterator[Finding]:
    """Look at open files and shared memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    findings = [*_descriptors(soft, hard), *_shared()]
    yield from findings
    if not findings:
        yield ok("limits", f"{soft:,} open files are allowed")


def _descriptors(soft: int, hard: int) -> Iterator[Finding]:
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        allowed = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
        yield warning(
            "few-descriptors",
            f"{soft} open files are allowed; each environment worker, log and server call needs "
            "some",
            f"ulimit -n {allowed}"
            + ("" if allowed > soft else ", after raising the hard limit in limits.conf"),
        )


def _shared() -> Iterator[Finding]:
    if not os.path.isdir("/dev/shm"):
        return
    found = os.statvfs("/dev/shm")
    total = found.f_blocks * found.f_frsize
    if total < _SHARED:
        yield note(
            "small-shared-memory",
            f"/dev/shm has {size(total)}: data loaders and several GPUs share memory through it",
            "docker run --shm-size=1g, or --ipc=host",
        )
