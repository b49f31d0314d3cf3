"""A compactor that stays: finished log segments become Parquet files as they come."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from simtune.errors import DataError, OptionError, RemoteError
from simtune.recording.directories import make_directory
from simtune.store.compaction import CompactionReport, compact
from simtune.store.layout import STAGING
from simtune.store.roots import claimed

_LOCK: Final = "watch.lock"


def watch(
    root: str | Path,
    *,
    interval: float = 5.0,
    on_report: Callable[[CompactionReport], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Compact a store again and again, until `stop` is set or SIGTERM or SIGINT arrives.

    It ends after the file it is writing. Every pass in which anything was finished adds at least
    one Parquet file: a longer interval makes fewer and larger ones. Where it runs on the main
    thread the two signals are its own until it returns.

    Args:
        root: directory of the store; made where it does not exist.
        interval: seconds between two passes.
        on_report: called after each pass that moved segments or found new damage.
        stop: ends it from another thread.

    Raises:
        DataError: another process of this host watches the store, or the file system refused.
        OptionError: the interval is not positive.
    """
    if not interval > 0:
        raise OptionError("the interval is no time", expected="seconds above 0", got=interval)
    path = claimed(root).local
    ended = stop or threading.Event()
    damaged: set[str] = set()
    with _only_watcher(path), _signals_set(ended):
        while not ended.is_set():
            report = _pass(path, ended)
            if on_report is not None and (
                report.segments or not damaged.issuperset(report.damaged)
            ):
                on_report(report)
            damaged.update(report.damaged)
            ended.wait(interval)


def _pass(root: Path, ended: threading.Event) -> CompactionReport:
    """Compact once; a remote store that cannot be reached is tried again with the next pass."""
    try:
        return compact(root, stop=ended)
    except RemoteError as error:
        warnings.warn(str(error), stacklevel=3)
        return CompactionReport()


@contextmanager
def _only_watcher(root: Path) -> Iterator[None]:
    make_directory(root / STAGING)
    descriptor = os.open(root / STAGING / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            raise DataError(
                f"{root} already has a compactor that stays",
                expected="one a host",
                got=f"process {pid or 'unknown'}",
                fix="leave the work to it, or end it first",
            ) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _signals_set(ended: threading.Event) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
