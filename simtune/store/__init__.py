"""The episode store: format 1 on disk, compaction, reading, scores. The only home of pyarrow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtune.store.compaction import CompactionReport, compact
    from simtune.store.reader import Store, read
    from simtune.store.scores import Score, latest_scores, write_scores

_HOME = {
    "CompactionReport": "compaction",
    "Score": "scores",
    "Store": "reader",
    "compact": "compaction",
    "latest_scores": "scores",
    "read": "reader",
    "write_scores": "scores",
}

__all__ = [
    "CompactionReport",
    "Score",
    "Store",
    "compact",
    "latest_scores",
    "read",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'simtune.store' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"simtune.store.{_HOME[name]}"), name)
    globals()[name] = value
    return value
