"""Segments: the files of the write-ahead log, `<root>/wal/<writer_id>-<segno:08d>.wal`.

A segment is made as `.new`, locked, given its header and renamed, so none is ever visible
unlocked or without a header while its writer lives. Its lock goes with the writer's process:
a segment that ends in a seal, or whose lock is free, gets no more records.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from simtune.errors import CorruptError
from simtune.recording.directories import sync_directory
from simtune.recording.encoding import UNREADABLE, LoggedRow, decode_logged, decode_row
from simtune.recording.frames import (
    SEAL_SIZE,
    SegmentHeader,
    encode_header,
    encode_seal,
    is_seal,
    read_frames,
    read_header,
)
from simtune.records import SCHEMA_VERSION, Row

R = TypeVar("R")

_WRITER = re.compile(r"[0-9a-f]{16}")
SEGMENT_NAME = re.compile(r"(?P<writer>[0-9a-f]{16})-(?P<segno>\d{8,})\.wal")
UNFINISHED_NAME = re.compile(r"[0-9a-f]{16}-\d{8,}\.new")
_ABANDONED_SECONDS = 60.0


def wal_directory(root: str | Path) -> Path:
    """Where the log of a store lies."""
    return Path(root) / "wal"


def segment_path(directory: Path, writer: str, segno: int) -> Path:
    """Path of one segment, always within the directory.

    Raises:
        CorruptError: no simtune gives such an id to a writer.
    """
    if not _WRITER.fullmatch(writer):
        raise CorruptError("this is no writer's id", expected="16 hex digits", got=repr(writer))
    return directory / f"{writer}-{segno:08d}.wal"


class Segment:
    """A segment that this process writes; methods raise OSError, and nothing is retried here.

    Attributes:
        end: size of what is written, and the sequence number that follows it. They change by one
            assignment, and bytes go to where the size says: a write that was cut short, even by
            a Ctrl-C after its last byte, is done again over itself.
    """

    def __init__(
        self,
        directory: Path,
        *,
        writer: str,
        segno: int,
        first_seq: int,
        next_seq: int | None = None,
        content: bytes = b"",
    ) -> None:
        """Make the file, lock it, write header and content, and only then give it its name."""
        header = SegmentHeader(
            writer=writer,
            segno=segno,
            first_seq=first_seq,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        self.path = segment_path(directory, writer, segno)
        self.segno = segno
        self.opened = time.monotonic()
        self._directory_synced = False
        start = encode_header(header)
        self.records_from = len(start)
        self._fd = self._create(start + content)
        self.end = (len(start) + len(content), first_seq if next_seq is None else next_seq)

    def _create(self, content: bytes) -> int:
        made = self.path.with_suffix(".new")
        made.unlink(missing_ok=True)  # of an attempt before, which may still be locked
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(fd, content, 0)
            os.rename(made, self.path)
        except BaseException:  # undone, and on its way again
            os.close(fd)
            with contextlib.suppress(OSError):
                made.unlink(missing_ok=True)
            raise
        return fd

    @property
    def size(self) -> int:
        """Bytes that are written."""
        return self.end[0]

    @property
    def empty(self) -> bool:
        """Whether it holds no record yet."""
        return self.size == self.records_from

    @property
    def closed(self) -> bool:
        """Whether the file was let go of."""
        return self._fd < 0

    def write(self, data: bytes, next_seq: int) -> None:
        """Append whole frames; after an OSError the file may end in a part of them."""
        size = self.size
        _write_all(self._fd, data, size)
        self.end = (size + len(data), next_seq)

    def sync(self) -> None:
        """Put everything written, and the file's name, on stable storage."""
        os.fdatasync(self._fd)
        if not self._directory_synced:
            sync_directory(self.path.parent)
            self._directory_synced = True

    def cut(self, size: int) -> None:
        """Remove what lies beyond `size`."""
        os.ftruncate(self._fd, size)

    def read_from(self, offset: int) -> bytes:
        """What was written from an offset on; less, or nothing, where the disk gives no more."""
        try:
            return os.pread(self._fd, self.size - offset, offset)
        except OSError:
            return b""

    def seal(self) -> None:
        """Write the seal, make all of it durable, and let go of the file in any case."""
        try:
            self.write(encode_seal(self.end[1]), self.end[1])
            self.sync()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file. In a forked child this leaves the parent's lock in place."""
        fd, self._fd = self._fd, -1
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        offset += written
        rest = rest[written:]


