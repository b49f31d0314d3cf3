"""The episode store: format 1, compaction, reading, tailing, scores. The only home of pyarrow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtune.store.compaction import CompactionReport, compact
    from simtune.store.cursor import Cursor
    from simtune.store.exporting import export_rows
    from simtune.store.findings import Finding, Verification
    from simtune.store.importing import (
        ImportReport,
        import_jsonl,
        import_parquet,
        import_rows,
    )
    from simtune.store.reader import Store, read
    from simtune.store.scores import Score, latest_scores, write_scores
    from simtune.store.sizes import Usage, usage
    from simtune.store.tailing import Tail, tail
    from simtune.store.verifying import verify
    from simtune.store.watching import watch

_HOME = {
    "CompactionReport": "compaction",
    "Cursor": "cursor",
    "Finding": "findings",
    "ImportReport": "importing",
    "Score": "scores",
    "Store": "reader",
    "Tail": "tailing",
    "Usage": "sizes",
    "Verification": "findings",
    "compact": "compaction",
    "export_rows": "exporting",
    "import_jsonl": "importing",
    "import_parquet": "importing",
    "import_rows": "importing",
    "latest_scores": "scores",
    "read": "reader",
    "tail": "tailing",
    "usage": "sizes",
    "verify": "verifying",
    "watch": "watching",
    "write_scores": "scores",
}

__all__ = [
    "CompactionReport",
    "Cursor",
    "Finding",
    "ImportReport",
    "Score",
    "Store",
    "Tail",
    "Usage",
    "Verification",
    "compact",
    "export_rows",
    "import_jsonl",
    "import_parquet",
    "import_rows",
    "latest_scores",
    "read",
    "tail",
    "usage",
    "verify",
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
