"""Checking a whole store: every page, every frame, and how they refer to each other.

Nothing is changed, and no log is compacted. What moves is looked at under a shared lock that keeps
compaction out; the Parquet files, which only ever are added, are read after it is released.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import CorruptError, DataError
from simtune.recording.segments import wal_directory
from simtune.store.check_log import check_log
from simtune.store.check_rows import Rows
from simtune.store.check_staging import check_staging
from simtune.store.check_statistics import misstated
from simtune.store.files import columns_of, open_part, reading
from simtune.store.findings import Finding, Verification
from simtune.store.layout import DATA, SCORES, STAGING, is_part_name, store_root
from simtune.store.schema import ROWS
from simtune.store.schema import SCORES as SCORE_SCHEMA

_TOP: Final = {wal_directory(".").name, STAGING.parts[0], DATA.parts[0], SCORES.parts[0]}


def verify(
    root: str | os.PathLike[str], *, on_file: Callable[[Path], None] | None = None
) -> Verification:
    """Check a store, and change nothing.

    Args:
        root: directory of the store.
        on_file: called with each file that was checked.

    Raises:
        DataError: there is no such directory.
    """
    path = store_root(root)
    if not path.is_dir():
        raise DataError(f"no store at {path}", expected="a directory", got="none")
    return _Check(path, on_file or (lambda _: None)).run()


class _Check:
    """One verification."""

    def __init__(self, root: Path, on_file: Callable[[Path], None]) -> None:
        self.root = root
        self.result = Verification(root=str(root))
        self.rows = Rows()
        self._on_file = on_file

    def run(self) -> Verification:
        """Look at everything."""
        with _compaction_paused(self.root):
            self.result.findings += check_staging(self.root)
            self._log()
            parts = self._files(DATA, is_part_name)
        for part in parts:
            self._part(part)
        for scorer in self._scorers():
            for part in self._files(scorer, is_part_name):
                self._score_part(part, scorer.name)
        self._across()
        return self.result

    def found(self, code: str, path: Path, detail: object, count: int = 1) -> None:
        """Note one thing that is wrong."""
        shown = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
        text = str(detail).strip().splitlines()
        self.result.findings.append(
            Finding(code=code, path=shown, detail=text[0] if text else "", count=count)
        )

    def _log(self) -> None:
        for path, batches, findings in check_log(self.root):
            for batch in batches:
                self._add(path, batch, partial=False)
            self.result.segments += 1
            self.result.findings += findings
            self._on_file(path)

    def _files(self, directory: Path, ours: Callable[[str], bool]) -> list[Path]:
        """The files that belong into a directory; what else is there is a finding."""
        place = self.root / directory
        found = []
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.is_symlink() and path.resolve().parent != place.resolve():
                self.found("link-outside", path, f"leads to {path.resolve()}")
            elif ours(path.name) and path.is_file():
                found.append(path)
            else:
                self.found("foreign-file", path, "no name that simtune gives")
        return found

    def _scorers(self) -> list[Path]:
        place = self.root / SCORES
        found = []
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.is_dir() and not path.is_symlink():
                found.append(path.relative_to(self.root))
            else:
                self.found("foreign-file", path, "no directory of a scorer")
        return found

    def _part(self, path: Path) -> None:
        try:
            for table, wrong, imported in _groups(path, ROWS):
                self._statistics(path, wrong)
                self._add(path, table, partial=imported)
        except CorruptError as error:
            self._unreadable(path, ROWS, "unreadable-part", error)
        self.result.parts += 1
        self._on_file(path)

    def _statistics(self, path: Path, wrong: list[str]) -> None:
        if wrong:
            self.found("wrong-statistics", path, f"of {', '.join(wrong)}")

    def _unreadable(self, path: Path, schema: pa.Schema, code: str, error: CorruptError) -> None:
        try:
            columns = columns_of(path)
        except CorruptError:
            columns = None
        if columns is not None and not columns.equals(schema.remove_metadata()):
            self.found("schema-difference", path, f"columns {', '.join(columns.names)}")
        else:
            self.found(code, path, _got(error))

    def _add(self, path: Path, rows: pa.Table, *, partial: bool) -> None:
        self.result.rows += rows.num_rows
        for code, detail, count in self.rows.add(str(path), rows, partial=partial):
            self.found(code, path, detail, count)

    def _score_part(self, path: Path, scorer: str) -> None:
        try:
            for table, wrong, _ in _groups(path, SCORE_SCHEMA):
                self._statistics(path, wrong)
                self.result.scores += table.num_rows
                strange = pc.sum(pc.not_equal(table["scorer"], scorer)).as_py() or 0
                if strange:
                    self.found("misplaced-score", path, f"scorers other than {scorer}", strange)
                for detail, count in self.rows.missing_subjects(table):
                    self.found("score-of-nothing", path, detail, count)
        except CorruptError as error:
            self._unreadable(path, SCORE_SCHEMA, "unreadable-scores", error)
        self._on_file(path)

    def _across(self) -> None:
        for writer, first, last in self.rows.gaps():
            what = f"{first}" if first == last else f"{first} to {last}"
            self.found("sequence-gap", self.root / DATA, f"{writer}: no {what}", last - first + 1)
        for detail, count in self.rows.missing_targets():
            self.found("reward-of-nothing", self.root / DATA, detail, count)
        for path in sorted(self.root.iterdir()):
            if path.name not in _TOP:
                self.found("foreign-file", path, "no directory of a store")


def _groups(path: Path, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[str], bool]]:
    """The row groups of a file, columns whose statistics are wrong, whether it was imported."""
    with open_part(path, schema) as file, reading(path):
        imported = (file.metadata.metadata or {}).get(b"simtune.origin") == b"import"
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, use_threads=False)
            yield rows, misstated(file.metadata.row_group(number), rows), imported


def _got(error: CorruptError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[5:] for line in lines if line.startswith("got: ")), lines[0])


@contextmanager
def _compaction_paused(root: Path) -> Iterator[None]:
    """Hold the compactor's lock, shared, where there is one; nothing is made for it."""
    try:
        descriptor = os.open(root / STAGING / "compactor.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
