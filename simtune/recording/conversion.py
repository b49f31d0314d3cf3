"""Making anything a simulation hands over into something that can be kept.

`plain` turns any object into None, bool, int, float, str, list and dict with text keys, and notes
where the result is not the same thing: lone surrogates, integers over 64 bits, bytes, numpy
arrays (numpy itself is never imported), arbitrary objects. `to_json` does that only where it must:
JSON's own types, dataclasses, dates and the like take the fast way and need no note. JSON has no
NaN: it becomes null.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Set
from typing import Any, TypeAlias

import msgspec

from simtune.recording.guard import attempt

Notes: TypeAlias = dict[str, str]
"""Path of a value, such as `prompt[0].content`, to what was done to it."""

UNFIT = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What the encoders raise for a value that they cannot write or that could not be read back."""

_DEEPEST = 48
_INT64 = range(-(2**63), 2**63)


def exact(value: Any) -> Any:
    """The builtin value of a subclass of str, float or int, or of a numpy scalar: lossless.

    Serves as msgspec's `enc_hook`; raises TypeError for anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        item = value.item()
        if type(item) in (bool, int, float, str):
            return item
    raise TypeError(f"{_type_name(value)} is converted only with a note")


_encode_json = msgspec.json.Encoder(enc_hook=exact).encode


def to_json(value: Any, path: str, notes: Notes) -> str | None:
    """JSON text of a value, None for None; what had to be converted is added to `notes`."""
    if value is None:
        return None
    try:
        return _encode_json(value).decode()
    except UNFIT:
        return _encode_json(plain(value, path, notes)).decode()


def plain(value: Any, path: str, notes: Notes, depth: int = 0) -> Any:
    """A copy of a value that holds only JSON's types; conversions are added to `notes`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, path, notes)
    if isinstance(value, int):
        return _integer(int.__int__(value), path, notes)
    if isinstance(value, float):
        return float.__float__(value)
    if depth > _DEEPEST:
        notes[path] = "nested too deeply, or within itself: left out"
        return None
    if isinstance(value, Mapping):
        return _mapping(value, path, notes, depth)
    if isinstance(value, list | tuple | Set):
        return [plain(item, f"{path}[{i}]", notes, depth + 1) for i, item in enumerate(value)]
    return _object(value, path, notes, depth)


def text(value: str, path: str, notes: Notes) -> str:
    """Text that UTF-8 can hold: lone surrogates become backslash escapes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        notes[path] = "lone surrogates escaped"
        return value.encode(errors="backslashreplace").decode()
    return str.__str__(value)


def describe(value: Any, show: Callable[[Any], str] = repr) -> str:
    """`repr` or `str`, of whatever; never raises."""
    shown, error = attempt(show, value)
    return shown if error is None and shown is not None else f"<{_type_name(value)}>"


def _integer(value: int, path: str, notes: Notes) -> int | str:
    if value in _INT64:
        return value
    notes[path] = "integer over 64 bits as hexadecimal text"
    return hex(value)


def _mapping(value: Mapping[Any, Any], path: str, notes: Notes, depth: int) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, item in value.items():
        name = text(key if isinstance(key, str) else describe(key), f"{path} (a key)", notes)
        if not isinstance(key, str):
            notes[f"{path}.{name}"] = f"key was {_type_name(key)}"
        copied[name] = plain(item, f"{path}.{name}", notes, depth + 1)
    return copied


def _object(value: Any, path: str, notes: Notes, depth: int) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        notes[path] = "bytes as base64"
        return base64.b64encode(value).decode()
    notes[path] = f"was {_type_name(value)}"
    content, error = attempt(_content, value)
    if error is not None or content is value:
        notes[path] += ", as its repr"
        return text(describe(value), path, {})
    return plain(content, path, notes, depth + 1)


def _content(value: Any) -> Any:
    """What an object holds; raises anything where it does not say."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return msgspec.to_builtins(value)


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
