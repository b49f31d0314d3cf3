"""What a tail has taken so far, looked up in the store: how a restarted tail finds its way back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import CorruptError
from simtune.recording.encoding import LoggedRow
from simtune.recording.segments import iter_logged
from simtune.store.assembly import PlainRow, plain_rows
from simtune.store.convert import Entry, record_batch
from simtune.store.cursor import Cursor
from simtune.store.files import open_part, reading
from simtune.store.layout import DATA
from simtune.store.live_log import LiveLog
from simtune.store.part_feed import all_parts, untaken
from simtune.store.remote import AnyPath
from simtune.store.schema import ROWS

_CHUNK: Final = 2048
_KEYS: Final = ("writer_id", "seq")


class History:
    """The rows of a store that lie behind a cursor.

    Args:
        root: where the tables of the store are.
        log: directory of its log; None where only the files count.
        cursor: up to where.
    """

    def __init__(self, root: AnyPath, log: Path | None, cursor: Cursor) -> None:
        self._root = root
        self._log = log
        self._cursor = cursor

    def started(self) -> dict[str, str]:
        """The episodes that are still open, each with the writer that began it."""
        if not self._cursor.parts and not self._cursor.writers:
            return {}
        began: dict[str, str] = {}
        ended: set[tuple[str, str]] = set()
        for rows in self._tables(("episode_id", "kind", "decision_id")):
            of = pc.is_in(rows["kind"], pa.array(["episode_start", "episode_end"]))
            for row in rows.filter(of).to_pylist():
                if row["kind"] == "episode_start":
                    began[row["episode_id"]] = row["writer_id"]
                else:
                    ended.add((row["episode_id"], row["writer_id"]))
        return {
            episode: writer for episode, writer in began.items() if (episode, writer) not in ended
        }

    def rows_of(self, episode_ids: Collection[str]) -> dict[str, list[PlainRow]]:
        """All rows of some episodes, late rewards folded in."""
        wanted = pa.array(episode_ids, pa.string())
        found: dict[tuple[str, int], PlainRow] = {}
        for rows in self._tables(ROWS.names, "episode_id", wanted):
            for row in plain_rows(rows.filter(pc.not_equal(rows["kind"], "reward"))):
                found.setdefault((row["writer_id"], row["seq"]), row)
        decided = {row["decision_id"]: row for row in found.values() if row["kind"] == "decision"}
        self._reward(decided)
        episodes: dict[str, list[PlainRow]] = {episode_id: [] for episode_id in episode_ids}
        for row in found.values():
            episodes[row["episode_id"]].append(row)
        return episodes

    def _reward(self, decided: dict[str, PlainRow]) -> None:
        wanted = pa.array(decided, pa.string())
        seen: set[tuple[str, int]] = set()
        for rows in self._tables(("kind", "decision_id", "reward"), "decision_id", wanted):
            for row in rows.filter(pc.equal(rows["kind"], "reward")).to_pylist():
                key = (row["writer_id"], row["seq"])
                if key not in seen:
                    seen.add(key)
                    add_reward(decided[row["decision_id"]], row["reward"])

    def _tables(
        self, columns: Sequence[str], column: str | None = None, values: pa.Array | None = None
    ) -> Iterator[pa.Table]:
        """The rows behind the cursor, some of them twice: in the log and in Parquet.

        The log comes first: what compaction takes from it meanwhile is then in the files.

        Args:
            columns: which columns, beside those that identify a row.
            column: only rows that have one of the values in this column.
            values: the values.
        """
        names = list(dict.fromkeys((*_KEYS, *columns)))
        for rows in self._logged():
            yield _having(rows, column, values).select(names)
        for feed in all_parts(self._root / DATA):
            whole = feed.number <= self._cursor.parts.get(feed.compactor, -1)
            if not whole and not self._cursor.writers:
                continue
            for rows in _groups(feed.path, names, column, values):
                yield rows if whole else rows.filter(self._behind(rows))

    def _behind(self, rows: pa.Table) -> pa.ChunkedArray:
        taken = {writer: at.next_seq for writer, at in self._cursor.writers.items()}
        return pc.invert(untaken(rows, taken))

    def _logged(self) -> Iterator[pa.Table]:
        log = LiveLog(self._log)
        log.look()
        for writer in log.writers.keys() & self._cursor.writers.keys():
            end = self._cursor.writers[writer].next_seq
            for segno in log.writers[writer]:
                entries: list[Entry] = []
                for seq, row in _sound(log.path(writer, segno)):
                    if seq >= end:
                        break
                    entries.append(Entry(row.episode_id, row.step, seq, writer, row))
                    if len(entries) == _CHUNK:
                        yield pa.Table.from_batches([record_batch(entries)])
                        entries = []
                if entries:
                    yield pa.Table.from_batches([record_batch(entries)])


def add_reward(row: PlainRow, reward: float | None) -> None:
    """Fold a late reward into a decision."""
    if reward is not None:
        row["reward"] = (row["reward"] or 0.0) + reward


def _sound(path: Path) -> Iterator[tuple[int, LoggedRow]]:
    try:
        yield from iter_logged(path)
    except (CorruptError, FileNotFoundError):
        return


def _having(rows: pa.Table, column: str | None, values: pa.Array | None) -> pa.Table:
    if column is None:
        return rows
    return rows.filter(pc.is_in(rows[column], values, skip_nulls=True))


def _groups(
    path: AnyPath, names: list[str], column: str | None, values: pa.Array | None
) -> Iterator[pa.Table]:
    with open_part(path, ROWS) as file:
        for number in range(file.num_row_groups):
            with reading(path):
                if column is not None:
                    looked = file.read_row_group(number, columns=[column])
                    if not pc.any(pc.is_in(looked[column], values)).as_py():
                        continue
                rows = file.read_row_group(number, columns=names)
            yield _having(rows, column, values)
