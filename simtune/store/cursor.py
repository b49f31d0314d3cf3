"""How far a tail has read: small, plain JSON, and enough to go on after any crash."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from simtune.errors import CorruptError, OptionError
from simtune.recording.directories import sync_directory
from simtune.store.layout import durable_file


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where in a writer's log a tail stands: `[segno, offset, next_seq]`.

    Attributes:
        segno: the segment read last. With `offset` only a hint of where to look first.
        offset: the byte behind the last record taken from it.
        next_seq: every row of the writer below it was taken, or is nowhere to be had.
    """

    segno: int
    offset: int
    next_seq: int


class Cursor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tail has handed out. Never a clock time; the default is the start of the store.

    Keep it with what was made of the rows, and replace both in one step: one rename, or one
    transaction. See `docs/tailing.md`.

    Attributes:
        parts: for each compactor id, the number of the last Parquet file taken whole.
        writers: the positions in the logs of those writers that have log segments.
        episodes: ids of episodes that were handed out and whose end is not yet behind `writers`
            and `parts`; only while the episodes of one batch are handed out one by one.
    """

    parts: dict[str, int] = msgspec.field(default_factory=dict)
    writers: dict[str, Position] = msgspec.field(default_factory=dict)
    episodes: list[str] = msgspec.field(default_factory=list)

    def to_json(self) -> str:
        """The cursor as one line of JSON."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Cursor:
        """What `to_json` made.

        Raises:
            CorruptError: it is something else.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptError(
                "this is no cursor of a tail",
                expected="JSON {parts, writers, episodes}",
                got=error,
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cursor:
        """The cursor in a file; the start of the store where there is no such file.

        Raises:
            CorruptError: the file holds something else.
        """
        try:
            text = Path(path).read_bytes()
        except FileNotFoundError:
            return cls()
        return cls.from_json(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Put the cursor into a file, durable and whole: the old one stays until the new is safe.

        A consumer whose output is another file loses or repeats rows where it is killed between
        the two. Save into the staged directory that is renamed with the output instead.
        """
        target = Path(path)
        staged = target.with_name(f".{target.name}.{os.getpid()}.staged")
        staged.unlink(missing_ok=True)
        with durable_file(staged) as file:
            file.write(self.to_json().encode())
        os.replace(staged, target)
        sync_directory(target.parent)


def as_cursor(cursor: Cursor | str | os.PathLike[str] | None) -> Cursor:
    """A cursor as callers may give it: itself, the path of its file, or None for the start.

    Raises:
        OptionError: it is something else.
    """
    if cursor is None:
        return Cursor()
    if isinstance(cursor, Cursor):
        return cursor
    if isinstance(cursor, str | os.PathLike):
        return Cursor.load(cursor)
    raise OptionError("a tail cannot start there", expected="a Cursor or a path", got=repr(cursor))
