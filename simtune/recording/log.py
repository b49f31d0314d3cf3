"""The write-ahead log of one writer: which segment is written, and when the next one begins.

A segment in which a write or a sync failed is given up, for the one that follows it. A chunk of
frames is wholly in the one or wholly in the other. After a failed sync nobody knows which pages
reached the disk, and asking again tells nothing: everything since the last good sync is written
again. What is given up is cut off; where that fails too, readers go by the first sequence number
of the following segment.
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
        self._safe_size = 0  # what the last good sync covered, of the segment
        self._safe_seq = 0
        self._given_up = False
        self._pages_lost = False

    def append(self, chunk: bytes, first_seq: int, next_seq: int, *, sync: bool) -> None:
        """Write whole frames, none at times, and put all of the log on stable storage if asked."""
        if self._segment is None and not chunk:
            return
        segment = self._writable(first_seq)
        start = segment.size
        try:
            segment.write(chunk)
            if sync:
                self._sync(segment, next_seq)
        except OSError:
            self._given_up = True
            with contextlib.suppress(OSError):
                segment.cut(start)
            raise

    def rotate_if_due(self, next_seq: int) -> None:
        """Open the next segment, then seal this one, where it is large or old enough."""
        left = self.seconds_left()
        segment = self._segment
        if segment is None or self._given_up or left is None:
            return
        if left > 0 and segment.size < self._segment_bytes:
            return
        self._sync(segment, next_seq)
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
        if self._segment is not None:
            segment = self._writable(next_seq)
            self._segment = None
            segment.seal(next_seq)

    def abandon(self) -> None:
        """Let go of the file without a seal: it is the parent process's."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _sync(self, segment: Segment, next_seq: int) -> None:
        try:
            segment.sync()
        except OSError:
            self._given_up = self._pages_lost = True
            raise
        self._safe_size, self._safe_seq = segment.size, next_seq

    def _writable(self, first_seq: int) -> Segment:
        """The segment to write to: the one in use, a first one, or one for one given up."""
        segment = self._segment
        if segment is None:
            segment = self._open(self._next_segno, first_seq)
        elif self._given_up:
            segment = self._replace(segment, first_seq)
        self._segment = segment
        return segment

    def _replace(self, old: Segment, next_seq: int) -> Segment:
        if not self._pages_lost:
            self._sync(old, next_seq)
        safe_size = self._safe_size
        # Nothing safe in it: replaced under its own name, so that a disk that stays full does not
        # fill up with segments that hold no record.
        segno = old.segno if safe_size == old.records_from else old.segno + 1
        new = self._open(segno, self._safe_seq, old.read_from(safe_size))
        with contextlib.suppress(OSError):
            old.cut(safe_size)
        old.close()
        return new

    def _open(self, segno: int, first_seq: int, content: bytes = b"") -> Segment:
        # Prompts and answers are nobody else's business; parents would ignore the mode.
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        opened = Segment(
            self._directory,
            writer=self._writer,
            segno=segno,
            first_seq=first_seq,
            content=content,
        )
        self._next_segno = segno + 1
        self._safe_size, self._safe_seq = opened.records_from, first_seq
        self._given_up = self._pages_lost = False
        return opened
