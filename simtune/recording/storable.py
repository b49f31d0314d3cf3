"""Rows made to fit the table's columns, field by field; `extra` says what was changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from simtune.recording.conversion import Notes, describe, exact, plain, text, to_json
from simtune.recording.guard import attempt
from simtune.records import Row

_MESSAGE_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
_FLOAT32_MAX: Final = (2 - 2**-23) * 2.0**127


def with_dropped(row: Row, dropped: int) -> Row:
    """A copy of a row that says how many rows before it back-pressure dropped."""
    extra = {**_held(row.extra), "dropped": dropped}
    return msgspec.structs.replace(row, extra=to_json(extra, "extra", {}))


def with_notes(extra: Mapping[str, Any], notes: Notes) -> Mapping[str, Any]:
    """What `extra` holds, and under `converted` also these notes."""
    return {**extra, "converted": {**extra.get("converted", {}), **notes}} if notes else extra


def _held(extra: str | None) -> dict[str, Any]:
    try:
        held = msgspec.json.decode(extra or "{}")
    except msgspec.DecodeError:
        held = {"text": extra}
    return held if isinstance(held, dict) else {"value": held}


def storable(row: Row) -> Row:
    """A copy of a row whose every field has its column's type; `extra` says what was changed."""
    notes: Notes = {}
    fields: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value, _ = attempt(exact, getattr(row, name))
        convert = _CONVERSIONS.get(name, _optional_text)
        fields[name] = convert(getattr(row, name) if value is None else value, name, notes)
    unknown = _unknown_fields(_as_list(row.prompt))
    extra = with_notes(_held(fields["extra"]), notes)
    if unknown:
        extra = {**extra, "prompt_fields": unknown}
    fields["extra"] = to_json(extra or None, "extra", {})
    return Row(**fields)


def _optional_text(value: Any, path: str, notes: Notes) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else text(value, path, notes)
    notes[path] = f"was {type(value).__name__}, as JSON"
    return to_json(value, path, {})


def _optional_float(value: Any, path: str, notes: Notes) -> float | None:
    if value is None:
        return None
    number, error = attempt(float, value)
    if error is not None:
        notes[path] = f"left out, not a number: {text(describe(value), path, {})}"
    return number


def _optional_int(value: Any, path: str, notes: Notes) -> int | None:
    if value is None:
        return None
    number = value if isinstance(value, int) else _optional_float(value, path, notes)
    if number is None or not -(2**63) <= number < 2**63:
        notes.setdefault(path, f"left out, not a 64-bit integer: {text(describe(value), path, {})}")
        return None
    return int(number)


def _int(value: Any, path: str, notes: Notes) -> int:
    return _optional_int(value, path, notes) or 0


def _optional_bool(value: Any, path: str, notes: Notes) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    truth, error = attempt(bool, value)
    notes[path] = f"was {type(value).__name__}" if error is None else f"left out: {error}"
    return truth


def _listed(value: Any, path: str, notes: Notes) -> list[Any]:
    found = plain(value, path, notes)
    if isinstance(found, list):
        return found
    if found is not None:
        notes[path] = f"left out, not a sequence: {text(describe(value), path, {})}"
    return []


def _token_ids(value: Any, path: str, notes: Notes) -> list[int]:
    found = _listed(value, path, notes)
    ids = []
    for item in found:
        whole = isinstance(item, int) or (isinstance(item, float) and item.is_integer())
        if not whole or not -(2**31) <= item < 2**31:
            notes[path] = f"left out, not all token ids: {item!r}"
            return []
        ids.append(int(item))
    return ids


def _floats(value: Any, path: str, notes: Notes) -> list[float]:
    found = _listed(value, path, notes)
    return [_float32(item, f"{path}[{i}]", notes) for i, item in enumerate(found)]


def _float32(value: Any, path: str, notes: Notes) -> float:
    number = _optional_float(value, path, notes)
    if number is None:
        return math.nan
    if math.isfinite(number) and abs(number) > _FLOAT32_MAX:
        notes[path] = f"infinite, beyond 32 bits: {number!r}"
        return math.copysign(math.inf, number)
    return number


def _texts(value: Any, path: str, notes: Notes) -> list[str]:
    found = _listed(value, path, notes)
    return [_optional_text(item, f"{path}[{i}]", notes) or "" for i, item in enumerate(found)]


def _prompt(value: Any, path: str, notes: Notes) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    return [_message(item, f"{path}[{i}]", notes) for i, item in enumerate(_as_list(value))]


def _as_list(prompt: Any) -> Sequence[Any]:
    return prompt if isinstance(prompt, list | tuple) else [prompt]


def _message(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {"role": "user", "content": _optional_text(value, path, notes)}
    message = {
        name: _optional_text(value[name], f"{path}.{name}", notes)
        for name in _MESSAGE_FIELDS
        if value.get(name) is not None
    }
    if "role" not in message:
        notes[f"{path}.role"] = "was missing"
        message["role"] = "user"
    return message


def _unknown_fields(prompt: Sequence[Any]) -> dict[str, Any]:
    """Fields of messages that the prompt column has no place for, by the message's index."""
    found = {
        str(i): {key: item for key, item in message.items() if key not in _MESSAGE_FIELDS}
        for i, message in enumerate(prompt)
        if isinstance(message, Mapping)
    }
    kept = {i: fields for i, fields in found.items() if fields}
    return plain(kept, "prompt", {}) if kept else {}


_CONVERSIONS: dict[str, Any] = {
    "prompt": _prompt,
    "prompt_token_ids": _token_ids,
    "token_ids": _token_ids,
    "logprobs": _floats,
    "choice_logprobs": _floats,
    "choices": _texts,
    "step": _int,
    "ts": _int,
    "mono_ns": _int,
    "latency_us": _optional_int,
    "reward": _optional_float,
    "valid": _optional_bool,
    "terminated": _optional_bool,
    "truncated": _optional_bool,
}
