"""A live tail: every row of a store exactly once, from the log and from Parquet alike.

Why a row is handed out once, whatever is killed, compacted or restarted in between:

* Rows of a writer W are numbered, and compaction takes its segments in order. So at each moment
  Parquet holds the first rows of W, the log the rest, and the only overlap is a file that was just
  committed and whose inputs are not removed yet.
* Every row is in one Parquet file, and a compactor numbers its files 0, 1, 2... as it commits them.
  `parts[compactor] = n` therefore says exactly which files were taken.
* While W has segments in the log, `writers[W].next_seq` says up to where its rows were taken, from
  either side. A row below it is never handed out; one above it waits for those between.
* A look lists the log, then Parquet, then, where there are new files, the log again. A row that was
  in the log before the look is in the first list, or its file is in the second, since the file is
  committed before its inputs go.
* A writer in neither list of the log has no row there that a listed file has: such a file is taken
  whole, and needs no position. Of several, that with the writer's earliest rows comes first. Once
  every listed file is taken, the positions of writers without segments are dropped: their later
  files hold new rows only. This is what keeps a cursor small.
* Rows (or numbers of files) that are missing where later ones are seen are waited for until a
  second look, begun after the gap was noticed, does not find them either. Then they are nowhere:
  lost to damage, or taken before the writer's position was dropped.

Behind a URL there are only files: the log of each host is on that host, and a cursor must hold
wherever it is used. `writers` is then empty.

No clock decides anything; the monotonic one paces the looks.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import DataError, OptionError
from simtune.recording.segments import wal_directory
from simtune.records import Episode
from simtune.store.convert import Entry, record_batch
from simtune.store.cursor import Cursor, Position, as_cursor
from simtune.store.history import History
from simtune.store.late import fold, late_rewards
from simtune.store.layout import DATA
from simtune.store.live_log import LiveLog
from simtune.store.open_episodes import OpenEpisodes
from simtune.store.part_feed import Feed, PartFeed
from simtune.store.remote import AnyPath
from simtune.store.roots import Root, open_root

BATCH_ROWS: Final = 2048
BATCH_BYTES: Final = 8 * 1024 * 1024
_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
_LOOK_SECONDS: Final = 0.5
_REMOTE_LOOK_SECONDS: Final = 2.0
_START: Final = Position(0, 0, 0)
_ORDER: Final = "order"


class Batch:
    """Rows that a tail hands out together.

    Attributes:
        rows: the rows as they were written, each writer's in its order; columns of format 1.
        cursor: where to go on once these rows are dealt with.
    """

    def __init__(self, rows: pa.Table, cursor: Cursor) -> None:
        self.rows = rows
        self.cursor = cursor

    @cached_property
    def decisions(self) -> pa.Table:
        """The rows of kind `decision`, with those late rewards that are in the same batch."""
        decided = self.rows.filter(pc.equal(self.rows["kind"], "decision"))
        return fold(decided, late_rewards(self.rows))


def tail(
    root: str | os.PathLike[str],
    cursor: Cursor | str | os.PathLike[str] | None = None,
    *,
    follow: bool = False,
    timeout: float | None = None,
) -> Tail:
    """Rows and episodes of a store as they are captured, each exactly once.

    Reads the log of living writers and the Parquet files, and writes nothing. The store may still
    be empty, or not be there yet.

    Args:
        root: directory of the store, or its URL; of a remote one the Parquet files are read only.
        cursor: where to go on: a cursor, or the path of its file; the start where None.
        follow: wait for more; else the tail ends where there is no more at the moment.
        timeout: with `follow`, end after so many seconds without anything new; None is never.

    Raises:
        OptionError: an argument cannot be used.
        CorruptError: the file at the path is no cursor.
    """
    return Tail(open_root(root), as_cursor(cursor), follow=follow, timeout=timeout)


class Tail:
    """See `tail`. Iterate over it for batches, or call `episodes`; not both, not from two threads.

    An iteration that ended may be begun again, and goes on. Rows are handed out in batches of up
    to `BATCH_ROWS`; a Parquet file that was not seen as log is one batch.
    """

    def __init__(
        self, root: Root, cursor: Cursor, *, follow: bool = False, timeout: float | None = None
    ) -> None:
        if timeout is not None and not (follow and timeout >= 0):
            raise OptionError(
                "timeout is how long to wait for more",
                expected="follow=True and a number of seconds from 0",
                got=f"follow={follow}, timeout={timeout}",
            )
        self.root = root.tables
        self._look_seconds = _REMOTE_LOOK_SECONDS if root.is_remote else _LOOK_SECONDS
        self._follow, self._timeout = follow, timeout
        self._positions = dict(cursor.writers)
        self._parts = dict(cursor.parts)
        self._log = LiveLog(None if root.is_remote else wal_directory(root.local))
        self._feed = PartFeed(root.tables / DATA)
        self._gaps: dict[str, int] = {}
        self._any_order = False
        self._told: set[Path] = set()
        self._marks: tuple[int, ...] = ()
        self._look_at = 0.0
        self._unsettled = True
        self._turn = 0
        # Episodes: ids that are not to be handed out again, what waits to be, and from where.
        self._skipped = set(cursor.episodes)
        self._open: OpenEpisodes | None = None
        self._pending: deque[Episode] = deque()
        self._handed: list[str] = []
        self._before = cursor

    @property
    def cursor(self) -> Cursor:
        """Where to go on after everything handed out so far."""
        if self._pending:
            before = self._before
            return Cursor(
                parts=before.parts,
                writers=before.writers,
                episodes=[*before.episodes, *self._handed],
            )
        return Cursor(
            parts=dict(self._parts),
            writers=dict(self._positions),
            episodes=sorted(self._skipped),
        )

    def __iter__(self) -> Iterator[Batch]:
        """Batches of rows.

        Raises:
            OptionError: this tail hands out episodes.
            CorruptError: a Parquet file cannot be read; move it away to go on without its rows.
            DataError: the file system refuses; a RemoteError where that is behind a URL.
        """
        if self._open is not None:
            raise OptionError(
                "this tail hands out episodes", fix="make another tail for batches of rows"
            )
        for rows in self._tables():
            yield Batch(rows, self.cursor)

    def episodes(self) -> Iterator[Episode]:
        """Complete episodes, each once; `cursor` is up to date after each one.

        An episode is complete once the `episode_end` is read of the writer that wrote its
        `episode_start`. Its decisions have all rewards that were read until then. What other
        processes wrote for it and is read later is not in it; decisions outside of any episode
        are in none. After a restart the rows of episodes that were still open are looked up in
        the store, so the cursor alone is enough.

        Raises:
            CorruptError: as when iterating over batches.
            DataError: likewise.
        """
        if self._open is None:
            self._open = OpenEpisodes(self._history())
        opened = self._open
        yield from self._hand_out()
        self._before = self.cursor
        for rows in self._tables():
            complete = opened.absorb(rows, self._history())
            self._pending.extend(e for e in complete if e.episode_id not in self._skipped)
            self._skipped.difference_update(episode.episode_id for episode in complete)
            yield from self._hand_out()
            self._before = self.cursor

    def _history(self) -> History:
        return History(self.root, self._log.directory, self.cursor)

    def _hand_out(self) -> Iterator[Episode]:
        while self._pending:
            episode = self._pending.popleft()
            self._handed.append(episode.episode_id)
            if not self._pending:
                self._handed = []
            yield episode

    def _tables(self) -> Iterator[pa.Table]:
        """Tables of rows, the state advanced past each before it is yielded."""
        quiet_since = time.monotonic()
        pause = _SHORTEST_PAUSE
        while True:
            began, found = time.monotonic(), False
            for rows in self._step():
                yield rows
                found = True
            now = time.monotonic()
            if found:
                quiet_since, pause = now, _SHORTEST_PAUSE
            if found or self._unsettled:
                continue
            left = float("inf") if self._timeout is None else quiet_since + self._timeout - now
            if not self._follow or left <= 0:
                return
            # A poll may cost a twentieth of the time: many writers are looked at less often.
            time.sleep(min(max(pause, 20 * (now - began)), left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _step(self) -> Iterator[pa.Table]:
        """Take all there is now."""
        try:
            looked = self._look()
            while (rows := self._next_rows()) is not None:
                if rows.num_rows:
                    yield rows
        except OSError as error:
            raise DataError(
                f"cannot follow {self.root}", expected="a store that can be read", got=error
            ) from error
        self._unsettled |= self._log.missed
        if looked and not self._log.missed:
            self._unsettled = self._pass_gaps()
            if not self._feed.waiting:
                self._forget()
        self._tell_unreadable()

    def _look(self) -> bool:
        """List the log and the files, unless nothing can have changed; True where it did."""
        marks = tuple(map(_mark, (self._log.directory, self._feed.directory)))
        now = time.monotonic()
        if marks == self._marks and now < self._look_at and not self._unsettled:
            return False
        self._unsettled = True  # should one of the listings fail
        self._log.look()
        self._feed.look(self._parts)
        if self._feed.waiting:
            self._log.look(also=True)
        self._marks, self._look_at, self._unsettled = marks, now + self._look_seconds, False
        return True

    def _next_rows(self) -> pa.Table | None:
        """Rows from the log first, then from a file; None where there is nothing to take."""
        entries = self._from_log()
        if entries:
            return pa.Table.from_batches([record_batch(entries)])
        ready = next(filter(self._is_ready, self._feed.heads()), None)
        if ready is None and self._any_order:
            ready = next(filter(self._is_whole, self._feed.heads()), None)
        self._any_order = False
        return None if ready is None else self._from_part(ready)

    def _from_log(self) -> list[Entry]:
        entries: list[Entry] = []
        moved: dict[str, Position] = {}
        size = 0
        for writer in self._in_turn():
            at = self._positions.get(writer, _START)
            run = self._log.read(writer, at, BATCH_ROWS - len(entries), BATCH_BYTES - size)
            if run is not None:
                entries += run.entries
                size += run.size
                moved[writer] = run.position
            if len(entries) >= BATCH_ROWS or size >= BATCH_BYTES:
                break
        self._positions.update(moved)
        return entries

    def _in_turn(self) -> Iterator[str]:
        """The writers, each time beginning with another, so that none waits for a busy one."""
        writers = self._log.writers
        self._turn = (self._turn + 1) % max(1, len(writers))
        yield from islice(writers, self._turn, None)
        yield from islice(writers, self._turn)

    def _taken(self, writer: str) -> int | None:
        """Below which number a writer's rows are taken; None for one that the log knows not."""
        at = self._positions.get(writer)
        if at is not None:
            return at.next_seq
        return 0 if writer in self._log.writers else None

    def _is_ready(self, feed: Feed) -> bool:
        """Whether a file is next, and no other has earlier rows of its writers."""
        return self._is_whole(feed) and all(
            self._taken(writer) is not None or self._feed.is_first(feed, writer)
            for writer in self._feed.writers(feed)
        )

    def _is_whole(self, feed: Feed) -> bool:
        """Whether a file follows on what was taken, of its compactor and of writers in the log."""
        if feed.number != self._parts.get(feed.compactor, -1) + 1:
            return False
        for writer in self._feed.writers(feed):
            taken = self._taken(writer)
            if taken is not None and (self._feed.least(feed, writer, taken) or taken) > taken:
                return False
        return True

    def _from_part(self, feed: Feed) -> pa.Table:
        spans = self._feed.writers(feed)
        taken = {w: seq for w in spans if (seq := self._taken(w)) is not None}
        rows = self._feed.rows(feed, taken)
        for writer, seq in taken.items():
            if spans[writer][1] >= seq:
                self._positions[writer] = Position(0, 0, spans[writer][1] + 1)
        self._parts[feed.compactor] = feed.number
        self._feed.drop(feed)
        return rows

    def _pass_gaps(self) -> bool:
        """Pass over what two looks did not find; True where there is reason to look again."""
        gaps = self._gaps_of_writers() | self._gaps_of_compactors() | self._gap_in_order()
        before, self._gaps = self._gaps, {key: begin for key, (begin, _) in gaps.items()}
        for key, (begin, end) in gaps.items():
            if before.get(key) == begin:
                if key == _ORDER:
                    self._any_order = True
                elif key in self._feed.waiting:
                    self._parts[key] = end - 1
                else:
                    self._positions[key] = Position(0, 0, end)
        return bool(gaps)

    def _gaps_of_writers(self) -> dict[str, tuple[int, int]]:
        gaps = {}
        for writer in {*self._positions, *self._log.writers}:
            begin = self._taken(writer) or 0
            ends = [self._feed.least(feed, writer, begin) for feed in self._feed.all_waiting()]
            ends.append(self._log.begins_above(writer, begin))
            end = min((end for end in ends if end is not None), default=begin)
            if end > begin:
                gaps[writer] = (begin, end)
        return gaps

    def _gaps_of_compactors(self) -> dict[str, tuple[int, int]]:
        begins = {feed: self._parts.get(feed.compactor, -1) + 1 for feed in self._feed.heads()}
        return {f.compactor: (seq, f.number) for f, seq in begins.items() if f.number > seq}

    def _gap_in_order(self) -> dict[str, tuple[int, int]]:
        """Files that wait for each other, as those of two stores may that were copied together."""
        waiting = sum(1 for _ in self._feed.all_waiting())
        return {_ORDER: (waiting, 0)} if any(map(self._is_whole, self._feed.heads())) else {}

    def _forget(self) -> None:
        """Drop the positions of writers that have nothing left in the log."""
        self._positions = {w: at for w, at in self._positions.items() if w in self._log.writers}

    def _tell_unreadable(self) -> None:
        for path in self._log.unreadable.keys() - self._told:
            self._told.add(path)
            reason = self._log.unreadable[path].splitlines()[0]
            warnings.warn(f"its rows are passed over: {reason}", stacklevel=4)


def _mark(directory: AnyPath | None) -> int:
    """Changes when entries of a local directory do; compared for equality only."""
    if not isinstance(directory, Path):
        return 0
    try:
        return os.stat(directory).st_mtime_ns
    except FileNotFoundError:
        return 0
