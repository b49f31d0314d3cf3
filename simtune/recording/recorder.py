"""The recorder: takes rows from any thread and brings them into the log of this process.

Rows are encoded on the caller's thread, since the simulation goes on to change its lists. A
buffer and one background thread do the I/O, every 20 ms.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TypeAlias

import msgspec

from simtune.config import Config
from simtune.errors import BackpressureError, CaptureError, CompactorError, RecordSizeError
from simtune.recording.backlog import Backlog
from simtune.recording.buffer import Buffer
from simtune.recording.encoding import encode_row
from simtune.recording.guard import report
from simtune.recording.log import Log
from simtune.recording.storable import with_dropped
from simtune.records import Row

FLUSH_SECONDS = 0.02
_LONGEST_RETRY_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0  # before a caller who waits for the compactor is told so
_WriteError: TypeAlias = OSError | MemoryError


class RecorderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder holds and what it could not take.

    Attributes:
        root: directory of the store.
        writer: the writer's id.
        waiting_bytes: captured bytes in memory.
        backlog_bytes: bytes of log that wait for compaction, of all writers, as last seen.
        backlog_full: whether they exceed the limit.
        dropped: rows that back-pressure dropped, in all.
    """

    root: str
    writer: str
    waiting_bytes: int
    backlog_bytes: int
    backlog_full: bool
    dropped: int


