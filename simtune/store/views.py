"""SQL over a store: DuckDB with views `decisions`, `episodes`, `scores` and the table `rows`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from simtune.errors import CorruptError, DataError, MissingExtraError

_DECISIONS: Final = """
CREATE TEMP VIEW decisions AS
SELECT rows.* REPLACE (
    CASE WHEN late.reward IS NULL THEN rows.reward
         ELSE coalesce(rows.reward, 0) + late.reward END AS reward)
FROM rows LEFT JOIN late ON rows.decision_id = late.decision_id
WHERE rows.kind = 'decision'
"""


def run_sql(query: str, tables: Mapping[str, Callable[[], Any]]) -> pa.Table:
    """Run one query.

    Args:
        query: DuckDB SQL.
        tables: what makes the Arrow table or dataset of `rows`, `late` (sums of late rewards),
            `episodes` and `scores`; only those that the query mentions are made.

    Raises:
        MissingExtraError: DuckDB is not installed.
        DataError: DuckDB refuses the query.
        CorruptError: a file fails its checksum while it is read.
    """
    with _connected(query, tables) as connection:
        return connection.sql(query).to_arrow_table()


def sql_batches(
    query: str, tables: Mapping[str, Callable[[], Any]], rows: int
) -> Iterator[pa.RecordBatch]:
    """As `run_sql`, but the result comes in batches of so many rows, as they are made."""
    with _connected(query, tables) as connection:
        yield from connection.sql(query).to_arrow_reader(rows)


@contextmanager
def _connected(query: str, tables: Mapping[str, Callable[[], Any]]) -> Iterator[Any]:
    """DuckDB with what a query mentions; its errors become ours."""
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("SQL over a store", package="duckdb", extra="train") from error
    settings = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    with duckdb.connect(":memory:", config=settings) as connection:
        connection.execute("SET python_enable_replacements = false; SET TimeZone = 'UTC'")
        for name in _needed(query, tables):
            connection.register(name, tables[name]())
        try:
            if _mentions(query, "decisions"):
                connection.execute(_DECISIONS)
            yield connection
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _failure(str(error)) from error


def _mentions(query: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", query, re.IGNORECASE) is not None


def _needed(query: str, names: Mapping[str, Any]) -> list[str]:
    base = ("rows", "late") if _mentions(query, "decisions") else ()
    return [name for name in names if name in base or _mentions(query, name)]


def _failure(said: str) -> DataError:
    if "checksum" in said or "arrow_scan" in said:
        return CorruptError("a file of the store cannot be read", got=said)
    return DataError(
        "the query failed", expected="SQL over decisions, episodes, scores, rows", got=said
    )
