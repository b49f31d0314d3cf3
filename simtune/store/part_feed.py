"""The Parquet files of a store as a tail takes them: for each compactor in the order of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from simtune.store.files import open_part, part_files, read_part, reading
from simtune.store.layout import part_number
from simtune.store.remote import AnyPath
from simtune.store.schema import ROWS

_KEYS: Final = ("writer_id", "seq")


class Feed(NamedTuple):
    """A Parquet file that was not taken yet.

    Attributes:
        compactor: who wrote it.
        number: which of that compactor's it is.
        path: where it lies.
    """

    compactor: str
    number: int
    path: AnyPath


class PartFeed:
    """The Parquet files of a store at the last `look`.

    Attributes:
        directory: where the files lie.
        waiting: the files not taken yet, by compactor, in the order of their numbers.
    """

    def __init__(self, directory: AnyPath) -> None:
        self.directory = directory
        self._spans: dict[AnyPath, dict[str, tuple[int, int]]] = {}
        self._firsts: dict[str, list[tuple[int, Feed]]] = {}
        self.waiting: dict[str, list[Feed]] = {}

    def look(self, taken: Mapping[str, int]) -> None:
        """List the files that are not taken yet."""
        self.waiting, self._firsts = {}, {}
        for feed in all_parts(self.directory):
            if feed.number > taken.get(feed.compactor, -1):
                self.waiting.setdefault(feed.compactor, []).append(feed)
        for feeds in self.waiting.values():
            feeds.sort()

    def heads(self) -> list[Feed]:
        """The next file of each compactor."""
        return [feeds[0] for feeds in self.waiting.values()]

    def all_waiting(self) -> Iterator[Feed]:
        """Every file that is not taken yet."""
        for feeds in self.waiting.values():
            yield from feeds

    def drop(self, feed: Feed) -> None:
        """The file is taken."""
        feeds = self.waiting[feed.compactor]
        feeds.remove(feed)
        for writer in self.writers(feed):
            lows = self._firsts.get(writer, [])
            if lows and lows[-1][1] == feed:
                lows.pop()
            else:
                lows[:] = [item for item in lows if item[1] != feed]
        self._spans.pop(feed.path, None)
        if not feeds:
            del self.waiting[feed.compactor]

    def writers(self, feed: Feed) -> dict[str, tuple[int, int]]:
        """Whose rows a file has, and the least and the greatest of their sequence numbers."""
        if feed.path not in self._spans:
            self._spans[feed.path] = _declared_spans(feed.path) or _read_spans(feed.path)
        return self._spans[feed.path]

    def least(self, feed: Feed, writer: str, seq: int) -> int | None:
        """The least sequence number from `seq` on that a file has of a writer."""
        low, high = self.writers(feed).get(writer, (0, -1))
        if seq > high or low >= seq:
            return None if seq > high else low
        keys = _keys(feed.path)
        mask = pc.and_(pc.equal(keys["writer_id"], writer), pc.greater_equal(keys["seq"], seq))
        found: int = pc.min(keys.filter(mask)["seq"]).as_py()
        return found

    def is_first(self, feed: Feed, writer: str) -> bool:
        """Whether no other file that waits has earlier rows of a writer."""
        if len(self.waiting) == 1:
            return True  # one compactor numbers its files as it takes the rows
        if not self._firsts:
            for other in self.all_waiting():
                for name, (low, _) in self.writers(other).items():
                    self._firsts.setdefault(name, []).append((low, other))
            for lows in self._firsts.values():
                lows.sort(reverse=True)
        return self._firsts[writer][-1][1] == feed

    def rows(self, feed: Feed, taken: Mapping[str, int]) -> pa.Table:
        """The rows of a file that are not taken yet, in order of (writer_id, seq).

        Args:
            feed: the file.
            taken: for the writers concerned, below which sequence number rows are taken.
        """
        spans = self.writers(feed)
        if all(writer in taken and high < taken[writer] for writer, (_, high) in spans.items()):
            return ROWS.empty_table()
        rows = read_part(feed.path, ROWS)
        concerned = {writer: taken[writer] for writer in spans if writer in taken}
        rows = rows.filter(untaken(rows, concerned)) if concerned else rows
        return rows.sort_by([("writer_id", "ascending"), ("seq", "ascending")])


def all_parts(directory: AnyPath) -> Iterator[Feed]:
    """Every Parquet file in a directory."""
    for path in part_files(directory):
        compactor, number = part_number(path.name)
        yield Feed(compactor, number, path)


def untaken(rows: pa.Table, taken: Mapping[str, int]) -> pa.ChunkedArray:
    """For each row whether its `seq` is not below its writer's number in `taken`."""
    writers = pa.array(taken.keys(), pa.string())
    begins = pa.array(taken.values(), pa.int64())
    found = pc.index_in(rows["writer_id"].cast(pa.string()), writers)
    return pc.greater_equal(rows["seq"], pc.coalesce(begins.take(found), -1))


def _declared_spans(path: AnyPath) -> dict[str, tuple[int, int]]:
    """What the footer says of writers and their numbers; nothing where it does not say enough."""
    found: dict[str, tuple[int, int]] = {}
    with open_part(path, ROWS) as file:
        for group in map(file.metadata.row_group, range(file.num_row_groups)):
            writers, seqs = (group.column(ROWS.get_field_index(name)).statistics for name in _KEYS)
            if not (writers and seqs and writers.has_min_max and seqs.has_min_max):
                return {}
            if writers.min != writers.max:
                return {}
            low, high = found.get(writers.min, (seqs.min, seqs.max))
            found[writers.min] = (min(low, seqs.min), max(high, seqs.max))
    return found


def _read_spans(path: AnyPath) -> dict[str, tuple[int, int]]:
    keys = _keys(path).group_by("writer_id").aggregate([("seq", "min_max")])
    spans = keys["seq_min_max"].to_pylist()
    return {
        writer: (span["min"], span["max"])
        for writer, span in zip(keys["writer_id"].to_pylist(), spans, strict=True)
    }


def _keys(path: AnyPath) -> pa.Table:
    with open_part(path, ROWS) as file, reading(path):
        return file.read(columns=[*_KEYS], use_threads=False)
