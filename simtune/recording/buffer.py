"""Rows that a recorder has taken and that are not yet known to be in the log.

There is one state, changed by one assignment or one `append`: a Ctrl-C between any two
instructions leaves no gap in the sequence numbers and no number twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from simtune.errors import CaptureError
from simtune.recording.frames import encode_frame


class Buffer:
    """The frames that wait, in order of their sequence numbers, from 0.

    Attributes:
        size: bytes that wait.
        dropped: rows that were not taken, in all.
        unsaid: those of them that no record tells of.
    """

    def __init__(self) -> None:
        self.size = 0
        self.dropped = 0
        self.unsaid = 0
        self._lock = threading.RLock()
        self._busy = False
        self._batch: tuple[int, list[bytes]] = (0, [])

    def add(self, payload: bytes) -> int:
        """Take an encoded row; returns its sequence number.

        Raises:
            CaptureError: a signal handler captures, and has interrupted this very method.
        """
        with self._lock:
            if self._busy:
                raise _reentered()
            self._busy = True
            try:
                first, frames = self._batch
                seq = first + len(frames)
                frame = encode_frame(seq, payload)
                frames.append(frame)
                self.size += len(frame)
            finally:
                self._busy = False
        return seq

    def since(self, seq: int) -> tuple[bytes, int]:
        """All frames from a sequence number on, as bytes, and the number that follows them."""
        with self._exclusive():
            first, frames = self._batch
            waiting = frames[seq - first :]
        return b"".join(waiting), seq + len(waiting)

    def forget(self, seq: int) -> None:
        """The frames before this sequence number are in the log."""
        with self._exclusive():
            first, frames = self._batch
            waiting = frames[seq - first :]
            self._batch = (seq, waiting)
            self.size = sum(map(len, waiting))

    def drop(self) -> None:
        """A row was not taken."""
        with self._exclusive():
            self.dropped += 1
            self.unsaid += 1

    def say_dropped(self) -> int:
        """How many rows were dropped since this was last asked: a record is to tell of them."""
        with self._exclusive():
            unsaid, self.unsaid = self.unsaid, 0
        return unsaid

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._busy:
                raise _reentered()
            self._busy = True
            try:
                yield
            finally:
                self._busy = False


def _reentered() -> CaptureError:
    return CaptureError(
        "a signal handler captures while it interrupts capture itself",
        fix="let the handler set a flag, and capture where the simulation sees it",
    )
