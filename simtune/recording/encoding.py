"""A row as the payload of a frame, encoded on the caller's thread, and back.

A payload is the msgpack array of a row's fields. Lists of numbers are `bin`: `<i4` token ids, `<f4`
log-probabilities; none is an empty array. What is written can be read: every payload is decoded
once as the `LoggedRow` that the compactor decodes. A row that does not fit is converted field by
field and says so in `extra`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from simtune.recording.conversion import UNFIT, exact
from simtune.recording.storable import storable
from simtune.records import Row

_Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Packed: TypeAlias = bytes | tuple[()]
"""Numbers of 4 bytes each, little-endian."""

_LISTS: Final = ("prompt_token_ids", "token_ids", "logprobs", "choice_logprobs")
_NONE: Final[tuple[()]] = ()
_UNFIT: Final = (*UNFIT, struct.error)
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError, struct.error)
"""What decoding raises for bytes that are no row."""


class LoggedMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One chat turn, as the columns of `prompt` hold it."""

    role: str
    content: str | None = None
    name: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None


class LoggedRow(Row, array_like=True, kw_only=True, gc=False):
    """A row as its payload has it, every field of its column's type."""

    step: _Int64 = 0
    ts: _Int64 = 0
    mono_ns: _Int64 = 0
    latency_us: _Int64 | None = None
    prompt: tuple[LoggedMessage, ...] | None = None  # type: ignore[assignment]
    prompt_token_ids: Packed = ()
    token_ids: Packed = ()
    logprobs: Packed = ()
    choices: tuple[str, ...] = ()
    choice_logprobs: Packed = ()


class _LooseRow(Row, array_like=True, kw_only=True):
    # What other writers may log: messages of any fields, numbers as plain arrays.
    prompt_token_ids: bytes | list[Any] = msgspec.field(default_factory=list)
    token_ids: bytes | list[Any] = msgspec.field(default_factory=list)
    logprobs: bytes | list[Any] = msgspec.field(default_factory=list)
    choice_logprobs: bytes | list[Any] = msgspec.field(default_factory=list)


_encode = msgspec.msgpack.Encoder(enc_hook=exact).encode
_decode = msgspec.msgpack.Decoder(LoggedRow).decode
_decode_loose = msgspec.msgpack.Decoder(_LooseRow).decode


def encode_row(row: Row) -> bytes:
    """The payload of a row; the row itself is left as it is."""
    try:
        payload = _encode(_with_packed_lists(row))
        _decode(payload)
        return payload
    except _UNFIT:
        payload = _encode(_with_packed_lists(storable(row)))
        _decode(payload)
        return payload


def decode_row(payload: bytes) -> Row:
    """The row of a payload.

    Raises:
        One of `UNREADABLE`: the payload is no row.
    """
    fields = msgspec.structs.asdict(_decode_loose(payload))
    for name in _LISTS:
        fields[name] = _unpacked(fields[name], name)
    return Row(**fields)


def decode_logged(payload: bytes) -> LoggedRow:
    """The row of a payload, as the table's columns take it; converted where it does not fit.

    Raises:
        One of `UNREADABLE`: the payload is no row.
    """
    try:
        row = _decode(payload)
    except UNREADABLE:
        return _decode(encode_row(decode_row(payload)))
    odd = len(row.prompt_token_ids) | len(row.token_ids)
    if (odd | len(row.logprobs) | len(row.choice_logprobs)) & 3:
        raise msgspec.ValidationError("packed numbers are not whole")
    return row


def _with_packed_lists(row: Row) -> Row:
    ids, logprobs, options = row.token_ids, row.logprobs, row.choice_logprobs
    if ids is logprobs is options is row.prompt_token_ids is _NONE:
        return row
    row = row.__copy__()  # type: ignore[attr-defined]
    row.prompt_token_ids = _packed(row.prompt_token_ids, "i")
    row.token_ids = _packed(ids, "i")
    row.logprobs = _packed(logprobs, "f")
    row.choice_logprobs = _packed(options, "f")
    return row


def _packed(numbers: Any, kind: str) -> Packed:
    if type(numbers) is not tuple and type(numbers) is not list:
        raise TypeError("only a list or a tuple is packed without a note")
    if not numbers:
        return ()
    return _packer(len(numbers), kind)(*numbers)


@lru_cache(maxsize=4096)
def _packer(count: int, kind: str) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{kind}").pack


def _unpacked(numbers: bytes | list[Any], name: str) -> Any:
    if not isinstance(numbers, bytes):
        return numbers
    return list(struct.unpack(f"<{len(numbers) // 4}{'f' if 'log' in name else 'i'}", numbers))
