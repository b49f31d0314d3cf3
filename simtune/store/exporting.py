"""Whole episodes out of a store: one Parquet file of format 1, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import BinaryIO, Final

import pyarrow as pa

from simtune.store.json_rows import encode_rows
from simtune.store.reader import Store
from simtune.store.schema import ROW_GROUP_ROWS, ROWS, parquet_writer

FORMATS: Final = ("parquet", "jsonl")


def export_rows(
    store: Store, sink: BinaryIO, *, format: str, ids: Sequence[str] | None = None
) -> int:
    """Write every row of some episodes; what is read back by `import_rows` is equal.

    Args:
        store: where from.
        sink: a binary file open for writing.
        format: one of `FORMATS`.
        ids: the episodes; all where None.

    Returns:
        How many rows were written.
    """
    tables = store.rows(ids)
    return _jsonl(tables, sink) if format == "jsonl" else _parquet(tables, sink)


def _jsonl(tables: Iterable[pa.Table], sink: BinaryIO) -> int:
    count = 0
    for line in chain.from_iterable(map(encode_rows, tables)):
        sink.write(line)
        count += 1
    return count


def _parquet(tables: Iterable[pa.Table], sink: BinaryIO) -> int:
    count = 0
    with parquet_writer(sink, ROWS) as writer:
        # Who imports it must not take the other episodes of these writers for lost.
        writer.add_key_value_metadata({"simtune.origin": "import"})
        for rows in in_groups(tables):
            writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
            count += rows.num_rows
    return count


def in_groups(tables: Iterable[pa.Table], rows: int = ROW_GROUP_ROWS) -> Iterator[pa.Table]:
    """The same rows in tables of so many rows, the last of what is left."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)
