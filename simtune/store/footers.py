"""What the footers of a store's files say: which row groups can hold what is looked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from simtune.store.files import READ_BUFFER, open_part, reading
from simtune.store.remote import AnyPath
from simtune.store.schema import ROWS

_DICTIONARIES: Final = ("episode_id", "kind")


class Range(NamedTuple):
    """Least and greatest value of a column in a row group; None where the file does not say."""

    low: str | None
    high: str | None

    def may_hold(self, value: str) -> bool:
        """Whether the value can be in it."""
        return self.low is None or self.high is None or self.low <= value <= self.high

    def meets(self, low: str, high: str) -> bool:
        """Whether a value from `low` to `high` can be in it."""
        return self.low is None or self.high is None or (self.low <= high and low <= self.high)


class Group(NamedTuple):
    """A row group.

    Attributes:
        number: its position in the file.
        rows: how many there are.
        episodes: of the episode ids.
        decisions: of the decision ids.
        kinds: of the kinds; `reward` is the greatest of all.
    """

    number: int
    rows: int
    episodes: Range
    decisions: Range
    kinds: Range


class Part(NamedTuple):
    """A Parquet file.

    Attributes:
        begun: earliest clock time in it, microseconds since the epoch; only an order of reading.
        path: the file.
        ended: latest clock time in it.
        groups: its row groups as they lie.
        metadata: the whole footer.
    """

    begun: int
    path: AnyPath
    ended: int
    groups: list[Group]
    metadata: pq.FileMetaData


def read_footers(files: Iterable[AnyPath]) -> list[Part]:
    """The files that have rows, those with the earliest rows first."""
    parts = [_part(path) for path in files]
    return sorted((part for part in parts if part.groups), key=lambda part: part[:2])


def _part(path: AnyPath) -> Part:
    with open_part(path, ROWS) as file, reading(path):
        metadata = file.metadata
        groups = [_group(number, metadata) for number in range(metadata.num_row_groups)]
        times = [_times(number, metadata) for number in range(metadata.num_row_groups)]
    return Part(
        begun=min((low for low, _ in times), default=0),
        path=path,
        ended=max((high for _, high in times), default=0),
        groups=groups,
        metadata=metadata,
    )


def _group(number: int, metadata: pq.FileMetaData) -> Group:
    return Group(
        number=number,
        rows=metadata.row_group(number).num_rows,
        episodes=_range(number, metadata, "episode_id"),
        decisions=_range(number, metadata, "decision_id"),
        kinds=_range(number, metadata, "kind"),
    )


def _range(number: int, metadata: pq.FileMetaData, column: str) -> Range:
    found = metadata.row_group(number).column(_LEAVES[column]).statistics
    if found is None or not found.has_min_max:
        return Range(None, None)
    return Range(found.min, found.max)


def _times(number: int, metadata: pq.FileMetaData) -> tuple[int, int]:
    found = metadata.row_group(number).column(_LEAVES["ts"]).statistics
    return (found.min_raw, found.max_raw) if found is not None and found.has_min_max else (0, 0)


def _leaves() -> dict[str, int]:
    """Position of each flat column among the leaves of the Parquet schema."""
    position, found = 0, {}
    for field in ROWS:
        found[field.name] = position
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        position += kind.num_fields if pa.types.is_struct(kind) else 1
    return found


_LEAVES: Final = _leaves()


def read_groups(
    part: Part, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Some row groups of a file; `episode_id` and `kind` as dictionary arrays.

    Args:
        part: the file.
        groups: which row groups, in order.
        columns: which columns; all where None.
    """
    names = None if columns is None else [*columns]
    with (
        open_part(part.path, ROWS, metadata=part.metadata, dictionaries=_DICTIONARIES) as file,
        reading(part.path),
    ):
        return file.read_row_groups(list(groups), columns=names, use_threads=False)


def read_slice(part: Part, group: int, start: int, stop: int) -> pa.Table:
    """Rows `start` to `stop` of one row group; those behind `stop` are not decoded."""
    with open_part(part.path, ROWS, metadata=part.metadata) as file, reading(part.path):
        batches = file.iter_batches(batch_size=stop, row_groups=[group], use_threads=False)
        return pa.Table.from_batches(islice(batches, 1), schema=ROWS).slice(start)


def read_batches(
    part: Part, rows: int, columns: Sequence[str] | None = None, first: int = 0
) -> Iterator[pa.Table]:
    """A file from one of its row groups on, `rows` at a time, with a bounded part of it held."""
    numbers = [group.number for group in part.groups[first:]]
    names = None if columns is None else [*columns]
    with open_part(part.path, ROWS, metadata=part.metadata, buffer_size=READ_BUFFER) as file:
        batches = file.iter_batches(
            batch_size=rows, row_groups=numbers, columns=names, use_threads=False
        )
        while True:
            with reading(part.path):
                batch = next(batches, None)
            if batch is None:
                return
            yield pa.Table.from_batches([batch])
