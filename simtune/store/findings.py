"""What `verify` can find wrong in a store: one code for each kind, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

CODES: Final[Mapping[str, str]] = {
    "unreadable-part": "restore the Parquet file from a copy, or move it away",
    "schema-difference": "move the file away, then import it: simtune episodes import FILE",
    "wrong-statistics": "move the file away, then import it: simtune episodes import FILE",
    "unsorted-part": "move the file away, then import it: simtune episodes import FILE",
    "bad-row": "move the file away; one of its rows breaks the format",
    "duplicate-row": "move away the file that should not be there",
    "sequence-gap": "restore the missing files from a copy; else those decisions are lost",
    "reward-of-nothing": "restore the missing files from a copy; it counts for nothing until then",
    "damaged-segment": "simtune episodes compact keeps what precedes the damage",
    "set-aside-segment": "remove it once its rows before the damage have been looked at",
    "unreadable-segment": "move it away; nothing in it can be read",
    "unfinished-segment": "remove it: its writer died before the first record",
    "unfinished-compaction": "simtune episodes compact finishes or undoes it",
    "orphan-staged": "simtune episodes compact removes it",
    "foreign-file": "move it out of the store",
    "link-outside": "copy what it leads to into the store, or remove the link",
    "unreadable-scores": "remove the file and score again",
    "misplaced-score": "move the file to the directory of its scorer",
    "score-of-nothing": "restore the missing files from a copy; it counts for nothing until then",
}
"""Code of a finding -> what to do about it."""


class Finding(msgspec.Struct, kw_only=True, frozen=True):
    """One thing that is wrong.

    Attributes:
        code: one of `CODES`.
        path: the file or directory it is in, below the root.
        detail: what exactly.
        count: how many rows or numbers it concerns; 1 where it is the file itself.
    """

    code: str
    path: str
    detail: str
    count: int = 1

    @property
    def fix(self) -> str:
        """What to do about it."""
        return CODES[self.code]


class Verification(msgspec.Struct, kw_only=True):
    """What was looked at, and what is wrong.

    Attributes:
        root: directory of the store.
        parts: Parquet files with rows.
        segments: segments of the log.
        rows: rows in both.
        scores: scores in the sidecars.
        findings: what is wrong; empty where the store is sound.
    """

    root: str
    parts: int = 0
    segments: int = 0
    rows: int = 0
    scores: int = 0
    findings: list[Finding] = msgspec.field(default_factory=list)
