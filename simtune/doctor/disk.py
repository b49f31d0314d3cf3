"""Whether the disk has room for what is captured, at the rate at which the store grows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simtune.doctor.finding import Finding, error, lasting, ok, size, warning
from simtune.doctor.subject import Subject

_FULL: Final = 64 * 1024**2
_LOW: Final = 1024**3
_LOW_SHARE: Final = 0.05
_LOW_OF_SHARE: Final = 20 * 1024**3
_SOON_SECONDS: Final = 86400.0
_INODES: Final = 1000
_GROWN: Final = 10 * 1000**2


def check(subject: Subject) -> Iterator[Finding]:
    """Compare what is free with what the last day brought."""
    root = subject.local.absolute()
    place = next((path for path in (root, *root.parents) if path.exists()), Path("/"))
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    share = found.f_bavail / max(1, found.f_blocks)
    rate = _growth(root)
    left = free / rate if rate else float("inf")
    seen = f"{size(free)} free ({100 * share:.3g} %) where {root} lies"
    if rate:
        seen += f"; the store grows by {size(rate * 3600)} an hour, which fills it in"
        seen += f" {lasting(left)}"
    fix = "make room, or move the store to a larger disk; simtune episodes compact makes " + (
        "less of the log"
    )
    if free < _FULL or (found.f_files and found.f_favail == 0):
        yield error("disk-full", f"{seen}; {found.f_favail:,} inodes are free", fix)
    elif (
        free < _LOW
        or (share < _LOW_SHARE and free < _LOW_OF_SHARE)
        or left < _SOON_SECONDS
        or (found.f_files and found.f_favail < _INODES)
    ):
        yield warning("disk-nearly-full", seen, fix)
    else:
        yield ok("disk", seen)


def _growth(root: Path) -> float:
    """Bytes a second that the last day's files brought; 0 where they are few."""
    now = time.time()
    stats = [
        path.stat()
        for pattern in ("wal/*.wal", "data/v1/*.parquet")
        for path in root.glob(pattern)
        if path.is_file()
    ]
    recent = [each for each in stats if now - each.st_mtime < _SOON_SECONDS]
    grown = sum(each.st_size for each in recent)
    if grown < _GROWN:
        return 0.0
    return grown / max(60.0, now - min(each.st_mtime for each in recent))
