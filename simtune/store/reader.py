"""`simtune.read(root)`: the store as tables, episodes and SQL."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune import recording
from simtune.errors import DataError, OptionError
from simtune.records import Episode
from simtune.store.assembly import assemble
from simtune.store.compaction import compact
from simtune.store.cursor import Cursor
from simtune.store.files import dataset, part_files
from simtune.store.footers import Part, read_footers
from simtune.store.hf import cache_key, to_dataset
from simtune.store.late import KEYS, LATE, add_late, fold, strays, total
from simtune.store.layout import DATA
from simtune.store.lookup import (
    all_rewards,
    count_rewards,
    episodes_rewarding,
    ids_like,
    narrowed,
    rewards_of,
    rows_of,
)
from simtune.store.merge import merged
from simtune.store.remote import AnyPath
from simtune.store.roots import open_root
from simtune.store.schema import ROWS, SORT_ORDER
from simtune.store.scores import all_scores
from simtune.store.summary import LIGHT, partial_summary, summarise
from simtune.store.tailing import Tail, tail
from simtune.store.views import run_sql, sql_batches

_CHUNK_ROWS: Final = 8192
"""Rows with all their columns that are held at a time."""

_LIGHT_ROWS: Final = 16 * _CHUNK_ROWS
"""Rows of which only ids, numbers and the like are held."""

_HEAVY: Final = {"prompt", "response", "observation", "metadata", "prompt_token_ids", "logprobs"}


def read(root: str | os.PathLike[str]) -> Store:
    """Open a store, with everything this process has captured into it so far.

    What other processes still hold in a live log segment appears once they seal it (16 MB or 30
    seconds), flush and end, or read the store themselves.

    Args:
        root: directory of the store, or its URL, such as `s3://bucket/prefix`.

    Raises:
        DataError: nothing has been captured there.
        RemoteError: the URL cannot be reached, or refuses.
    """
    where = open_root(root)
    path = where.tables
    recording.seal(where.local)
    report = compact(root)
    for damaged in report.damaged:
        warnings.warn(
            f"{damaged}: a log segment fails its checksum; what follows the damage is not read",
            stacklevel=2,
        )
    files = part_files(path / DATA)
    if not files:
        raise DataError(
            f"no captured decisions in {path}",
            expected=f"Parquet files in {path / DATA}",
            got=_what_is_there(path),
            fix=f"capture some with simtune.configure(root={str(path)!r}) or "
            "SIMTUNE_ROOT, `@simtune.capture` and `with simtune.episode():`",
        )
    return Store(path, files)


def _what_is_there(root: AnyPath) -> str:
    if not root.exists():
        return "no such directory"
    if not root.is_dir():
        return "a file, not a directory"
    names = sorted(path.name for path in root.iterdir())
    return f"a directory with {', '.join(names[:8])}" if names else "an empty directory"


class Store:
    """What was captured up to the call of `read`; files added later need another `read`.

    Opening a store reads no rows, and its methods hold a bounded part of them at a time, but for
    `decisions` and `sql`, which return whole tables. Scores are read when they are asked for, so
    those written meanwhile are seen.

    Attributes:
        root: directory of the store, or what stands for its URL.
    """

    def __init__(self, root: AnyPath, files: Sequence[AnyPath]) -> None:
        """Use `read`, which also brings in what the log holds."""
        self.root = root
        self._paths = files

    @cached_property
    def parts(self) -> list[Part]:
        """What the footers of the files say, those with the earliest rows first."""
        return read_footers(self._paths)

    @property
    def files(self) -> list[AnyPath]:
        """The Parquet files that have rows, those with the earliest first."""
        return [part.path for part in self.parts]

    def decisions(
        self, where: str | None = None, *, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of kind `decision`, late rewards folded into `reward`.

        Args:
            where: SQL condition on the columns, such as `"valid and reward > 0"`; row groups that
                cannot match are not read.
            columns: which columns; all where None.
        """
        empty = _selected(columns).empty_table()
        return pa.concat_tables([empty, *self.batches(where, columns=columns)])

    def batches(
        self, where: str | None = None, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """What `decisions` returns, in tables of some thousand rows.

        Without a condition the decisions of an episode are next to each other, in the order of
        (step, seq, writer_id); with one, they come in no particular order.
        """
        schema = _selected(columns)
        if where is not None:
            query = f"SELECT {', '.join(schema.names)} FROM decisions WHERE {where}"
            for batch in sql_batches(query, self._tables(), _CHUNK_ROWS):
                yield pa.Table.from_batches([batch]).cast(schema)
            return
        needed = {*schema.names, *KEYS, *(name for name, _ in SORT_ORDER)}
        held = _CHUNK_ROWS if needed & _HEAVY else _LIGHT_ROWS
        for rows in self._whole([name for name in ROWS.names if name in needed], rows=held):
            decided = rows.filter(pc.equal(rows["kind"], "decision"))
            yield decided.sort_by(list(SORT_ORDER)).select(schema.names).cast(schema)

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Rows of every kind as they were written, those of an episode next to each other.

        Args:
            ids: episode ids; a reward that was given outside of its episode comes with the
                decision it rewards. Everything where None.
        """
        if ids is None:
            yield from (t.sort_by(list(SORT_ORDER)) for t in merged(self.parts, rows=_CHUNK_ROWS))
            return
        wanted = pa.array(ids, pa.string())
        targets, elsewhere = self._strays_of(wanted)
        for table in merged(narrowed(self.parts, sorted({*ids, *elsewhere})), rows=_CHUNK_ROWS):
            stray = pc.and_(
                pc.equal(table["kind"], "reward"), pc.is_in(table["decision_id"], targets)
            )
            chosen = table.filter(pc.or_(pc.is_in(table["episode_id"], wanted), stray))
            if chosen.num_rows:
                yield chosen.sort_by(list(SORT_ORDER))

    def _strays_of(self, ids: pa.Array) -> tuple[pa.Array, list[str]]:
        """Decisions of some episodes that were rewarded outside of them, and the ids there."""
        given = self._strays["decision_id"].combine_chunks()
        if not len(given):
            return given, []
        found = [given[:0]]
        parts = narrowed(self.parts, sorted(ids.to_pylist()))
        for rows in merged(parts, ("episode_id", "kind", "decision_id"), rows=_LIGHT_ROWS):
            own = pc.and_(pc.equal(rows["kind"], "decision"), pc.is_in(rows["episode_id"], ids))
            decided = rows.filter(own)["decision_id"]
            found.append(decided.filter(pc.is_in(decided, given)).combine_chunks())
        targets = pa.concat_arrays(found)
        return targets, episodes_rewarding(self.parts, targets)

    def episodes(
        self,
        where: str | None = None,
        *,
        ended: bool | None = None,
        ids: Sequence[str] | None = None,
    ) -> Iterator[Episode]:
        """Assembled episodes, about in the order in which they ended, and some rows at a time.

        Args:
            where: SQL condition on the view `episodes`, such as `"success and decisions < 9"`.
            ended: only those that ended (True), or that have not yet (False).
            ids: only those of these ids.
        """
        if where is not None:
            matching = self.episode_ids_where(where)
            ids = matching if ids is None else sorted({*ids} & {*matching})
        for rows in self._whole(ids=ids):
            episodes = assemble(rows.filter(pc.not_equal(rows["kind"], "reward")))
            for _, episode in sorted(episodes.items()):
                if ended is None or episode.ended == ended:
                    yield episode

    def episode(self, episode_id: str) -> Episode:
        """One episode; of a large store only the row groups that can hold it are read.

        Raises:
            DataError: there is none of that id.
        """
        rows = rows_of(self.parts, episode_id)
        rows = rows.filter(pc.not_equal(rows["kind"], "reward"))
        if not rows.num_rows:
            raise DataError(
                f"no episode {episode_id!r} in {self.root}",
                fix=f"simtune episodes ls --store {self.root}",
            )
        late = rewards_of(self.parts, pc.drop_null(rows["decision_id"]).to_pylist())
        return assemble(add_late(rows, late))[episode_id]

    def episode_ids(self, beginning: str = "") -> list[str]:
        """The ids of the episodes that begin with a text, in order."""
        return ids_like(self.parts, beginning)

    def episode_ids_where(self, where: str) -> list[str]:
        """The ids of the episodes for which an SQL condition on the view `episodes` holds."""
        found = self.sql(f"SELECT episode_id FROM episodes WHERE {where}")
        return sorted(found["episode_id"].to_pylist())

    def scores(self, episode_id: str | None = None) -> pa.Table:
        """The scores that count: for each subject and scorer the latest (scorer_version, seq).

        Args:
            episode_id: those of one episode and its decisions; all where None.
        """
        found = all_scores(self.root)
        if episode_id is None:
            return found
        return found.filter(pc.equal(found["episode_id"], episode_id))

    def summary(self) -> pa.Table:
        """One row per episode, in order of their starts: the view `episodes`."""
        return self._summary

    def tail(
        self,
        cursor: Cursor | str | os.PathLike[str] | None = None,
        *,
        follow: bool = False,
        timeout: float | None = None,
    ) -> Tail:
        """Rows and episodes as they are captured, each exactly once: see `simtune.store.tail`."""
        return tail(self.root, cursor, follow=follow, timeout=timeout)

    def count(self) -> dict[str, int]:
        """How many episodes, decisions, late rewards, scores and files there are."""
        episodes = self.summary()
        return {
            "episodes": episodes.num_rows,
            "ended": pc.sum(episodes["ended"].cast(pa.int64())).as_py() or 0,
            "decisions": pc.sum(episodes["decisions"]).as_py() or 0,
            "late_rewards": count_rewards(self.parts),
            "scores": self.scores().num_rows,
            "files": len(self.files),
        }

    def sql(self, query: str) -> pa.Table:
        """Run DuckDB SQL over the views `decisions`, `episodes`, `scores` and the table `rows`.

        `rows` is every row as it was written; the views are what the methods of the same names
        return, `episodes` as `summary` does.
        """
        return run_sql(query, self._tables())

    def to_hf(
        self, where: str | None = None, *, cache_dir: str | os.PathLike[str] | None = None
    ) -> Any:
        """The decisions as a `datasets.Dataset`, mapped into memory from an Arrow file.

        Args:
            where: SQL condition, as of `decisions`.
            cache_dir: where the file goes, that of `datasets` by default. One that was made of
                the same files and condition is used again; scores in a condition are not part of
                that, so give a new directory after scoring.

        Raises:
            MissingExtraError: `datasets` is not installed.
        """
        return to_dataset(self.batches(where), cache_key(self.files, where), cache_dir)

    def _tables(self) -> dict[str, Callable[[], Any]]:
        return {
            "rows": lambda: dataset(self.files, ROWS),
            "late": lambda: self._late,
            "episodes": self.summary,
            "scores": self.scores,
        }

    def _whole(
        self,
        columns: Sequence[str] | None = None,
        *,
        ids: Sequence[str] | None = None,
        rows: int | None = None,
    ) -> Iterator[pa.Table]:
        """All rows of some episodes at a time, late rewards folded in."""
        parts = self.parts if ids is None else narrowed(self.parts, sorted(ids))
        wanted = None if ids is None else pa.array(ids, pa.string())
        for table in merged(parts, columns, rows=rows or _CHUNK_ROWS):
            whole = table if wanted is None else _of(table, wanted)
            if whole.num_rows:
                yield fold(whole, self._strays)

    @cached_property
    def _late(self) -> pa.Table:
        return all_rewards(self.parts)

    @cached_property
    def _strays(self) -> pa.Table:
        if not any(group.kinds.may_hold("reward") for part in self.parts for group in part.groups):
            return LATE.empty_table()
        return total(strays(rows) for rows in merged(self.parts, KEYS, rows=_LIGHT_ROWS))

    @cached_property
    def _summary(self) -> pa.Table:
        return summarise([partial_summary(t) for t in self._whole(LIGHT, rows=_LIGHT_ROWS)])


def _of(rows: pa.Table, ids: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["episode_id"], ids))


def _selected(columns: Sequence[str] | None) -> pa.Schema:
    """The schema of some columns.

    Raises:
        OptionError: there is no such column.
    """
    unknown = [name for name in columns or () if name not in ROWS.names]
    if unknown:
        raise OptionError(
            f"no column {unknown[0]!r}",
            expected=", ".join(ROWS.names),
            got=", ".join(columns or ()),
        )
    names = ROWS.names if columns is None else columns
    return pa.schema([ROWS.field(name) for name in names], metadata=ROWS.metadata)
