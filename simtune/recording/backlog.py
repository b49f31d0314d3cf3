"""How much log waits for compaction, and the limit on it.

The directory is looked at when a segment begins and after every 1/64 of the limit that this
process writes, never per decision; while the limit is exceeded, four times a second.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from simtune.config import Config
from simtune.errors import CompactorError
from simtune.recording.compactor import Compactor
from simtune.recording.segments import SEGMENT_NAME, wal_directory

_LOOK_SECONDS = 0.25
_LOOKS_PER_LIMIT = 64
_COMPACT_FROM = 1 / 8  # of the limit


class LogSize(msgspec.Struct, frozen=True):
    """What lies in the log of a store.

    Attributes:
        segments: segments that await compaction, those still written among them.
        bytes: their size.
        unfinished: `.new` files, of segments being made or of writers killed while making one.
        damaged: segments that a compactor set aside.
    """

    segments: int = 0
    bytes: int = 0
    unfinished: int = 0
    damaged: int = 0


def log_size(root: str | Path) -> LogSize:
    """Look at a store's log; every writer of this host is in it."""
    sizes = []
    names = []
    directory = wal_directory(root)
    for path in directory.iterdir() if directory.is_dir() else ():
        names.append(path.name)
        if SEGMENT_NAME.fullmatch(path.name):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:  # compacted meanwhile
                continue
    return LogSize(
        segments=len(sizes),
        bytes=sum(sizes),
        unfinished=sum(name.endswith(".new") for name in names),
        damaged=sum(name.endswith(".damaged") for name in names),
    )


class Backlog:
    """The log of one store against the limit. Not thread-safe; its recorder's I/O lock is held.

    Attributes:
        full: more waits than the limit allows.
        bytes: what waits, as far as known.
    """

    def __init__(self, root: Path) -> None:
        self.full = False
        self.bytes = 0
        self._root = root
        self._since_look = 0
        self._segment = -1
        self._looked = 0.0
        self._compactor = Compactor(root)

    def wrote(self, count: int, segment: int, settings: Config) -> CompactorError | None:
        """Some bytes were added to the log, in the writer's segment of this number."""
        self.bytes += count
        self._since_look += count
        if segment != self._segment or self._since_look * _LOOKS_PER_LIMIT > settings.backlog_bytes:
            self._segment = segment
            return self.look(settings)
        return None

    def look_due(self) -> bool:
        """Whether the limit is exceeded and it is time to see if it still is."""
        return self.full and time.monotonic() >= self._looked + _LOOK_SECONDS

    def look(self, settings: Config) -> CompactorError | None:
        """Measure the log, and have it compacted where it has become large.

        Returns:
            Why it cannot be compacted.
        """
        self.bytes = log_size(self._root).bytes
        self._since_look = 0
        self._looked = time.monotonic()
        self.full = self.bytes > settings.backlog_bytes
        if settings.compactor == "auto" and self.bytes > settings.backlog_bytes * _COMPACT_FROM:
            return self._compactor.ensure()
        return None
