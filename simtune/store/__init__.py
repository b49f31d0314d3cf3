"""The episode store: format 1 on disk, compaction, reading, tailing, scores. The only home of pyarrow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtune.store.compaction import CompactionReport, compact
    from simtune.store.cursor import Cursor
    from simtune.store.reader import Store, read
    from simtune.store.scores import Score, latest_scores, write_scores
    from simtune.store.tailing import Tail, tail
    from simtune.store.watching import watch

_HOME = {
    "CompactionReport": "compaction",
    "Cursor": "cursor",
    "Score": "scores",
    "Store": "reader",
    "Tail": "tailing",
    "compact": "compaction",
    "latest_scores": "scores",
    "read": "reader",
    "tail": "tailing",
    "watch": "watching",
    "write_scores": "scores",
}

__all__ = [
    "CompactionReport",
    "Cursor",
    "Score",
    "Store",
    "Tail",
    "compact",
    "latest_scores",
    "read",
    "tail",
    "watch",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'simtune.store' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"simtune.store.{_HOME[name]}"), name)
    globals()[name] = value
    return value
