"""The log while it is written: the rows of every writer, each frame once it is whole.

A writer's rows are asked for by sequence number. Its segment that holds a row is the last one
whose first sequence number is not above the row's: where a failed sync made a writer write
again, the later segment counts, and in the earlier one the same rows have the same bytes.
Nothing is kept open; a segment that compaction took away meanwhile is `missed`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from os import listdir
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from simtune.errors import CorruptError
from simtune.recording.encoding import UNREADABLE, decode_logged
from simtune.recording.frames import read_frames, read_header
from simtune.recording.segments import (
    SEGMENT_NAME,
    segment_header,
    segment_path,
)
from simtune.store.convert import Entry
from simtune.store.cursor import Position

_FRAME_HEADER: Final = 16
_READ_BUFFER: Final = 1 << 18


class Run(NamedTuple):
    """Rows of one writer, next to each other.

    Attributes:
        entries: the rows in order.
        position: where the writer stands once they are taken.
        size: their bytes in the log.
    """

    entries: list[Entry]
    position: Position
    size: int


class LiveLog:
    """What the log directory of a store held at the last `look`.

    Attributes:
        directory: where the segments lie; None where only files are followed.
        writers: the writers that have segments, and the numbers of these, rising.
        missed: a segment was gone when it was to be read; look again.
        unreadable: segments whose header cannot be read, and why; their rows are not seen.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._begins: dict[tuple[str, int], int] = {}
        self._seen: dict[str, tuple[int, int, int, int]] = {}
        self.writers: dict[str, list[int]] = {}
        self.missed = False
        self.unreadable: dict[Path, str] = {}

    def look(self, *, also: bool = False) -> None:
        """List the segments; `also` keeps those of the last look beside the ones found now."""
        if not also:
            self.writers, self.missed = {}, False
        names: list[str] = []
        if self.directory is not None:
            with contextlib.suppress(FileNotFoundError):
                names = listdir(self.directory)
        for match in filter(None, map(SEGMENT_NAME.fullmatch, names)):
            segnos = self.writers.setdefault(match["writer"], [])
            if int(match["segno"]) not in segnos:
                segnos.append(int(match["segno"]))
        for segnos in self.writers.values():
            segnos.sort()
        known = {(writer, segno) for writer, segnos in self.writers.items() for segno in segnos}
        self._begins = {key: seq for key, seq in self._begins.items() if key in known}
        self._seen = {
            writer: state for writer, state in self._seen.items() if writer in self.writers
        }

    def path(self, writer: str, segno: int) -> Path:
        """Where a segment lies."""
        assert self.directory is not None  # where there is none, there are no segments
        return segment_path(self.directory, writer, segno)

    def begins_above(self, writer: str, seq: int) -> int | None:
        """The least first sequence number above `seq` among a writer's segments."""
        begins = [begin for begin, _ in self._segments(writer) if begin > seq]
        return min(begins, default=None)

    def read(self, writer: str, at: Position, rows: int, size: int) -> Run | None:
        """The rows from a position on that are whole; None where there are none yet.

        Args:
            writer: the writer's id.
            at: where it stands.
            rows: at most so many.
            size: no further row once so many bytes are taken.
        """
        holding = [segno for begin, segno in self._segments(writer) if begin <= at.next_seq]
        if not holding:
            return None
        segno = holding[-1]
        path = self.path(writer, segno)
        try:
            found = os.stat(path)
            state = (segno, at.next_seq, found.st_ino, found.st_size)
            if self._seen.get(writer) == state:
                return None
            start = at.offset if at.segno == segno else 0
            with open(path, "rb", buffering=_READ_BUFFER) as file:
                run = _read(file, writer, Position(segno, start, at.next_seq), rows, size)
        except FileNotFoundError:
            self.missed = True
            return None
        if not run.entries:
            self._seen[writer] = state
            return None
        return run

    def _segments(self, writer: str) -> Iterator[tuple[int, int]]:
        """(first sequence number, number) of a writer's segments, in order."""
        for segno in self.writers.get(writer, ()):
            begin = self._begins.get((writer, segno))
            if begin is None:
                begin = self._begin_of(self.path(writer, segno))
                if begin is None:
                    continue
                self._begins[writer, segno] = begin
            yield begin, segno

    def _begin_of(self, path: Path) -> int | None:
        if path in self.unreadable:
            return None
        try:
            return segment_header(path).first_seq
        except FileNotFoundError:
            self.missed = True
        except CorruptError as error:
            self.unreadable[path] = str(error)
        return None


def _read(file: BinaryIO, writer: str, at: Position, rows: int, size: int) -> Run:
    """The rows from a position on.

    The file may have been cut and written again since the position was noted. That frames lie
    where they lay is likely; that each has its sequence number and checksum is certain.
    """
    if not _holds_next(file, at):
        file.seek(0)
        try:
            begin = read_header(file, file.name).first_seq
        except CorruptError:
            return Run([], at, 0)
        return _take(file, writer, Position(at.segno, file.tell(), begin), at.next_seq, rows, size)
    file.seek(at.offset)
    return _take(file, writer, at, at.next_seq, rows, size)


def _holds_next(file: BinaryIO, at: Position) -> bool:
    """Whether the frame at a position is the next one, or too little of it is there to say."""
    if not 0 < at.offset <= os.fstat(file.fileno()).st_size:
        return False
    file.seek(at.offset)
    start = file.read(_FRAME_HEADER)
    return len(start) < _FRAME_HEADER or int.from_bytes(start[8:], "little") == at.next_seq


def _take(file: BinaryIO, writer: str, at: Position, wanted: int, rows: int, size: int) -> Run:
    """Rows from sequence number `wanted` on; a frame that is not whole, or not sound, ends them."""
    entries: list[Entry] = []
    offset, next_seq, taken = at.offset, at.next_seq, 0
    end = os.fstat(file.fileno()).st_size
    with contextlib.suppress(CorruptError, *UNREADABLE):
        for seq, payload in read_frames(file, end, at.next_seq, file.name):
            if seq >= wanted:
                row = decode_logged(payload)
                entries.append(Entry(row.episode_id, row.step, seq, writer, row))
                taken += len(payload)
            offset, next_seq = offset + _FRAME_HEADER + len(payload), seq + 1
            if len(entries) >= rows or taken >= size:
                break
    return Run(entries, Position(at.segno, offset, next_seq), taken)
