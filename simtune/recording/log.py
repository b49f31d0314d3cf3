"""The write-ahead log of one writer: which segment is written, and when the next one begins.

A chunk of frames is either wholly in its segment or is begun again in the next one: after a failed
write or sync the segment is cut back and given up, since the state of its pages is unknown. Where
cutting fails too, readers go by the first sequence number of the following segment.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from simtune.recording.segments import Segment, wal_directory


class Log:
    """The segments of one writer. Not thread-safe; its recorder's I/O lock is held.

    Every method raises OSError, and keeps nothing of a chunk that failed: the caller hands the
    same chunk in again.

    Args:
        root: directory of the store.
        writer: the writer's id.
        segment_bytes: size at which a segment is sealed.
        segment_seconds: age at which a segment is sealed.
    """

    def __init__(
        self, root: Path, writer: str, *, segment_bytes: int, segment_seconds: float
    ) -> None:
        self._directory = wal_directory(root)
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._segment: Segment | None = None
        self._next_segno = 0
        self._given_up = False

    def append(self, chunk: bytes, first_seq: int, *, sync: bool) -> None:
        """Write whole frames, and put them on stable storage where asked to."""
        segment = self._writable(first_seq)
        start = segment.size
        try:
            segment.write(chunk)
            if sync:
                segment.sync()
        except OSError:
            self._given_up = True
            with contextlib.suppress(OSError):
                segment.cut(start)
            raise

    def sync(self) -> None:
        """Put everything written so far on stable storage."""
        if self._segment is not None and not self._given_up:
            try:
                self._segment.sync()
            except OSError:
                self._given_up = True
                raise

    def rotate_if_due(self, next_seq: int) -> None:
        """Open the next segment, then seal this one, where it is large or old enough."""
        left = self.seconds_left()
        segment = self._segment
        if segment is None or self._given_up or left is None:
            return
        if left > 0 and segment.size < self._segment_bytes:
            return
        self._segment = self._open(segment.segno + 1, next_seq)
        segment.seal(next_seq)

    def seconds_left(self) -> float | None:
        """Time until the segment is due for its age; None while it holds nothing."""
        segment = self._segment
        if segment is None or segment.empty:
            return None
        return max(0.0, segment.opened + self._segment_seconds - time.monotonic())

    def seal(self, next_seq: int) -> None:
        """Seal the segment; a new one begins with the next chunk."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        if self._given_up:
            self._given_up = False
            segment.close()
        else:
            segment.seal(next_seq)

    def abandon(self) -> None:
        """Let go of the file without a seal: it is the parent process's."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _writable(self, first_seq: int) -> Segment:
        old = self._segment
        if old is not None and not self._given_up:
            return old
        segno = self._next_segno
        if old is not None and old.empty:
            # Replaced under its own name: a disk that stays full must not fill up with segments
            # that hold no record.
            segno = old.segno
        self._segment = self._open(segno, first_seq)
        self._given_up = False
        if old is not None:
            old.close()
        return self._segment

    def _open(self, segno: int, first_seq: int) -> Segment:
        self._directory.mkdir(parents=True, exist_ok=True)
        opened = Segment(self._directory, writer=self._writer, segno=segno, first_seq=first_seq)
        self._next_segno = segno + 1
        return opened
