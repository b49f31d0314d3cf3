"""Segments: the files of the write-ahead log, `<root>/wal/<writer_id>-<segno:08d>.wal`.

A segment is made as `.new`, locked, given its header and renamed, so none is ever visible
unlocked or without a header while its writer lives. Its lock goes with the writer's process:
a segment that ends in a seal, or whose lock is free, gets no more records.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from simtune.errors import CorruptError
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

_NAME = re.compile(r"(?P<writer>[0-9a-f]{16})-(?P<segno>\d{8,})\.wal")


def wal_directory(root: str | Path) -> Path:
    """Where the log of a store lies."""
    return Path(root) / "wal"


def segment_path(directory: Path, writer: str, segno: int) -> Path:
    """Path of one segment."""
    return directory / f"{writer}-{segno:08d}.wal"


class Segment:
    """A segment that this process writes; methods raise OSError, and nothing is retried here."""

    def __init__(
        self, directory: Path, *, writer: str, segno: int, first_seq: int, content: bytes = b""
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
        self.records_from = self.size = 0
        self._directory_synced = False
        self._fd = self._create(encode_header(header), content)

    def _create(self, header: bytes, content: bytes) -> int:
        made = self.path.with_suffix(".new")
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.records_from = _write_all(fd, header)
            self.size = self.records_from + _write_all(fd, content)
            os.rename(made, self.path)
        except OSError:
            os.close(fd)
            made.unlink(missing_ok=True)
            raise
        return fd

    @property
    def empty(self) -> bool:
        """Whether it holds no record yet."""
        return self.size == self.records_from

    def write(self, data: bytes) -> None:
        """Append whole frames; after an OSError the file may end in a part of them."""
        self.size += _write_all(self._fd, data)

    def sync(self) -> None:
        """Put everything written, and the file's name, on stable storage."""
        os.fdatasync(self._fd)
        if not self._directory_synced:
            _sync_directory(self.path.parent)
            self._directory_synced = True

    def cut(self, size: int) -> None:
        """Remove what was written beyond `size`; from here on it is not counted in any case."""
        self.size = size
        os.ftruncate(self._fd, size)

    def read_from(self, offset: int) -> bytes:
        """What was written from an offset on."""
        return os.pread(self._fd, self.size - offset, offset)

    def seal(self, next_seq: int) -> None:
        """Write the seal, make all of it durable, and let go of the file in any case."""
        try:
            self.write(encode_seal(next_seq))
            self.sync()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file. In a forked child this leaves the parent's lock in place."""
        os.close(self._fd)


def _write_all(fd: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(data)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segment_header(path: Path) -> SegmentHeader:
    """Who wrote a segment, and where its records begin.

    Raises:
        CorruptError: the file does not begin like a segment, or is of a newer schema.
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
    """The segments that get no more records, sealed or of dead writers, by (writer, segno)."""
    directory = wal_directory(root)
    if not directory.is_dir():
        return []
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and is_finished(path):
            found.append((match["writer"], int(match["segno"]), path))
    return [path for _, _, path in sorted(found)]


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
