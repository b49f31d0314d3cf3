"""Files sorted by episode -> whole episodes: a k-way merge that holds a part of each file.

An episode may run through several compactions, so its rows can be in several files. Every file is
sorted by episode id: what is below the least id that any file has yet to show is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import CorruptError
from simtune.store.footers import Part, read_batches
from simtune.store.schema import ROWS

_LEAST_ROWS: Final = 64


def merged(
    parts: Sequence[Part], columns: Sequence[str] | None = None, *, rows: int
) -> Iterator[pa.Table]:
    """Tables of all rows of some episodes, the ids ascending from table to table.

    Args:
        parts: the files; rows of the same episode come in their order.
        columns: which columns, `episode_id` among them; all where None.
        rows: about how many are held at a time, shared by the files whose ids overlap.

    Raises:
        CorruptError: a file is damaged, or not sorted.
    """
    share = max(_LEAST_ROWS, rows // max(1, _overlap(parts)))
    waiting = sorted(parts, key=lambda part: part.low, reverse=True)
    order = {part.path: position for position, part in enumerate(parts)}
    active: list[_Cursor] = []
    while waiting or active:
        limit = min((cursor.last for cursor in active if cursor.more), default=None)
        if waiting and (limit is None or waiting[-1].low <= limit):
            active.append(_Cursor(waiting.pop(), columns, share))
            active.sort(key=lambda cursor: order[cursor.part.path])
            continue
        taken = [cursor.take_below(limit) for cursor in active]
        if any(table.num_rows for table in taken):
            yield pa.concat_tables(taken)
        for cursor in active:
            # The rows of one long episode may need more than a share.
            cursor.refill(at_least=limit)
        active = [cursor for cursor in active if cursor.more or cursor.held.num_rows]


class _Cursor:
    """A place in one file.

    Attributes:
        part: the file.
        held: the rows that were read and not yet taken.
        last: the greatest id among all that were read.
        more: whether there are rows that were not read yet.
    """

    def __init__(self, part: Part, columns: Sequence[str] | None, share: int) -> None:
        self.part = part
        self.last = ""
        self.more = True
        self._share = share
        self._batches = read_batches(part, share, columns)
        names = ROWS.names if columns is None else columns
        self.held = pa.schema([ROWS.field(name) for name in names]).empty_table()
        self._load()

    def take_below(self, limit: str | None) -> pa.Table:
        """Hand over the rows of smaller ids; all where there is no limit."""
        below = self.held.num_rows
        if limit is not None:
            below = pc.sum(pc.less(self.held["episode_id"], limit)).as_py() or 0
        taken, self.held = self.held.slice(0, below), self.held.slice(below)
        return taken

    def refill(self, *, at_least: str | None) -> None:
        """Read on where little is held, or where no greater id than `at_least` is."""
        if self.more and (self.held.num_rows <= self._share // 2 or self.last == at_least):
            self._load()

    def _load(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            self.more = False
            return
        ids = batch["episode_id"].combine_chunks()
        if ids.null_count or ids[0].as_py() < self.last or not _ascending(ids):
            raise CorruptError(
                f"{self.part.path} is not sorted by episode_id",
                expected="rows in the order of format 1: episode_id, step, seq, writer_id",
                fix=f"move it away, then: simtune episodes import {self.part.path.name}",
            )
        self.last = ids[-1].as_py()
        self.held = pa.concat_tables([self.held, batch])


def _ascending(ids: pa.Array) -> bool:
    return pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py() is not False


def _overlap(parts: Iterable[Part]) -> int:
    """How many files have a common range of ids, at most."""
    events = []
    for part in parts:
        highs = [group.episodes.high for group in part.groups]
        # An unknown end is beyond every text.
        end = (1, "") if None in highs else (0, max(str(high) for high in highs))
        events += [((0, part.low), 1), (end, -1)]
    most = open_now = 0
    for _, change in sorted(events, key=lambda event: (event[0], -event[1])):
        open_now += change
        most = max(most, open_now)
    return most
