"""Rows as JSON lines and back, value for value.

Columns keep their names. Columns that hold JSON stay text, so that nothing is reformatted; `ts` is
microseconds since the epoch. JSON has no NaN: a number that is not finite is the text `NaN`,
`Infinity` or `-Infinity`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from simtune.errors import DataError
from simtune.store.schema import ROWS

_LINE_BYTES: Final = 256 << 20
_BATCH_ROWS: Final = 2048
_FLOATS: Final = ("logprobs", "choice_logprobs")
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_rows(rows: pa.Table) -> Iterator[bytes]:
    """The lines of some rows, each with its newline."""
    position = rows.schema.get_field_index("ts")
    plain = rows.set_column(position, "ts", rows["ts"].cast(pa.int64()))
    for row in plain.to_pylist():
        row["reward"] = _written(row["reward"])
        for name in _FLOATS:
            if row[name] is not None:
                row[name] = [_written(number) for number in row[name]]
        yield msgspec.json.encode(row) + b"\n"


def decode_rows(path: Path) -> Iterator[pa.Table]:
    """The rows of a file of JSON lines.

    Raises:
        DataError: a line is no JSON, has no or other columns, or a value of the wrong type.
    """
    batch: list[dict[str, Any]] = []
    first = 1
    with open(path, "rb") as file:
        for number in _count_from_one():
            line = file.readline(_LINE_BYTES)
            if line.strip():
                batch.append(_row(path, number, line))
            if batch and (not line or len(batch) == _BATCH_ROWS):
                yield _table(path, first, number, batch)
                batch, first = [], number + 1
            if not line:
                return


def _count_from_one() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(path, number, error) from error
    if not isinstance(row, dict) or set(row) - set(ROWS.names) or not {"kind", "seq"} <= set(row):
        got = f"columns {', '.join(map(str, row))}" if isinstance(row, dict) else "no object"
        raise _bad(path, number, got)
    try:
        row["reward"] = _read(row.get("reward"))
        for name in _FLOATS:
            row[name] = [_read(value) for value in row.get(name) or []]
    except (TypeError, KeyError) as error:
        raise _bad(path, number, f"a number that is none: {error}") from error
    return row


def _table(path: Path, first: int, last: int, rows: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=ROWS)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: a value in lines {first} to {last} has the wrong type",
            expected="rows as docs/format.md describes them",
            got=str(error).splitlines()[0],
        ) from error


def _bad(path: Path, number: int, got: object) -> DataError:
    return DataError(
        f"{path}: line {number} is no row of an export",
        expected="JSON lines as `simtune episodes export --format jsonl` writes them",
        got=got,
    )


def _written(number: float | None) -> float | str | None:
    if number is None or math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _read(value: Any) -> float | None:
    if isinstance(value, str):
        return _SPECIAL[value]
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise TypeError(type(value).__name__)
