"""Every episode that a run has taken from its store, one a line: what makes "once" countable.

    ["9f...", 12, "learned"]
    ["a1...", 12, "a reward failed"]

The file is written before the checkpoint whose state holds its length. Lines beyond that length
belong to a round that was never committed, and are cut off when the run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

FILE = "taken.jsonl"
LEARNED = "learned"


class Journal:
    """The file in a run's directory.

    Args:
        directory: of the run's checkpoints.

    Attributes:
        length: bytes that are written, and safe.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self.length = 0

    def rewind(self, length: int) -> None:
        """Forget what was written after a checkpoint."""
        self.length = length
        if self.path.exists():
            os.truncate(self.path, length)

    def add(self, round_: int, taken: Iterable[tuple[str, str]]) -> None:
        """Write the episodes of a round, each with `learned` or why not; on disk on return."""
        lines = b"".join(
            msgspec.json.encode((episode, round_, what)) + b"\n" for episode, what in taken
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            # What a process wrote that was killed before its first checkpoint.
            file.truncate(self.length)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.length += len(lines)

    def learned(self) -> Iterator[str]:
        """Ids of the episodes that were learned from, in their order."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file.read(self.length).splitlines():
                episode, _, what = msgspec.json.decode(line)
                if what == LEARNED:
                    yield episode
