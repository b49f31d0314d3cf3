"""Values that are typed by how they are written, as in YAML: `K=V` options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simtune.errors import OptionError

_WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None}


def typed(text: str) -> Any:
    """`true`, `False`, `null`, `3`, `1e-4`, `[1, 2]` and `{"a": 1}` as such; the rest is text."""
    import msgspec

    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return msgspec.json.decode(word)
    except msgspec.DecodeError:
        return text


def pairs(items: Iterable[str], *, option: str) -> dict[str, Any]:
    """Make a dict of `K=V` texts.

    Raises:
        OptionError: one of them has no `=`, or a key comes twice.
    """
    made: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise OptionError(f"{option} takes NAME=VALUE", got=repr(item))
        if key in made:
            raise OptionError(f"{option} was given {key!r} twice", got=repr(item))
        made[key] = typed(value)
    return made