def remove_abandoned(root: str | Path) -> int:
    """Remove what writers left that were killed while making a segment; returns how many files.

    A `.new` file holds no record that was acknowledged. One is abandoned where nobody holds its
    lock and it is a minute old: its writer, if alive, is between making it and locking it.
    """
    removed = 0
    directory = wal_directory(root)
    for path in directory.iterdir() if directory.is_dir() else ():
        if UNFINISHED_NAME.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                removed += _remove_if_abandoned(path)
    return removed


def _remove_if_abandoned(path: Path) -> bool:
    with open(path, "rb") as file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        if abs(age) < _ABANDONED_SECONDS or not _lock_is_free(file):
            return False
        path.unlink()
        return True


def segment_header(path: Path) -> SegmentHeader:
    """Who wrote a segment, and where its records begin.

    Raises:
        CorruptError: the file does not begin like a segment, is of a newer schema, or says that
            it is another segment than its name does.
    """
    with open(path, "rb") as file:
        header = read_header(file, str(path))
    if header.schema_version > SCHEMA_VERSION:
        raise CorruptError(
            f"{path} was written by a newer simtune",
            expected=f"schema version {SCHEMA_VERSION}",
            got=header.schema_version,
            fix="upgrade simtune",
        )
    if path.name != segment_path(path.parent, header.writer, header.segno).name:
        raise CorruptError(
            f"{path} does not belong under its name", got=f"{header.writer!r}, {header.segno}"
        )
    return header


def iter_segment(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (seq, row) for every sound record of a segment, in order, without gaps.

    A record that a failed write left behind and that its writer wrote again is yielded only
    where it was written last: a segment ends where the writer's next one begins.

    Raises:
        CorruptError: damage that is no torn tail; every record yielded before it is sound.
    """
    return _decoded(path, decode_row)


def iter_logged(path: Path) -> Iterator[tuple[int, LoggedRow]]:
    """As `iter_segment`, each row as the columns take it, numbers packed."""
    return _decoded(path, decode_logged)


def _decoded(path: Path, decode: Callable[[bytes], R]) -> Iterator[tuple[int, R]]:
    header = segment_header(path)
    end = _begin_of_next(path, header)
    with open(path, "rb", buffering=1 << 18) as file:
        read_header(file, str(path))
        size = os.fstat(file.fileno()).st_size
        for seq, payload in read_frames(file, size, header.first_seq, str(path)):
            if end is not None and seq >= end:
                return
            try:
                row = decode(payload)
            except UNREADABLE as error:
                raise CorruptError(f"{path} holds a record that is no row: {error}") from error
            yield seq, row


def _begin_of_next(path: Path, header: SegmentHeader) -> int | None:
    try:
        return segment_header(segment_path(path.parent, header.writer, header.segno + 1)).first_seq
    except (FileNotFoundError, CorruptError):
        return None


def sealed_segments(root: str | Path) -> list[Path]:
    """The segments that get no more records, sealed or of dead writers, by (writer, segno).

    Of each writer they are the first ones it has: none is left out before one that is in the
    list, so that what was compacted of a writer is always its earliest rows. A tail needs this.
    """
    directory = wal_directory(root)
    if not directory.is_dir():
        return []
    listed: dict[str, list[int]] = {}
    for match in filter(None, map(SEGMENT_NAME.fullmatch, os.listdir(directory))):
        listed.setdefault(match["writer"], []).append(int(match["segno"]))
    found: list[Path] = []
    for writer, segnos in sorted(listed.items()):
        before = -1
        for segno in sorted(segnos):
            path = segment_path(directory, writer, segno)
            # A directory that changes while it is listed may show a segment and not the one before.
            missed = segno - 1 != before and segment_path(directory, writer, segno - 1).exists()
            if missed or not is_finished(path):
                break
            found.append(path)
            before = segno
    return found


def is_finished(path: Path) -> bool:
    """Whether a segment gets no more records; False where it is already gone."""
    try:
        with open(path, "rb") as file:
            return _ends_in_seal(file) or _lock_is_free(file)
    except FileNotFoundError:
        return False


def _ends_in_seal(file: BinaryIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - SEAL_SIZE))
    return is_seal(file.read())


def _lock_is_free(file: BinaryIO) -> bool:
    # Readers share the lock with each other; only a living writer refuses it.
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
