"""The compactor: finished log segments become Parquet files, one compactor a host at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import pyarrow as pa

from simtune.errors import CorruptError, DataError
from simtune.recording.segments import iter_logged, sealed_segments, segment_header
from simtune.store.commit import is_interrupted, publish, recover, retire
from simtune.store.convert import Entry, record_batch
from simtune.store.layout import locked
from simtune.store.roots import Root, claimed, open_root
from simtune.store.schema import ROW_GROUP_ROWS, ROWS, parquet_writer

_GROUP_BYTES: Final = 64 * 1024 * 1024
_GROUP_ROWS: Final = 128 * 1024
_BATCH_ROWS: Final = 1024


class CompactionReport(msgspec.Struct, kw_only=True):
    """What a compaction did.

    Attributes:
        segments: log segments that were replaced.
        rows: rows they held.
        files: Parquet files written.
        log_bytes: size of the segments.
        parquet_bytes: size of the files.
        damaged: segments with bytes that fail their checksum. The rows before the damage are in
            the store; the segment is kept as `<name>.damaged`, or in place where even its header
            cannot be read.
        seconds: how long it took.
    """

    segments: int = 0
    rows: int = 0
    files: list[str] = msgspec.field(default_factory=list)
    log_bytes: int = 0
    parquet_bytes: int = 0
    damaged: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


class _Segment(msgspec.Struct, frozen=True):
    path: Path
    writer: str
    size: int


def compact(
    root: str | os.PathLike[str], *, stop: threading.Event | None = None
) -> CompactionReport:
    """Move everything in finished log segments into `data/v1/`.

    Segments that a living writer still appends to are left alone; `simtune.recording.seal(root)`
    finishes that of the calling process.

    Args:
        root: directory of the store, or URL of one, to which the files are uploaded.
        stop: where it is set, no further file is begun.

    Raises:
        RemoteError: the remote side cannot be reached, or refuses; nothing is lost either.
        DataError: the file system refused; nothing is lost, and the next call goes on.
    """
    where = open_root(root)
    path = where.local
    report = CompactionReport()
    started = time.monotonic()
    try:
        if sealed_segments(path) or is_interrupted(path):
            claimed(root)
            with locked(path, "compactor"):
                recover(where)
                _compact_all(where, report, stop)
    except OSError as error:
        raise DataError(
            f"cannot compact {path}",
            expected="a directory that can be written, with room left",
            got=error,
            fix="captured decisions are safe in the log; mend this and read again",
        ) from error
    report.seconds = time.monotonic() - started
    return report


def _compact_all(root: Root, report: CompactionReport, stop: threading.Event | None) -> None:
    segments = []
    for path in sealed_segments(root.local):
        try:
            segments.append(_Segment(path, segment_header(path).writer, path.stat().st_size))
        except CorruptError:
            report.damaged.append(str(path))
    while segments and not (stop is not None and stop.is_set()):
        _compact_group(root, segments, report)


def _compact_group(root: Root, segments: list[_Segment], report: CompactionReport) -> None:
    """Move as many of the segments, from the first on, as make a file of bounded size."""
    entries: list[Entry] = []
    whole: list[Path] = []
    damaged: list[Path] = []
    size = 0
    while segments and (not size or size + segments[0].size <= _GROUP_BYTES):
        segment = segments.pop(0)
        (whole if _read_segment(segment, entries) else damaged).append(segment.path)
        size += segment.size
        if len(entries) >= _GROUP_ROWS:
            break
    if entries:
        final = publish(root, partial(_write, entries), whole, damaged)
        report.files.append(str(final))
        report.parquet_bytes += final.stat().st_size
    else:
        retire(root.local, [path.name for path in whole], [path.name for path in damaged])
    report.segments += len(whole) + len(damaged)
    report.rows += len(entries)
    report.log_bytes += size
    report.damaged += [f"{path}.damaged" for path in damaged]


def _read_segment(segment: _Segment, entries: list[Entry]) -> bool:
    """Append a segment's rows; False where it ends in damage."""
    try:
        for seq, row in iter_logged(segment.path):
            entries.append(Entry(row.episode_id, row.step, seq, segment.writer, row))
    except CorruptError:
        return False
    return True


def _write(entries: list[Entry], file: BinaryIO) -> None:
    entries.sort(key=lambda entry: (entry.episode_id, entry.step, entry.seq, entry.writer_id))
    with parquet_writer(file, ROWS) as writer:
        for group in _slices(entries, ROW_GROUP_ROWS):
            # Rows stay in the processor's cache while all their columns are made.
            batches = [record_batch(rows) for rows in _slices(group, _BATCH_ROWS)]
            writer.write_table(pa.Table.from_batches(batches), row_group_size=ROW_GROUP_ROWS)


def _slices(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
