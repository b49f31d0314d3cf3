"""How much log waits for compaction, and whether anyone compacts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simtune import config
from simtune.doctor.finding import Finding, error, first_line, lasting, note, of, ok, size, warning
from simtune.doctor.locks import is_locked
from simtune.doctor.subject import Subject
from simtune.recording.backlog import log_size
from simtune.recording.compactor import LOCK
from simtune.recording.segments import sealed_segments
from simtune.store.layout import STAGING

_NEAR: Final = 0.5
_COMPACTED_FROM: Final = 1 / 8
_WAITED_SECONDS: Final = 600.0


def check(subject: Subject) -> Iterator[Finding]:
    """Measure the log, and look at the locks of whoever compacts it."""
    if not subject.local.is_dir():
        return
    found = log_size(subject.local)
    limit = config.from_environment().backlog_bytes
    compact = f"simtune episodes compact {subject.option}"
    waiting = [path for path in sealed_segments(subject.local) if path.exists()]
    running = is_locked(subject.local / STAGING / "compactor.lock")
    findings = [
        *_limit(found.bytes, limit, compact),
        *_waiting(waiting, limit, compact, running),
        *_on_demand(subject.local / LOCK, compact),
    ]
    yield from findings
    if not findings:
        yield ok(
            "log",
            f"{found.segments} segments of log, {size(found.bytes)} of at most {size(limit)}; "
            f"{len(waiting)} finished ones await compaction"
            + (", which is running" if running else ""),
        )


def _limit(waiting: int, limit: int, compact: str) -> Iterator[Finding]:
    seen = f"{size(waiting)} of log wait: {of(waiting, limit)} bytes of the limit"
    if waiting >= limit:
        yield error("backlog-near-limit", f"{seen}; capture is held up or drops rows", compact)
    elif waiting >= _NEAR * limit:
        yield warning("backlog-near-limit", seen, f"{compact} --watch")


def _waiting(segments: list[Path], limit: int, compact: str, running: bool) -> Iterator[Finding]:
    """Finished segments that nobody is compacting."""
    stats = [path.stat() for path in segments]
    if not stats or running:
        return
    total = sum(each.st_size for each in stats)
    age = time.time() - min(each.st_mtime for each in stats)
    seen = (
        f"{len(stats)} finished segments of log, {size(total)}, are not compacted; the oldest is "
        f"{lasting(age)} old, and no compactor is running"
    )
    if total > _COMPACTED_FROM * limit:
        yield warning("log-waiting", seen, f"{compact} --watch, beside the simulations")
    elif age > _WAITED_SECONDS:
        yield note("log-waiting", f"{seen}; the next reader of the store compacts them", compact)


def _on_demand(lock: Path, compact: str) -> Iterator[Finding]:
    """What the compactor that captures start said last, where it said that it failed."""
    if not lock.is_file() or is_locked(lock):
        return
    lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    wrong = [line for line in lines if "error" in line.lower()]
    if wrong:
        yield warning(
            "compactor-failed",
            f"the compactor that capture started ended with {first_line(wrong[-1])!r} ({lock})",
            f"{compact} shows what hinders it",
        )
