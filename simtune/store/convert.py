"""Log rows -> Arrow record batches: whole columns at a time, packed numbers as they lie."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from simtune.recording.encoding import LoggedMessage, LoggedRow
from simtune.store.schema import MESSAGE_FIELDS, ROWS

_FIELDS: Final = LoggedRow.__struct_fields__
_ITEM_BYTES: Final = 4


class Entry(NamedTuple):
    """A row and its place: entries compare as the rows of a file are sorted.

    Attributes:
        episode_id: the row's own.
        step: the row's own.
        seq: its position within its writer.
        writer_id: who logged it.
        row: the row.
    """

    episode_id: str
    step: int
    seq: int
    writer_id: str
    row: LoggedRow


def record_batch(entries: Sequence[Entry]) -> pa.RecordBatch:
    """The table's rows of some entries, in their order."""
    rows = [entry.row for entry in entries]
    values = zip(*map(msgspec.structs.astuple, rows), strict=True)
    columns: dict[str, Sequence[Any]] = dict(zip(_FIELDS, values, strict=True))
    columns["decision_id"] = [
        f"{writer_id}-{seq}" if row.kind == "decision" else row.target
        for _, _, seq, writer_id, row in entries
    ]
    columns["seq"] = [entry.seq for entry in entries]
    columns["writer_id"] = [entry.writer_id for entry in entries]
    arrays = [_column(field, columns[field.name]) for field in ROWS]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if field.name == "prompt":
        return _prompts(values, field.type)
    if not pa.types.is_list(field.type):
        return pa.array(values, type=field.type)
    if pa.types.is_string(field.type.value_type):
        items = pa.array(chain.from_iterable(values), type=pa.string())
        return pa.ListArray.from_arrays(_offsets(values), items, type=field.type)
    return _packed(values, field.type)


def _packed(values: Sequence[bytes], kind: pa.ListType) -> pa.ListArray:
    data = b"".join(value for value in values if value)
    count = len(data) // _ITEM_BYTES
    items = pa.Array.from_buffers(kind.value_type, count, [None, pa.py_buffer(data)])
    return pa.ListArray.from_arrays(_offsets(values, _ITEM_BYTES), items, type=kind)


def _offsets(values: Iterable[Sequence[Any]], size: int = 1) -> pa.Array:
    ends = accumulate((len(value) // size for value in values), initial=0)
    return pa.array(array("i", ends), type=pa.int32())


def _prompts(values: Sequence[list[LoggedMessage] | None], kind: pa.ListType) -> pa.ListArray:
    missing = [messages is None for messages in values]
    filled = [messages or [] for messages in values]
    turns = chain.from_iterable(filled)
    columns = list(zip(*map(msgspec.structs.astuple, turns), strict=True))
    fields = [
        pa.array(column, type=pa.string()) for column in columns or [()] * len(MESSAGE_FIELDS)
    ]
    messages = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
    mask = pa.array(missing) if any(missing) else None
    return pa.ListArray.from_arrays(_offsets(filled), messages, type=kind, mask=mask)
