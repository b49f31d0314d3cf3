"""Rows from elsewhere into a store, through the same commit as the log's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import CorruptError, DataError
from simtune.recording.directories import make_directory
from simtune.recording.segments import wal_directory
from simtune.records import Row
from simtune.store.check_rows import bad_rows
from simtune.store.commit import publish, recover
from simtune.store.compaction import compact
from simtune.store.exporting import in_groups
from simtune.store.files import columns_of, open_part, part_files, reading
from simtune.store.footers import Part, read_footers, read_groups
from simtune.store.identities import Identities
from simtune.store.json_rows import decode_rows
from simtune.store.layout import DATA, locked, store_root
from simtune.store.remote import AnyPath
from simtune.store.roots import Root
from simtune.store.schema import ROW_GROUP_ROWS, ROWS, SORT_ORDER, parquet_writer

_PART_ROWS: Final = 4 * ROW_GROUP_ROWS
_ID: Final = r"^[^\x00-\x1f\x7f/\\]{1,200}$"


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import did.

    Attributes:
        rows: rows that are in the store now and were not before.
        episodes: episodes they belong to.
        skipped: rows that were there already, by (writer_id, seq).
        files: Parquet files written.
    """

    rows: int = 0
    episodes: int = 0
    skipped: int = 0
    files: list[str] = msgspec.field(default_factory=list)


def import_parquet(root: str | os.PathLike[str], path: Path) -> ImportReport:
    """Import a Parquet file with the columns of format 1, in any order and encoding.

    Raises:
        DataError: other columns, a row that breaks the format, or a file that cannot be read.
    """
    return import_tables(root, _parquet_tables(path))


def import_jsonl(root: str | os.PathLike[str], path: Path) -> ImportReport:
    """Import JSON lines as an export wrote them.

    Raises:
        DataError: a line that is no row, or a row that breaks the format.
    """
    return import_tables(root, decode_rows(path))


def import_rows(root: str | os.PathLike[str], writer_id: str, rows: Iterable[Row]) -> ImportReport:
    """Import rows that are made on the spot.

    Args:
        root: directory of the store.
        writer_id: 16 hex digits, the same whenever the same rows are made; they count from 0.
        rows: the rows.
    """
    made = [_as_columns(writer_id, seq, row) for seq, row in enumerate(rows)]
    return import_tables(root, [pa.Table.from_pylist(made, schema=ROWS)])


def _as_columns(writer_id: str, seq: int, row: Row) -> dict[str, Any]:
    columns = msgspec.structs.asdict(row)
    target = columns.pop("target")
    own = f"{writer_id}-{seq}" if row.kind == "decision" else target
    return {**columns, "decision_id": own, "writer_id": writer_id, "seq": seq}


def import_tables(root: str | os.PathLike[str], tables: Iterable[pa.Table]) -> ImportReport:
    """Import rows; those that are in the store already are skipped.

    Each file that is written takes its place at once or not at all. An import that was cut short
    is completed by doing it again.

    Args:
        root: directory of the store; made where there is none.
        tables: rows with the columns of format 1, in any order.

    Raises:
        DataError: a row breaks the format; files of the rows before it may have been committed.
    """
    path = store_root(root)
    report = ImportReport()
    make_directory(wal_directory(path))
    compact(path)
    episodes: set[str] = set()
    with locked(path, "compactor"):
        recover(Root(path, path))
        known = _known(path)
        for rows in in_groups(tables, _PART_ROWS):
            _check(rows)
            fresh = _fresh(rows, known)
            report.skipped += rows.num_rows - fresh.num_rows
            report.rows += fresh.num_rows
            if fresh.num_rows:
                episodes.update(pc.unique(fresh["episode_id"]).to_pylist())
                report.files.append(str(_publish(path, fresh)))
    report.episodes = len(episodes)
    return report


def _publish(root: Path, rows: pa.Table) -> AnyPath:
    def write(file: BinaryIO) -> None:
        with parquet_writer(file, ROWS) as writer:
            writer.add_key_value_metadata({"simtune.origin": "import"})
            writer.write_table(rows.sort_by(list(SORT_ORDER)), row_group_size=ROW_GROUP_ROWS)

    return publish(Root(root, root), write, [])


def _known(root: Path) -> Identities:
    known = Identities()
    for part in read_footers(part_files(root / DATA)):
        known.add(_identities(part))
    return known


def _identities(part: Part) -> pa.Table:
    return read_groups(part, [group.number for group in part.groups], ["writer_id", "seq"])


def _fresh(rows: pa.Table, known: Identities) -> pa.Table:
    """The rows that are not known; from here on they are."""
    columns = (rows["writer_id"].to_pylist(), rows["seq"].to_pylist())
    seen: set[tuple[str, int]] = set()
    mask = []
    for identity in zip(*columns, strict=True):
        mask.append(identity not in known and identity not in seen)
        seen.add(identity)
    fresh = rows.filter(pa.array(mask, pa.bool_()))
    known.add(fresh)
    return fresh


def _check(rows: pa.Table) -> None:
    bad = bad_rows(rows)
    if bad is None:
        safe = pc.match_substring_regex(rows["episode_id"], _ID)
        broken = rows.num_rows - (pc.sum(safe).as_py() or 0)
        bad = ("episode_id has slashes, control characters or over 200 characters", broken)
    if bad[1]:
        raise DataError(
            f"{bad[1]} rows cannot be imported: {bad[0]}",
            expected="rows as `simtune episodes export` writes them",
        )


def _parquet_tables(path: Path) -> Iterator[pa.Table]:
    found = columns_of(path)
    if sorted(found.names) != sorted(ROWS.names):
        missing = [name for name in ROWS.names if name not in found.names]
        strange = [name for name in found.names if name not in ROWS.names]
        raise DataError(
            f"{path} has other columns than format 1",
            expected=", ".join(ROWS.names),
            got=f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(strange) or 'none'}",
        )
    with open_part(path, None) as file:
        for number in range(file.num_row_groups):
            with reading(path):
                rows = file.read_row_group(number, use_threads=False)
            try:
                yield rows.select(ROWS.names).cast(ROWS)
            except pa.ArrowException as error:
                raise CorruptError(
                    f"{path} has columns of other types than format 1", got=error
                ) from error
