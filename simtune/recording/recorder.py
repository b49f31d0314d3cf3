"""The recorder: takes rows from any thread and brings them into the log of this process.

Rows are encoded on the caller's thread, since the simulation goes on to change its lists. A
buffer and one background thread do the I/O, every 20 ms.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from simtune.config import Config
from simtune.errors import BackpressureError, CaptureError
from simtune.recording.encoding import encode_row
from simtune.recording.frames import encode_frame
from simtune.recording.guard import report
from simtune.recording.log import Log
from simtune.recording.storable import with_dropped
from simtune.records import Row

FLUSH_SECONDS = 0.02
_LONGEST_RETRY_SECONDS = 1.0


class Recorder:
    """The writer of one store in this process; a forked child's is a new writer.

    Args:
        root: directory of the store.
        settings: durability, back-pressure and sizes; may be replaced at any time.
    """

    def __init__(self, root: Path, settings: Config) -> None:
        self.root = root
        self.settings = settings
        self.io = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.writer = os.urandom(8).hex()
        self._buffer = threading.Lock()  # taken after `io` where both are
        self._frames: list[bytes] = []
        self._waiting = 0  # bytes not yet with the operating system
        self._next_seq = 0
        self._dropped = 0
        self._unwritten = b""  # what the last write could not bring into the log
        self._unwritten_from = 0
        self._synced = 0
        self._error: OSError | None = None
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
        self._closed = False
        self._log = Log(
            self.root,
            self.writer,
            segment_bytes=self.settings.segment_bytes,
            segment_seconds=self.settings.segment_seconds,
        )

    def append(self, row: Row) -> str | None:
        """Take a row; returns its id, or None where back-pressure dropped it.

        Raises:
            BackpressureError: the buffer is full and the settings say `raise`.
            CaptureError: the log cannot be written and the settings say `raise`.
        """
        error, self._error = self._error, None
        self._surface(error)
        payload = encode_row(row)
        if not self._has_room(len(payload)):
            return None
        if self._dropped:
            payload = self._with_drop_count(row)
        with self._buffer:
            seq = self._next_seq
            self._next_seq = seq + 1
            frame = encode_frame(seq, payload)
            self._frames.append(frame)
            self._waiting += len(frame)
        durability = self.settings.durability
        if durability != "buffered" or self._closed:
            self._surface(self._try_write(through=seq, sync=durability == "disk"))
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
        except OSError as error:
            raise self._as_capture_error(error) from error

    def seal(self) -> None:
        """`flush`, and end the segment: a reader can take it; the next row begins a new one.

        Raises:
            CaptureError: as for `flush`.
        """
        try:
            self._write(sync=True)
            with self.io:
                self._log.seal(self._unwritten_from)
        except OSError as error:
            raise self._as_capture_error(error) from error

    def close(self) -> None:
        """`seal` at the end of the process; rows that still come are written one by one."""
        self._closed = True
        self._wake.set()
        try:
            self.seal()
        except CaptureError as error:
            report(error, may_raise=False)

    def begin_anew_in_child(self) -> None:
        """After a fork, in the child: leave buffer and segment to the parent, be a new writer."""
        self.io = threading.Lock()
        self._log.abandon()
        self._begin()

    def _has_room(self, size: int) -> bool:
        while self._waiting and self._waiting + size > self.settings.buffer_bytes:
            if self.settings.backpressure == "raise":
                raise BackpressureError(
                    f"{self._waiting} captured bytes wait to be written",
                    expected=f"at most {self.settings.buffer_bytes}",
                    fix='use backpressure="block" or "drop", or a larger buffer',
                )
            if self.settings.backpressure == "drop":
                with self._buffer:
                    self._dropped += 1
                return False
            error = self._try_write()
            if error is not None:
                self._surface(error)
                time.sleep(FLUSH_SECONDS)
        return True

    def _with_drop_count(self, row: Row) -> bytes:
        with self._buffer:
            dropped, self._dropped = self._dropped, 0
        return encode_row(with_dropped(row, dropped) if dropped else row)

    def _surface(self, error: OSError | None) -> None:
        if error is not None:
            report(self._as_capture_error(error))

    def _as_capture_error(self, error: OSError) -> CaptureError:
        wrapped = CaptureError(
            f"the log in {self.root} cannot be written: {error}",
            got=f"{self._waiting} bytes wait in memory and are tried again",
            fix="make room on the disk, or correct the directory's permissions",
        )
        wrapped.__cause__ = error
        return wrapped

    def _try_write(self, *, through: int | None = None, sync: bool = False) -> OSError | None:
        try:
            self._write(through=through, sync=sync)
        except OSError as error:
            return error
        return None

    def _write(self, *, through: int | None = None, sync: bool) -> None:
        """Bring what waits into the log.

        Whoever comes first does it for all who wait (group commit); `through` is the sequence
        number whose safety is enough for the caller.
        """
        with self.io:
            safe = self._synced if sync else self._unwritten_from
            if through is not None and through < safe:
                return
            with self._buffer:
                frames, self._frames = self._frames, []
                next_seq = self._next_seq
            chunk = self._unwritten = self._unwritten + b"".join(frames)
            if chunk or sync:
                self._log.append(chunk, self._unwritten_from, next_seq, sync=sync)
            self._unwritten, self._unwritten_from = b"", next_seq
            if sync:
                self._synced = next_seq
            with self._buffer:
                self._waiting -= len(chunk)
            self._log.rotate_if_due(next_seq)

    def _start_flusher(self) -> None:
        with self._buffer:
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
            wake.wait(self._log.seconds_left())
            time.sleep(retry)
            wake.clear()
            self._error = self._try_write() or self._error
            if self._error is None:
                retry = FLUSH_SECONDS
            else:
                retry = min(2 * retry, _LONGEST_RETRY_SECONDS)
                wake.set()
