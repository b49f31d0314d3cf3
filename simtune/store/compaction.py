"""The compactor: finished log segments become Parquet files, one compactor a host at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import pyarrow as pa

from simtune.errors import CorruptError, DataError
from simtune.recording.segments import iter_segment, sealed_segments, segment_header
from simtune.records import Row
from simtune.store.commit import is_interrupted, publish, recover, retire
from simtune.store.convert import record_batch
from simtune.store.layout import locked, store_root
from simtune.store.schema import ROW_GROUP_ROWS, ROWS, SORT_ORDER, parquet_writer

_GROUP_BYTES: Final = 64 * 1024 * 1024
_BATCH_ROWS: Final = 2048


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


def compact(root: str | os.PathLike[str]) -> CompactionReport:
    """Move everything in finished log segments into `data/v1/`.

    Segments that a living writer still appends to are left alone; `simtune.recording.seal(root)`
    finishes that of the calling process.

    Args:
        root: directory of the store.

    Raises:
        DataError: the file system refused; nothing is lost, and the next call goes on.
    """
    path = store_root(root)
    report = CompactionReport()
    started = time.monotonic()
    try:
        if sealed_segments(path) or is_interrupted(path):
            with locked(path, "compactor"):
                recover(path)
                _compact_all(path, report)
    except OSError as error:
        raise DataError(
            f"cannot compact {path}",
            expected="a directory that can be written, with room left",
            got=error,
            fix="captured decisions are safe in the log; mend this and read again",
        ) from error
    report.seconds = time.monotonic() - started
    return report


def _compact_all(root: Path, report: CompactionReport) -> None:
    segments = []
    for path in sealed_segments(root):
        try:
            segments.append(_Segment(path, segment_header(path).writer, path.stat().st_size))
        except CorruptError:
            report.damaged.append(str(path))
    for group in _groups(segments):
        _compact_group(root, group, report)


def _groups(segments: Sequence[_Segment]) -> Iterator[list[_Segment]]:
    group: list[_Segment] = []
    for segment in segments:
        if group and sum(item.size for item in group) + segment.size > _GROUP_BYTES:
            yield group
            group = []
        group.append(segment)
    if group:
        yield group


def _compact_group(root: Path, group: Sequence[_Segment], report: CompactionReport) -> None:
    batches: list[pa.RecordBatch] = []
    damaged = [segment.path for segment in group if not _read_segment(segment, batches)]
    whole = [segment.path for segment in group if segment.path not in damaged]
    table = pa.Table.from_batches(batches, schema=ROWS)

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, ROWS) as writer:
            writer.write_table(table.sort_by(list(SORT_ORDER)), row_group_size=ROW_GROUP_ROWS)

    if table.num_rows:
        final = publish(root, write, whole, damaged)
        report.files.append(str(final))
        report.parquet_bytes += final.stat().st_size
    else:
        retire(root, [path.name for path in whole], [path.name for path in damaged])
    report.segments += len(group)
    report.rows += table.num_rows
    report.log_bytes += sum(segment.size for segment in group)
    report.damaged += [f"{path}.damaged" for path in damaged]


def _read_segment(segment: _Segment, batches: list[pa.RecordBatch]) -> bool:
    """Append a segment's rows as record batches; False where it ends in damage."""
    numbered: list[tuple[int, Row]] = []
    sound = True
    try:
        for item in iter_segment(segment.path):
            numbered.append(item)
            if len(numbered) == _BATCH_ROWS:
                batches.append(record_batch(segment.writer, numbered))
                numbered = []
    except CorruptError:
        sound = False
    if numbered:
        batches.append(record_batch(segment.writer, numbered))
    return sound
