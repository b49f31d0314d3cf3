"""The files of a store: who may read them, and whether there are too many."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from simtune.doctor.finding import Finding, note, ok, size, warning
from simtune.doctor.subject import Subject

_FILES: Final = 100
_ROWS: Final = 500
_LOOKED_AT: Final = 20_000


def check(subject: Subject) -> Iterator[Finding]:
    """Look at modes and sizes."""
    if not subject.local.is_dir():
        return
    findings = [*_modes(subject.local), *_small(subject)]
    yield from findings
    if not findings:
        sample = subject.sample
        yield ok(
            "files",
            f"{sample.files} Parquet files, {size(sample.file_bytes)}; "
            "nobody but their owner may read them",
        )


def _modes(root: Path) -> Iterator[Finding]:
    open_ones = [path for path in islice(_paths(root), _LOOKED_AT) if _mode(path) & 0o077]
    if open_ones:
        first = open_ones[0]
        yield warning(
            "open-modes",
            f"{len(open_ones):,} files and directories can be read or changed by others, such as "
            f"{first} ({_mode(first):04o}); prompts and answers are in them",
            f"chmod -R go-rwx {shlex.quote(str(root))}",
        )


def _paths(root: Path) -> Iterator[Path]:
    yield root
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            yield Path(directory, name)


def _mode(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:  # compacted meanwhile
        return 0
    return 0 if stat.S_ISLNK(found.st_mode) else stat.S_IMODE(found.st_mode)


def _small(subject: Subject) -> Iterator[Finding]:
    sample = subject.sample
    rows = sum(sample.file_rows) / max(1, len(sample.file_rows))
    if sample.files >= _FILES and rows < _ROWS:
        yield note(
            "small-files",
            f"{sample.files:,} Parquet files of {rows:.0f} rows each: reading them is slow",
            f"simtune episodes export {subject.option} --format parquet --output all.parquet && "
            "simtune episodes import all.parquet --store NEW; read the store less often while "
            "it is captured into",
        )
