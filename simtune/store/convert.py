"""Log rows -> Arrow record batches: whole columns at a time, packed numbers as they lie."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, Final

import msgspec
import pyarrow as pa

from simtune.recording.encoding import LoggedMessage, LoggedRow
from simtune.store.schema import MESSAGE_FIELDS, ROWS

_ITEM_BYTES: Final = 4


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row and its place; the first four are what a file is sorted by.

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
    own: dict[str, Sequence[Any]] = {
        "decision_id": [
            f"{entry.writer_id}-{entry.seq}" if entry.row.kind == "decision" else entry.row.target
            for entry in entries
        ],
        "seq": [entry.seq for entry in entries],
        "writer_id": [entry.writer_id for entry in entries],
    }
    arrays = [
        _column(field, own.get(field.name) or list(map(attrgetter(field.name), rows)))
        for field in ROWS
    ]
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


def _prompts(values: Sequence[Sequence[LoggedMessage] | None], kind: pa.ListType) -> pa.ListArray:
    missing = [messages is None for messages in values]
    filled = [messages or () for messages in values]
    turns = list(chain.from_iterable(filled))
    fields = [
        pa.array(list(map(attrgetter(name), turns)), type=pa.string()) for name in MESSAGE_FIELDS
    ]
    messages = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
    mask = pa.array(missing) if any(missing) else None
    return pa.ListArray.from_arrays(_offsets(filled), messages, type=kind, mask=mask)
