"""Checking the log: every frame of every segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from simtune.errors import CorruptError
from simtune.recording.segments import is_finished, iter_logged, segment_header, wal_directory
from simtune.store.convert import Entry, record_batch
from simtune.store.findings import Finding
from simtune.store.schema import ROWS

_BATCH_ROWS: Final = 2048


class Checked(NamedTuple):
    """A file of the log.

    Attributes:
        path: the file.
        rows: its sound rows; to be taken before `findings` is looked at.
        findings: what is wrong with it.
    """

    path: Path
    rows: Iterator[pa.Table]
    findings: list[Finding]


def check_log(root: Path) -> Iterator[Checked]:
    """Check each file of a store's log."""
    directory = wal_directory(root)
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        findings: list[Finding] = []
        yield Checked(path, _rows(root, path, findings), findings)


def _rows(root: Path, path: Path, findings: list[Finding]) -> Iterator[pa.Table]:
    """The rows of a segment; of anything else none, but a finding."""

    def found(code: str, detail: object) -> None:
        first = str(detail).splitlines()[0]
        shown = str(path.relative_to(root))
        findings.append(Finding(code=code, path=shown, detail=first))

    if path.suffix == ".damaged":
        found("set-aside-segment", "its rows before the damage were compacted")
    elif path.suffix == ".new":
        if is_finished(path):
            found("unfinished-segment", "no process holds it")
    elif path.suffix != ".wal" or path.is_symlink() or not path.is_file():
        found("foreign-file", "no name that simtune gives")
    else:
        try:
            writer = segment_header(path).writer
        except FileNotFoundError:
            return
        except CorruptError as error:
            found("unreadable-segment", error)
            return
        try:
            yield from _tables(writer, path)
        except CorruptError as error:
            found("damaged-segment", error)


def _tables(writer: str, path: Path) -> Iterator[pa.Table]:
    entries: list[Entry] = []
    damage: CorruptError | None = None
    try:
        for seq, row in iter_logged(path):
            entries.append(Entry(row.episode_id, row.step, seq, writer, row))
            if len(entries) == _BATCH_ROWS:
                yield pa.Table.from_batches([record_batch(entries)], schema=ROWS)
                entries = []
    except CorruptError as error:
        damage = error
    # What precedes the damage is sound, and counts.
    if entries:
        yield pa.Table.from_batches([record_batch(entries)], schema=ROWS)
    if damage is not None:
        raise damage
