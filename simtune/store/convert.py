"""Log rows -> Arrow record batches.

Capture writes only rows that fit their columns. One that another writer logged is converted by
the same rules, and `extra` says how: a row is never lost, and never stops the compactor.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Final

import msgspec
import pyarrow as pa

from simtune.recording.encoding import storable
from simtune.records import Message, Messages, Row
from simtune.store.schema import MESSAGE_FIELDS, ROWS

_FIELDS: Final = Row.__struct_fields__
_KNOWN: Final = frozenset(MESSAGE_FIELDS)


def record_batch(writer_id: str, numbered: Sequence[tuple[int, Row]]) -> pa.RecordBatch:
    """Convert rows of one writer.

    Args:
        writer_id: the log's writer.
        numbered: `(seq, row)` pairs as read from its segments.
    """
    seqs = [seq for seq, _ in numbered]
    rows = [row for _, row in numbered]
    try:
        return _batch(writer_id, seqs, rows)
    except (OverflowError, TypeError, pa.ArrowInvalid):
        return _batch(writer_id, seqs, [storable(row) for row in rows])


def _batch(writer_id: str, seqs: list[int], rows: list[Row]) -> pa.RecordBatch:
    values = zip(*map(msgspec.structs.astuple, rows), strict=True)
    columns: dict[str, Sequence[Any]] = dict(zip(_FIELDS, values, strict=True))
    columns["decision_id"] = [
        f"{writer_id}-{seq}" if row.kind == "decision" else row.target
        for seq, row in zip(seqs, rows, strict=True)
    ]
    columns["seq"] = seqs
    columns["writer_id"] = [writer_id] * len(rows)
    arrays = [_column(field, columns[field.name]) for field in ROWS]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if field.name == "prompt":
        return _prompts(values, field.type)
    if pa.types.is_list(field.type):
        return _lists(values, field.type)
    return pa.array(values, type=field.type)


def _lists(values: Sequence[Sequence[Any]], kind: pa.ListType) -> pa.ListArray:
    flat = chain.from_iterable(values)
    if pa.types.is_string(kind.value_type):
        items = pa.array(flat, type=pa.string())
    else:
        # A typed buffer takes Python numbers three times as fast as pa.array does.
        numbers = array("i" if pa.types.is_int32(kind.value_type) else "f", flat)
        buffers = [None, pa.py_buffer(numbers)]
        items = pa.Array.from_buffers(kind.value_type, len(numbers), buffers)
    return pa.ListArray.from_arrays(_offsets(values), items, type=kind)


def _offsets(values: Iterable[Sequence[Any]]) -> pa.Array:
    return pa.array(array("i", accumulate(map(len, values), initial=0)), type=pa.int32())


def _prompts(values: Sequence[Messages | None], kind: pa.ListType) -> pa.ListArray:
    missing = [messages is None for messages in values]
    filled: list[Messages] = [messages or [] for messages in values]
    turns: list[Message] = list(chain.from_iterable(filled))
    if not all(turn.keys() <= _KNOWN for turn in turns):
        raise TypeError("a message has fields that are no columns")
    fields = [
        pa.array([turn.get(name) for turn in turns], type=pa.string()) for name in MESSAGE_FIELDS
    ]
    messages = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
    mask = pa.array(missing) if any(missing) else None
    return pa.ListArray.from_arrays(_offsets(filled), messages, type=kind, mask=mask)
