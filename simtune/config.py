"""Where and how decisions are kept: `simtune.configure` and its `SIMTUNE_*` variables."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias, get_args

import msgspec

from simtune.errors import OptionError

Durability: TypeAlias = Literal["buffered", "os", "disk"]
Backpressure: TypeAlias = Literal["block", "raise", "drop"]
CompactorStart: TypeAlias = Literal["auto", "none"]

LARGEST_RECORD = 128 * 1024 * 1024  # half of what readers of the log accept


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Capture settings, fixed from the first captured decision until `configure` is called again.

    Attributes:
        root: directory of the store, or URL of a remote one.
        durability: `buffered` (written within 20 ms), `os` (written on return, survives
            kill -9), or `disk` (on stable storage on return).
        backpressure: what a full buffer, or a log that waits for compaction, does to the caller.
        buffer_bytes: captured bytes that may wait in memory before back-pressure sets in.
        backlog_bytes: bytes of log that may wait for compaction before back-pressure sets in.
        compactor: `auto` starts a compactor process once an eighth of `backlog_bytes` waits.
        record_bytes: size of the largest row that is kept.
        segment_bytes: size at which a log segment is sealed.
        segment_seconds: age at which a log segment is sealed.
        local: where the log lies if the root is a URL; `""` is `~/.local/state/simtune`.
    """

    root: str = "./simtune-data"
    durability: Durability = "buffered"
    backpressure: Backpressure = "block"
    buffer_bytes: int = 8 * 1024 * 1024
    backlog_bytes: int = 4 * 1024 * 1024 * 1024
    compactor: CompactorStart = "auto"
    record_bytes: int = 64 * 1024 * 1024
    segment_bytes: int = 16 * 1024 * 1024
    segment_seconds: float = 30.0
    local: str = ""

    def __post_init__(self) -> None:
        """Refuse values that would only fail later."""
        for name, allowed in (
            ("durability", get_args(Durability)),
            ("backpressure", get_args(Backpressure)),
            ("compactor", get_args(CompactorStart)),
        ):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"unknown {name}", expected=" | ".join(allowed), got=getattr(self, name)
                )
        if not self.root:
            raise OptionError("the store's root is empty", expected="a directory", got=repr(""))
        for name in ("buffer_bytes", "backlog_bytes", "record_bytes", "segment_bytes"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} is too small", expected="> 0", got=getattr(self, name))
        if self.record_bytes > LARGEST_RECORD:
            raise OptionError(
                "record_bytes is too large",
                expected=f"at most {LARGEST_RECORD}",
                got=self.record_bytes,
            )


_current: Config | None = None


def from_environment() -> Config:
    """Read the `SIMTUNE_*` variables, one for each setting: `SIMTUNE_BACKLOG_BYTES` and so on.

    Raises:
        OptionError: a value cannot be used.
    """
    variables = {f"SIMTUNE_{name.upper()}": name for name in Config.__struct_fields__}
    named = {variables[key]: value for key, value in os.environ.items() if key in variables}
    try:
        return msgspec.convert(named, Config, strict=False)
    except msgspec.ValidationError as error:
        raise OptionError(
            "a SIMTUNE_* variable cannot be used", got=f"{error} (of {named})"
        ) from error


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
