"""How a Parquet file takes the place of log segments: all of it or nothing, whatever happens.

    1. `_staging/<part>`          the rows, on stable storage
    2. `_staging/<part>.intent`   {final, size, inputs, damaged}, on stable storage
    3. into `data/v1/`            THE COMMIT POINT: a rename, or what `placing` does for a URL
    4. remove the inputs, directory on stable storage, then the intent

`recover` decides by whether the final file exists: if so it finishes step 4, else it discards 1 and
2. A store behind a URL has 1, 2 and 4 on this host. Killed at any point, no row is lost and none is
there twice. Call both with the compactor's lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from simtune.errors import CorruptError
from simtune.recording.directories import make_directory, sync_directory
from simtune.recording.segments import wal_directory
from simtune.store.layout import DATA, STAGING, durable_file, is_part_name, part_name
from simtune.store.placing import discard, is_placed, place, prepare
from simtune.store.remote import AnyPath
from simtune.store.roots import Root

_SEGMENT: Final = re.compile(r"[0-9a-f]{16}-\d{8,}\.wal")
_INTENT: Final = ".intent"
_UNFINISHED: Final = ".unfinished"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit replaces.

    Attributes:
        final: name of the Parquet file in `data/v1/`.
        size: of the file, where it goes behind a URL.
        inputs: names of log segments whose rows are all in it, to be removed.
        damaged: names of log segments of which only the part before the damage is in it, to be
            set aside as `<name>.damaged`.
    """

    final: str
    inputs: list[str]
    damaged: list[str]
    size: int | None = None


def publish(
    root: Root,
    write: Callable[[BinaryIO], None],
    inputs: Sequence[Path],
    damaged: Sequence[Path] = (),
) -> AnyPath:
    """Write one Parquet file and commit it in place of its inputs; returns its path."""
    staging, data = root.local / STAGING, root.tables / DATA
    make_directory(staging)
    prepare(data)
    name = part_name(data)
    with durable_file(staging / name) as file:
        write(file)
    intent = Intent(
        final=name,
        inputs=[path.name for path in inputs],
        damaged=[path.name for path in damaged],
        size=(staging / name).stat().st_size if root.is_remote else None,
    )
    _write_intent(staging, intent)
    place(staging / name, data / name)
    _finish(root.local, intent)
    return data / name


def recover(root: Root) -> None:
    """Bring a commit that was cut short to its end, or undo it."""
    staging = root.local / STAGING
    if not staging.is_dir():
        return
    for path in sorted(staging.glob(f"*{_INTENT}")):
        intent = _read_intent(path)
        final = root.tables / DATA / intent.final
        placed = is_placed(final, intent.size)
        discard(final)
        if placed:
            _finish(root.local, intent)
        else:
            path.unlink()
    sync_directory(staging)
    for path in staging.iterdir():
        if is_part_name(path.name) or path.name.endswith(_UNFINISHED):
            path.unlink()


def is_interrupted(root: Path) -> bool:
    """Whether a commit is under way or was cut short."""
    return any((root / STAGING).glob(f"*{_INTENT}"))


def _write_intent(staging: Path, intent: Intent) -> None:
    unfinished = staging / (intent.final + _UNFINISHED)
    with durable_file(unfinished) as file:
        file.write(msgspec.json.encode(intent))
    os.rename(unfinished, staging / (intent.final + _INTENT))
    sync_directory(staging)


def _read_intent(path: Path) -> Intent:
    try:
        intent = msgspec.json.decode(path.read_bytes(), type=Intent)
    except msgspec.DecodeError as error:
        raise _unusable(path, str(error)) from error
    if not is_part_name(intent.final) or path.name != intent.final + _INTENT:
        raise _unusable(path, f"final = {intent.final!r}")
    for name in (*intent.inputs, *intent.damaged):
        if not _SEGMENT.fullmatch(name):
            raise _unusable(path, f"input = {name!r}")
    return intent


def _unusable(path: Path, got: str) -> CorruptError:
    return CorruptError(
        f"{path} is no usable record of an unfinished compaction",
        expected="JSON {final, inputs, damaged} naming a part and log segments",
        got=got,
        fix="move the file away only if you know whether its Parquet file is in data/v1/",
    )


def retire(root: Path, inputs: Sequence[str], damaged: Sequence[str]) -> None:
    """Remove log segments whose rows are all in `data/v1/`, and set damaged ones aside."""
    wal = wal_directory(root)
    for name in inputs:
        (wal / name).unlink(missing_ok=True)
    for name in damaged:
        if (wal / name).exists():
            os.rename(wal / name, wal / f"{name}.damaged")
    sync_directory(wal)


def _finish(root: Path, intent: Intent) -> None:
    retire(root, intent.inputs, intent.damaged)
    (root / STAGING / (intent.final + _INTENT)).unlink()
