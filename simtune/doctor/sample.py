"""The newest rows of a store, read without compacting it: bounded, so that a look stays a look."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from simtune.doctor.events import COLUMNS, Event, of_record, of_table
from simtune.errors import CorruptError
from simtune.recording.segments import SEGMENT_NAME, iter_segment, segment_header, wal_directory
from simtune.store.files import part_files
from simtune.store.footers import Part, read_footers, read_groups
from simtune.store.layout import DATA
from simtune.store.remote import AnyPath
from simtune.store.roots import open_root

ROWS: Final = 20_000
"""Rows of Parquet files that are looked at."""

LOG_BYTES: Final = 32 * 1024 * 1024
"""Bytes of log that are looked at."""

FILES: Final = 500
"""Parquet files whose footers are read."""


class Sample(msgspec.Struct, kw_only=True, dict=True):
    """What was read of a store.

    Attributes:
        events: rows, each once.
        files: Parquet files there are.
        file_bytes: their size.
        file_rows: rows of each file whose footer was read.
        whole: whether `events` is all there is.
        unreachable: why nothing could be read; empty where it could.
        unreadable: Parquet file -> why it cannot be read.
        damaged: segment of the log -> why it cannot be read to its end.
    """

    events: list[Event] = msgspec.field(default_factory=list)
    files: int = 0
    file_bytes: int = 0
    file_rows: list[int] = msgspec.field(default_factory=list)
    whole: bool = True
    unreachable: str = ""
    unreadable: dict[str, str] = msgspec.field(default_factory=dict)
    damaged: dict[str, str] = msgspec.field(default_factory=dict)

    @functools.cached_property
    def decisions(self) -> list[Event]:
        """The decisions among the rows."""
        return [event for event in self.events if event.kind == "decision"]

    @property
    def scope(self) -> str:
        """Which rows figures are about, where they are not about all."""
        return "" if self.whole else f" among the newest {len(self.events):,} rows"


def take_sample(store: str) -> Sample:
    """Read the newest rows of a store; nothing is compacted, locked or written.

    Raises:
        RemoteError: its URL cannot be reached.
        OptionError: nothing can open such a URL.
    """
    where = open_root(store)
    sample = Sample()
    known: set[tuple[str, int]] = set()
    for event in (*_logged(where.local, sample), *_filed(where.tables / DATA, sample)):
        # A compaction that was cut short after its commit leaves rows in both places.
        if (event.writer, event.seq) not in known:
            known.add((event.writer, event.seq))
            sample.events.append(event)
    return sample


def _logged(root: Any, sample: Sample) -> Iterator[Event]:
    directory = wal_directory(root)
    names = directory.iterdir() if directory.is_dir() else ()
    left = LOG_BYTES
    for length, path in newest_first(path for path in names if SEGMENT_NAME.fullmatch(path.name)):
        if left <= 0:
            sample.whole = False
            return
        left -= length
        try:
            writer = segment_header(path).writer
            for seq, row in iter_segment(path):
                yield of_record(writer, seq, row)
        except FileNotFoundError:  # compacted meanwhile
            continue
        except CorruptError as error:
            sample.damaged[path.name] = str(error)


def newest_first(paths: Iterable[Any]) -> list[tuple[int, Any]]:
    """Files with their sizes, the newest first; behind a URL the largest, as ages are not known."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # compacted meanwhile
            continue
        found.append((getattr(status, "st_mtime", 0.0), status.st_size, path))
    return [(length, path) for _, length, path in sorted(found, reverse=True)]


def _filed(directory: AnyPath, sample: Sample) -> Iterator[Event]:
    try:
        found = newest_first(part_files(directory))
    except CorruptError as error:
        sample.unreadable[str(directory)] = str(error)
        return
    sample.files = len(found)
    sample.file_bytes = sum(length for length, _ in found)
    left = ROWS
    for number, (_, path) in enumerate(found):
        if number == FILES:
            sample.whole = False
            return
        try:
            for part in read_footers([path]):
                sample.file_rows.append(sum(group.rows for group in part.groups))
                events = list(_of_part(part, left))
                sample.whole &= len(events) == sample.file_rows[-1]
                left -= len(events)
                yield from events
        except CorruptError as error:
            sample.unreadable[str(path)] = str(error)


def _of_part(part: Part, limit: int) -> Iterator[Event]:
    """The first rows of a file, in whole episodes where not all are taken."""
    taken = groups = 0
    while groups < len(part.groups) and taken < limit:
        taken += part.groups[groups].rows
        groups += 1
    if not groups:
        return
    events = list(of_table(read_groups(part, range(groups), COLUMNS)))
    cut = events[-1].episode_id if groups < len(part.groups) else None
    yield from (event for event in events if event.episode_id != cut)
