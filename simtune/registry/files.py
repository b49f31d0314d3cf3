"""The registry's file: read whole, written under a lock by atomic rename."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from simtune.errors import RegistryError
from simtune.registry.history import Change
from simtune.registry.record import ModelRecord

REGISTRY_FILE = "registry.json"
LOCK_FILE = ".registry.lock"
FORMAT = 1


class Index(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The content of `registry.json`.

    Attributes:
        format: of the file.
        models: in the order of their registration.
        history: every decision about which of them is champion, oldest first.
    """

    format: int = FORMAT
    models: list[ModelRecord] = msgspec.field(default_factory=list)
    history: list[Change] = msgspec.field(default_factory=list)


@contextmanager
def locked(models_dir: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold the registry's lock, or another one of its directory; others wait."""
    with open(models_dir / name, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def read_index(models_dir: Path) -> Index:
    """Read the registry; an absent file is an empty registry, a broken one is an error.

    Raises:
        RegistryError: it cannot be read, or is not what simtune wrote. It is never overwritten.
    """
    path = models_dir / REGISTRY_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Index()
    except OSError as error:
        raise RegistryError(
            f"the registry {str(path)!r} cannot be read",
            expected="a directory that holds registry.json, or none yet",
            got=error,
            fix="--models-dir DIR names another one",
        ) from error
    try:
        index = msgspec.json.decode(content, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RegistryError(
            f"the registry {str(path)!r} cannot be read",
            expected=f"JSON with format {FORMAT} and a list of models",
            got=error,
            fix="mend the file or move it away; the adapters beside it are untouched",
        ) from error
    if index.format != FORMAT:
        raise RegistryError(
            f"the registry {str(path)!r} has another format",
            expected=f"format {FORMAT}",
            got=f"format {index.format}",
            fix="use the simtune release that wrote it",
        )
    return index


def write_index(models_dir: Path, index: Index) -> None:
    """Replace the registry in one step; a reader sees the old or the new file, never a part."""
    target = models_dir / REGISTRY_FILE
    partial = models_dir / f".{REGISTRY_FILE}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as handle:
            handle.write(msgspec.json.format(msgspec.json.encode(index), indent=2) + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
