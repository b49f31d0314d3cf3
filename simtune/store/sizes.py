"""How much a store holds: bytes on disk, tokens, and over what time it was captured."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pyarrow.compute as pc

from simtune.recording.segments import wal_directory
from simtune.store.footers import read_groups
from simtune.store.layout import SCORES
from simtune.store.reader import Store
from simtune.store.remote import AnyPath
from simtune.store.roots import open_root


class Usage(msgspec.Struct, kw_only=True):
    """What a store holds.

    Attributes:
        rows: of every kind, in the Parquet files.
        rows_per_file: on average.
        parquet_bytes: size of the Parquet files.
        log_bytes: size of the log that is not yet in them.
        score_bytes: size of the sidecars.
        prompt_tokens: tokens that models were given, where they were captured.
        sampled_tokens: tokens that models sampled, where they were captured.
        seconds: from the earliest row's clock to the latest's.
    """

    rows: int
    rows_per_file: float
    parquet_bytes: int
    log_bytes: int
    score_bytes: int
    prompt_tokens: int
    sampled_tokens: int
    seconds: float


def usage(store: Store) -> Usage:
    """Measure a store."""
    parts = store.parts
    rows = sum(group.rows for part in parts for group in part.groups)
    tokens = {"prompt_token_ids": 0, "token_ids": 0}
    for part in parts:
        for group in part.groups:
            lists = read_groups(part, [group.number], list(tokens))
            for name in tokens:
                tokens[name] += pc.sum(pc.list_value_length(lists[name])).as_py() or 0
    begun = min((part.begun for part in parts if part.begun), default=0)
    return Usage(
        rows=rows,
        rows_per_file=rows / max(1, len(parts)),
        parquet_bytes=_size(store.files),
        log_bytes=_size(wal_directory(open_root(store.root).local).glob("*")),
        score_bytes=_size((store.root / SCORES).glob("*/*.parquet")),
        prompt_tokens=tokens["prompt_token_ids"],
        sampled_tokens=tokens["token_ids"],
        seconds=max(0, max((part.ended for part in parts), default=0) - begun) / 1e6,
    )


def _size(files: Iterable[AnyPath]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
