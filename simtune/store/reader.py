"""`simtune.read(root)`: the store as tables, episodes and SQL."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune import recording
from simtune.errors import DataError
from simtune.records import Episode
from simtune.store.assembly import assemble
from simtune.store.compaction import compact
from simtune.store.files import dataset, part_files
from simtune.store.groups import Group, groups_holding, read_rows, row_groups
from simtune.store.late import fold, late_rewards
from simtune.store.layout import DATA, store_root
from simtune.store.schema import ROWS
from simtune.store.scores import all_scores
from simtune.store.summary import LIGHT, partial_summary, summarise
from simtune.store.views import run_sql

_CHUNK_ROWS: Final = 8192


def read(root: str | os.PathLike[str]) -> Store:
    """Open a store, with everything this process has captured into it so far.

    What other processes still hold in a live log segment appears once they seal it (16 MB or 30
    seconds), flush and end, or read the store themselves.

    Args:
        root: directory of the store.

    Raises:
        DataError: nothing has been captured there.
    """
    path = store_root(root)
    recording.seal(path)
    report = compact(path)
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


def _what_is_there(root: Path) -> str:
    if not root.exists():
        return "no such directory"
    if not root.is_dir():
        return "a file, not a directory"
    names = sorted(path.name for path in root.iterdir())
    return f"a directory with {', '.join(names[:8])}" if names else "an empty directory"


class Store:
    """What was captured up to the call of `read`; files added later need another `read`.

    Scores are read when they are asked for, so those written meanwhile are seen.

    Attributes:
        root: directory of the store.
        files: its Parquet files, those with the earliest rows first.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        """Use `read`, which also brings in what the log holds."""
        self.root = root
        self._groups = row_groups(files)
        self.files = list(dict.fromkeys(group.path for group in self._groups))

    def decisions(self, where: str | None = None) -> pa.Table:
        """Rows of kind `decision` with every column, late rewards folded into `reward`.

        Args:
            where: SQL condition on the columns, such as `"valid and reward > 0"`.
        """
        if where is not None:
            return self.sql(f"SELECT * FROM decisions WHERE {where}").cast(ROWS)
        rows = read_rows(self._groups)
        return fold(rows.filter(pc.equal(rows["kind"], "decision")), self._late)

    def episodes(self, where: str | None = None, *, ended: bool | None = None) -> Iterator[Episode]:
        """Assembled episodes in order of their starts; memory is bounded by a chunk of rows.

        Args:
            where: SQL condition on the view `episodes`, such as `"success and decisions < 9"`.
            ended: only those that ended (True), or that have not yet (False).
        """
        chosen = self.summary()
        if where is not None:
            matching = self.sql(f"SELECT episode_id FROM episodes WHERE {where}")
            chosen = chosen.filter(pc.is_in(chosen["episode_id"], matching["episode_id"]))
        if ended is not None:
            chosen = chosen.filter(pc.equal(chosen["ended"], ended))
        return self._assembled(chosen)

    def episode(self, episode_id: str) -> Episode:
        """One episode.

        Raises:
            DataError: there is none of that id.
        """
        rows = read_rows(groups_holding(self._groups, episode_id))
        rows = rows.filter(pc.equal(rows["episode_id"], episode_id))
        if not pc.any(pc.not_equal(rows["kind"], "reward")).as_py():
            raise DataError(
                f"no episode {episode_id!r} in {self.root}",
                fix=f"simtune episodes ls --store {self.root}",
            )
        return assemble(fold(rows, self._late))[episode_id]

    def scores(self) -> pa.Table:
        """The scores that count: for each subject and scorer the latest (scorer_version, seq)."""
        return all_scores(self.root)

    def summary(self) -> pa.Table:
        """One row per episode, in order of their starts: the view `episodes`."""
        return summarise([partial for _, partial in self._partials])

    def count(self) -> dict[str, int]:
        """How many episodes, decisions, late rewards, scores and files there are."""
        episodes = self.summary()
        kinds = read_rows(self._groups, ["kind"])["kind"]
        return {
            "episodes": episodes.num_rows,
            "ended": pc.sum(episodes["ended"].cast(pa.int64())).as_py() or 0,
            "decisions": pc.sum(pc.equal(kinds, "decision")).as_py() or 0,
            "late_rewards": pc.sum(pc.equal(kinds, "reward")).as_py() or 0,
            "scores": self.scores().num_rows,
            "files": len(self.files),
        }

    def sql(self, query: str) -> pa.Table:
        """Run DuckDB SQL over the views `decisions`, `episodes`, `scores` and the table `rows`.

        `rows` is every row as it was written; the views are what the methods of the same names
        return, `episodes` as `summary` does.
        """
        tables: dict[str, Callable[[], Any]] = {
            "rows": lambda: dataset(self.files, ROWS),
            "late": lambda: self._late,
            "episodes": self.summary,
            "scores": self.scores,
        }
        return run_sql(query, tables)

    @cached_property
    def _late(self) -> pa.Table:
        return late_rewards(read_rows(self._groups, ["kind", "decision_id", "reward"]))

    @cached_property
    def _partials(self) -> list[tuple[Group, pa.Table]]:
        return [
            (group, partial_summary(fold(read_rows([group], LIGHT), self._late)))
            for group in self._groups
        ]

    def _assembled(self, chosen: pa.Table) -> Iterator[Episode]:
        for ids in _chunks(chosen):
            wanted = pa.array(ids, pa.string())
            tables = [
                _rows_of(read_rows([group]), wanted)
                for group, partial in self._partials
                if pc.any(pc.is_in(partial["episode_id"], wanted)).as_py()
            ]
            episodes = assemble(fold(pa.concat_tables(tables), self._late))
            yield from (episodes[episode_id] for episode_id in ids)


def _rows_of(rows: pa.Table, ids: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["episode_id"], ids))


def _chunks(episodes: pa.Table) -> Iterator[list[str]]:
    """Ids of consecutive episodes that hold about `_CHUNK_ROWS` rows together."""
    ids: list[str] = []
    rows = 0
    columns = (episodes["episode_id"].to_pylist(), episodes["decisions"].to_pylist())
    for episode_id, decisions in zip(*columns, strict=True):
        ids.append(episode_id)
        rows += decisions + 2
        if rows >= _CHUNK_ROWS:
            yield ids
            ids, rows = [], 0
    if ids:
        yield ids
