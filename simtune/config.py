"""Where and how decisions are kept: `simtune.configure` and its `SIMTUNE_*` variables."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias, get_args

import msgspec

from simtune.errors import OptionError

Durability: TypeAlias = Literal["buffered", "os", "disk"]
Backpressure: TypeAlias = Literal["block", "raise", "drop"]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Capture settings, fixed from the first captured decision until `configure` is called again.

    Attributes:
        root: directory of the store.
        durability: `buffered` (written within 20 ms), `os` (written on return, survives
            kill -9), or `disk` (on stable storage on return).
        backpressure: what a full buffer does to the caller.
        buffer_bytes: captured bytes that may wait in memory before back-pressure sets in.
        segment_bytes: size at which a log segment is sealed.
        segment_seconds: age at which a log segment is sealed.
    """

    root: str = "./simtune-data"
    durability: Durability = "buffered"
    backpressure: Backpressure = "block"
    buffer_bytes: int = 8 * 1024 * 1024
    segment_bytes: int = 16 * 1024 * 1024
    segment_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values that would only fail later."""
        for name, allowed in (
            ("durability", get_args(Durability)),
            ("backpressure", get_args(Backpressure)),
        ):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"unknown {name}", expected=" | ".join(allowed), got=getattr(self, name)
                )
        if not self.root:
            raise OptionError("the store's root is empty", expected="a directory", got=repr(""))


_current: Config | None = None


def from_environment() -> Config:
    """Read `SIMTUNE_ROOT`, `SIMTUNE_DURABILITY` and `SIMTUNE_BACKPRESSURE`."""
    named = {
        name: os.environ[f"SIMTUNE_{name.upper()}"]
        for name in ("root", "durability", "backpressure")
        if f"SIMTUNE_{name.upper()}" in os.environ
    }
    return Config(**named)  # type: ignore[arg-type]  # checked in __post_init__


def current() -> Config:
    """The settings in force; read from the environment at the first call."""
    global _current
    if _current is None:
        _current = from_environment()
    return _current


def replace(**changes: object) -> Config:
    """Change some settings and return the whole; None leaves a setting as it is."""
    global _current
    known = {name: value for name, value in changes.items() if value is not None}
    _current = msgspec.structs.replace(current(), **known)
    return _current
