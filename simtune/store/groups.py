"""Where rows lie: the row groups of a store's files, in order of time, from the footers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simtune.store.files import open_part, read_groups, reading
from simtune.store.schema import ROWS

_EPISODE: Final = ROWS.get_field_index("episode_id")
_TS: Final = ROWS.get_field_index("ts")


class Group(NamedTuple):
    """A row group.

    Attributes:
        begun: earliest clock time in it, microseconds since the epoch; only an order of reading.
        path: its file.
        number: its position in the file.
        low: least episode id in it; None where the file does not say.
        high: greatest episode id in it.
    """

    begun: int
    path: Path
    number: int
    low: str | None
    high: str | None

    def may_hold(self, episode_id: str) -> bool:
        """Whether the episode's rows can be in it."""
        return self.low is None or self.high is None or self.low <= episode_id <= self.high


def row_groups(files: Iterable[Path]) -> list[Group]:
    """The row groups of some files: files in order of their earliest rows, groups as they lie."""
    by_file = []
    for path in files:
        with open_part(path, ROWS) as file, reading(path):
            found = [_group(path, n, file.metadata) for n in range(file.num_row_groups)]
        if found:
            by_file.append((min(group.begun for group in found), path, found))
    return [group for _, _, found in sorted(by_file) for group in found]


def _group(path: Path, number: int, metadata: pq.FileMetaData) -> Group:
    times = metadata.row_group(number).column(_TS).statistics
    ids = metadata.row_group(number).column(_EPISODE).statistics
    known = ids is not None and ids.has_min_max
    return Group(
        begun=times.min_raw if times is not None and times.has_min_max else 0,
        path=path,
        number=number,
        low=ids.min if known else None,
        high=ids.max if known else None,
    )


def read_rows(groups: Sequence[Group], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of some groups, each file opened once.

    Args:
        groups: those of one file next to each other.
        columns: which columns; all where None.
    """
    tables = [
        read_groups(path, ROWS, [group.number for group in part], columns)
        for path, part in groupby(groups, key=lambda group: group.path)
    ]
    schema = ROWS if columns is None else pa.schema([ROWS.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *tables])


def groups_holding(groups: Iterable[Group], episode_id: str) -> list[Group]:
    """The groups that have rows of an episode."""
    return [
        group
        for group in groups
        if group.may_hold(episode_id)
        and pc.any(pc.equal(read_rows([group], ["episode_id"])["episode_id"], episode_id)).as_py()
    ]
