"""The write-ahead log of one writer: which segment is written, and when the next one begins.

A segment in which a write or a sync failed is given up, for the one that follows it. A chunk of
frames is wholly in the one or wholly in the other. After a failed sync nobody knows which pages
reached the disk, and asking again tells nothing: everything since the last good sync is written
again. What is given up is cut off; where that fails too, readers go by the first sequence number
of the following segment.
"""

from __future__ import annotations

import contextlib
import errno
import io
import time
from pathlib import Path

from simtune.errors import CorruptError
from simtune.recording.directories import make_directory
from simtune.recording.frames import read_frames
from simtune.recording.segments import Segment, remove_abandoned, wal_directory


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
        self._next_seq = 0  # while there is no segment
        self._safe = (0, 0)  # size and next sequence number that the last good sync covered
        self._retired: Segment | None = None
        self._given_up = False
        self._pages_lost = False
        self.segno = -1

    @property
    def next_seq(self) -> int:
        """The rows before this number are in the log."""
        segment = self._segment
        return self._next_seq if segment is None else segment.end[1]

    @property
    def safe_seq(self) -> int:
        """The rows before this number are on stable storage."""
        return self._safe[1]

    def append(self, chunk: bytes, next_seq: int, *, sync: bool) -> None:
        """Write whole frames, none at times, and put all of the log on stable storage if asked.

        Args:
            chunk: the frames from `self.next_seq` on.
            next_seq: the sequence number that follows them.
            sync: whether to put the log on stable storage.
        """
        if not chunk and (self._segment is None or not sync):
            return
        segment = self._writable()
        try:
            if chunk:
                segment.write(chunk, next_seq)
        except OSError:
            self._given_up = True
            with contextlib.suppress(OSError):
                segment.cut(segment.size)
            raise
        if sync:
            self._sync(segment)

    def rotate_if_due(self) -> None:
        """Open the next segment, then seal this one, where it is large or old enough."""
        self._seal_retired()
        left = self.seconds_left()
        segment = self._segment
        if segment is None or self._given_up or left is None:
            return
        if left > 0 and segment.size < self._segment_bytes:
            return
        self._sync(segment)
        self._retired = segment
        self._segment = self._open(segment.segno + 1, segment.end[1])
        self._seal_retired()

    def seconds_left(self) -> float | None:
        """Time until the segment is due for its age; None while it holds nothing."""
        segment = self._segment
        if segment is None or segment.empty:
            return None
        return max(0.0, segment.opened + self._segment_seconds - time.monotonic())

    def seal(self) -> None:
        """Seal the segment; a new one begins with the next chunk."""
        if self._segment is not None:
            segment = self._writable()
            self._next_seq = segment.end[1]
            self._retired = segment
            self._segment = None
        self._seal_retired()

    def _seal_retired(self) -> None:
        """Seal what is no longer written to; also where a Ctrl-C came between."""
        retired = self._retired
        if retired is not None and retired is not self._segment:
            self._retired = None
            if not retired.closed:
                retired.seal()

    def abandon(self) -> None:
        """Let go of the file without a seal: it is the parent process's."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _sync(self, segment: Segment) -> None:
        end = segment.end
        try:
            segment.sync()
        except OSError:
            self._given_up = self._pages_lost = True
            raise
        self._safe = end

    def _writable(self) -> Segment:
        """The segment to write to: the one in use, a first one, or one for one given up."""
        segment = self._segment
        if segment is None:
            make_directory(self._directory)
            remove_abandoned(self._directory.parent)
            segment = self._open(self.segno + 1, self._next_seq)
        elif self._given_up:
            segment = self._replace(segment)
        self._segment = segment
        return segment

    def _replace(self, old: Segment) -> Segment:
        if not self._pages_lost:
            self._sync(old)
        safe_size, safe_seq = self._safe
        next_seq = old.end[1]
        unsafe = old.read_from(safe_size)
        if _count(unsafe, safe_seq) < next_seq - safe_seq:
            self._segment = self._open(old.segno + 1, next_seq)
            old.close()
            raise OSError(
                errno.EIO,
                f"up to {next_seq - safe_seq} records, not yet synced, can no longer be read; what "
                f"can be is in {old.path.name}",
            )
        # Nothing safe in it: replaced under its own name, so that a disk that stays full does not
        # fill up with segments that hold no record.
        segno = old.segno if safe_size == old.records_from else old.segno + 1
        new = self._open(segno, safe_seq, next_seq, unsafe)
        with contextlib.suppress(OSError):
            old.cut(safe_size)
        old.close()
        return new

    def _open(
        self, segno: int, first_seq: int, next_seq: int | None = None, content: bytes = b""
    ) -> Segment:
        opened = Segment(
            self._directory,
            writer=self._writer,
            segno=segno,
            first_seq=first_seq,
            next_seq=next_seq,
            content=content,
        )
        self.segno = segno
        self._safe = (opened.records_from, first_seq)
        self._given_up = self._pages_lost = False
        return opened


def _count(frames: bytes, first_seq: int) -> int:
    """How many sound frames these bytes begin with."""
    count = 0
    with contextlib.suppress(CorruptError):
        for _ in read_frames(io.BytesIO(frames), len(frames), first_seq, "the log"):
            count += 1
    return count