class Recorder:
    """The writer of one store in this process; a forked child's is a new writer.

    Args:
        root: directory of the store.
        settings: durability, limits and back-pressure; may be replaced at any time, but a
            segment's size and age are those of the first settings.
    """

    def __init__(self, root: Path, settings: Config) -> None:
        self.root = root
        self.settings = settings
        self._begin()

    def _begin(self) -> None:
        self.writer = os.urandom(8).hex()
        self.io = threading.RLock()
        self._writing = False
        self._buffer = Buffer()
        self._news: dict[type[CaptureError], CaptureError] = {}  # for the next caller
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
        self._closed = False
        self._told_to_wait = False
        self._backlog = Backlog(self.root)
        self._log = Log(
            self.root,
            self.writer,
            segment_bytes=self.settings.segment_bytes,
            segment_seconds=self.settings.segment_seconds,
        )

    def append(self, row: Row) -> str | None:
        """Take a row; returns its id, or None where back-pressure dropped it.

        Raises:
            BackpressureError: the buffer or the log is full and the settings say `raise`.
            RecordSizeError: the row is larger than `record_bytes`.
            CaptureError: the log cannot be written and the settings say `raise`.
        """
        if self._news:
            self._tell()
        settings = self.settings
        payload = encode_row(row)
        size = len(payload)
        if size > settings.record_bytes:
            raise RecordSizeError(
                f"a row of kind {row.kind} is too large to be kept",
                expected=f"at most {settings.record_bytes} bytes (record_bytes)",
                got=size,
            )
        buffer = self._buffer
        crowded = self._backlog.full or buffer.size + size > settings.buffer_bytes
        if crowded and not self._has_room(size):
            return None
        if buffer.unsaid and (dropped := buffer.say_dropped()):
            payload = encode_row(with_dropped(row, dropped))
        seq = buffer.add(payload)
        if settings.durability != "buffered" or self._closed:
            self._surface(self._try_write(through=seq, sync=settings.durability == "disk"))
        if self._flusher is None:
            self._start_flusher()
        if not self._wake.is_set():
            self._wake.set()
        return f"{self.writer}-{seq}"

    def flush(self) -> None:
        """Everything taken so far is on stable storage on return.

        Raises:
            CaptureError: it is not; what could not be written is kept and tried again.
        """
        try:
            self._write(sync=True)
        except (OSError, MemoryError) as error:
            raise self._as_capture_error(error) from error

    def seal(self) -> None:
        """`flush`, and end the segment: a reader can take it; the next row begins a new one.

        Raises:
            CaptureError: as for `flush`.
        """
        try:
            self._write(sync=True, seal=True)
        except (OSError, MemoryError) as error:
            raise self._as_capture_error(error) from error

    def close(self) -> None:
        """`seal` at the end of the process; rows that still come are written one by one."""
        self._closed = True
        self._wake.set()
        try:
            self.seal()
        except CaptureError as error:
            report(error, may_raise=False)
        dropped = self._buffer.say_dropped()
        if dropped:
            unsaid = BackpressureError(f"the last {dropped} rows were dropped; no record says so")
            report(unsaid, may_raise=False)

    def begin_anew_in_child(self) -> None:
        """After a fork, in the child: leave buffer and segment to the parent, be a new writer."""
        self._log.abandon()
        self._begin()

    def status(self) -> RecorderStatus:
        """What this recorder holds and what it could not take."""
        return RecorderStatus(
            root=str(self.root),
            writer=self.writer,
            waiting_bytes=self._buffer.size,
            backlog_bytes=self._backlog.bytes,
            backlog_full=self._backlog.full,
            dropped=self._buffer.dropped,
        )

    def _has_room(self, size: int) -> bool:
        since = time.monotonic()
        while (excess := self._excess(size)) is not None:
            if self.settings.backpressure == "raise":
                raise excess
            if self.settings.backpressure == "drop":
                self._buffer.drop()
                return False
            error = None if self._backlog.full else self._try_write()
            self._surface(error)
            if self._news:
                self._tell()
            if error is not None or self._backlog.full:
                time.sleep(FLUSH_SECONDS)
            if time.monotonic() > since + _PATIENCE_SECONDS and not self._told_to_wait:
                self._told_to_wait = True
                warnings.warn(f"simtune waits for room: {excess}", RuntimeWarning, stacklevel=2)
        return True

    def _excess(self, size: int) -> BackpressureError | None:
        """What is over a limit, if anything is."""
        settings, waiting = self.settings, self._buffer.size
        if self._backlog.full and not self._closed:
            return BackpressureError(
                f"{self._backlog.bytes} bytes of log in {self.root} wait for compaction",
                expected=f"at most {settings.backlog_bytes} (backlog_bytes)",
                fix=f"run `simtune episodes compact --watch --store {self.root}`",
            )
        if waiting and waiting + size > settings.buffer_bytes:
            return BackpressureError(
                f"{waiting} captured bytes wait to be written",
                expected=f"at most {settings.buffer_bytes} (buffer_bytes)",
                fix='use backpressure="block" or "drop", or a larger buffer',
            )
        return None

    def _tell(self) -> None:
        news, self._news = self._news, {}
        for error in list(news.values()):  # the flusher may add to it
            report(error, may_raise=not isinstance(error, CompactorError))

    def _surface(self, error: _WriteError | None) -> None:
        if error is not None:
            report(self._as_capture_error(error))

    def _as_capture_error(self, error: _WriteError) -> CaptureError:
        wrapped = CaptureError(
            f"the log in {self.root} cannot be written: {str(error) or type(error).__name__}",
            got=f"{self._buffer.size} bytes wait in memory and are tried again",
            fix="make room on the disk, or correct the directory's permissions",
        )
        wrapped.__cause__ = error
        return wrapped

    def _try_write(self, *, through: int | None = None, sync: bool = False) -> _WriteError | None:
        try:
            self._write(through=through, sync=sync)
        except (OSError, MemoryError) as error:
            return error
        return None

    def _write(self, *, through: int | None = None, sync: bool = False, seal: bool = False) -> None:
        """Bring what waits into the log.

        Whoever comes first does it for all who wait (group commit); `through` is the sequence
        number whose safety is enough for the caller. Cut short anywhere, by an error or a Ctrl-C,
        it leaves what waits in the buffer and begins again where the log ends.
        """
        with self.io:
            if self._writing:
                raise OSError(errno.EDEADLK, "a signal handler has interrupted a write")
            self._writing = True
            try:
                log = self._log
                if through is not None and through < (log.safe_seq if sync else log.next_seq):
                    return
                chunk, next_seq = self._buffer.since(log.next_seq)
                log.append(chunk, next_seq, sync=sync)
                self._buffer.forget(log.next_seq)
                log.rotate_if_due()
                if seal:
                    log.seal()
                self._note(self._backlog.wrote(len(chunk), log.segno, self.settings))
            finally:
                self._writing = False

    def _note(self, error: CaptureError | None) -> None:
        if error is not None:
            self._news[type(error)] = error

    def _start_flusher(self) -> None:
        with self.io:
            if self._flusher is not None or self._closed:
                return
            self._flusher = threading.Thread(
                target=self._keep_flushing, args=(self._wake,), name="simtune-flusher", daemon=True
            )
        try:
            self._flusher.start()
        except RuntimeError:  # the interpreter is shutting down: no more threads
            self._closed = True
            self._surface(self._try_write())
        # A multiprocessing child ends without atexit, but runs its own finalizers.
        processes = sys.modules.get("multiprocessing.util")
        if processes is not None:
            processes.Finalize(None, self.close, exitpriority=0)

    def _keep_flushing(self, wake: threading.Event) -> None:
        retry = FLUSH_SECONDS
        while not self._closed:
            wake.wait(0.0 if self._backlog.full else self._log.seconds_left())
            time.sleep(retry)
            wake.clear()
            error = self._try_write() or self._make_room()
            if error is None:
                retry = FLUSH_SECONDS
            else:
                self._note(self._as_capture_error(error))
                retry = min(2 * retry, _LONGEST_RETRY_SECONDS)
                wake.set()

    def _make_room(self) -> _WriteError | None:
        """While the log is over its limit: let go of this segment, and see whether it still is."""
        if not self._backlog.look_due():
            return None
        try:
            self._write(sync=True, seal=True)
        except (OSError, MemoryError) as error:
            return error
        with self.io:
            self._note(self._backlog.look(self.settings))
        return None
