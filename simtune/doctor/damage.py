"""Files that are damaged, and compactions that were cut short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from simtune.doctor.finding import Finding, error, first_line, note, ok, warning
from simtune.doctor.locks import is_locked
from simtune.doctor.subject import Subject
from simtune.recording.segments import is_finished, wal_directory
from simtune.store.check_staging import check_staging
from simtune.store.layout import STAGING

_ABANDONED_SECONDS: Final = 60.0


def check(subject: Subject) -> Iterator[Finding]:
    """Tell of what could not be read, and of what lies about."""
    findings = [*_unreadable(subject), *_log(subject), *_staging(subject)]
    yield from findings
    if subject.sample.events and not findings:
        every = "simtune episodes verify reads every byte" if not subject.sample.whole else ""
        yield ok("damage", "; ".join(filter(None, ["what was read passes its checksums", every])))


def _unreadable(subject: Subject) -> Iterator[Finding]:
    sample = subject.sample
    for path, reason in sample.unreadable.items():
        yield error(
            "unreadable-part",
            first_line(reason),
            f"restore {path} from a copy, or move it out of the store to go on without its rows",
        )
    for name, reason in sample.damaged.items():
        yield error(
            "damaged-segment",
            f"{name}: {first_line(reason)}",
            f"simtune episodes compact {subject.option} keeps the rows before the damage and "
            "sets the segment aside",
        )


def _log(subject: Subject) -> Iterator[Finding]:
    directory = wal_directory(subject.local)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.suffix == ".damaged":
            yield warning(
                "set-aside-segment",
                f"{path.name}: rows before its damage were compacted, those behind are lost",
                f"rm {path} once you have looked at it",
            )
        elif path.suffix == ".new" and is_finished(path):
            age = time.time() - path.stat().st_mtime
            if age > _ABANDONED_SECONDS:
                yield note(
                    "unfinished-segment", f"{path.name}: its writer died early", f"rm {path}"
                )


def _staging(subject: Subject) -> Iterator[Finding]:
    if is_locked(subject.local / STAGING / "compactor.lock"):
        return
    compact = f"simtune episodes compact {subject.option}"
    for found in check_staging(subject.local):
        if found.code == "unfinished-compaction":
            yield warning(
                found.code, f"{found.path}: a compaction was cut short; no row is lost", compact
            )
        elif found.code == "orphan-staged":
            yield note(found.code, f"{found.path} {found.detail}", compact)
