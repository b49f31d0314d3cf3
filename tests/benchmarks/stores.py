"""Stores of any size, written as Parquet files at once: what compaction would have left."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

import pyarrow as pa

from simtune.store.layout import DATA
from simtune.store.schema import ROW_GROUP_ROWS, ROWS, SORT_ORDER, parquet_writer

DECISIONS: Final = 9
ROWS_PER_EPISODE: Final = 2 * DECISIONS + 2
"""A start, nine decisions, each rewarded by a row of its own, and an end."""

_KINDS: Final = ["episode_start", *["decision", "reward"] * DECISIONS, "episode_end"]
_STEPS: Final = [0, *(step for i in range(DECISIONS) for step in (i, 0)), DECISIONS]


def make_store(root: Path, *, rows: int, rows_per_file: int = 25_000, seed: int = 0) -> list[str]:
    """Fill an empty root; returns the episodes' ids in order of time.

    Args:
        root: directory of the store.
        rows: about how many rows; whole episodes are written.
        rows_per_file: as many as a compaction of 64 MB of log gives.
        seed: of the episodes' ids.
    """
    os.makedirs(root / DATA)
    source = random.Random(seed)
    per_file = rows_per_file // ROWS_PER_EPISODE
    ids = [source.randbytes(12).hex() for _ in range(rows // ROWS_PER_EPISODE)]
    for number, first in enumerate(range(0, len(ids), per_file)):
        table = _table(ids[first : first + per_file], first)
        path = root / DATA / f"part-{'0' * 16}-{number:010d}.parquet"
        with open(path, "wb") as file, parquet_writer(file, ROWS) as writer:
            writer.write_table(table.sort_by(list(SORT_ORDER)), row_group_size=ROW_GROUP_ROWS)
    return ids


def _table(ids: list[str], first: int) -> pa.Table:
    """All rows of some episodes; episode `first + i` has the `seq` from there on."""
    count = len(ids) * ROWS_PER_EPISODE
    seqs = range(first * ROWS_PER_EPISODE, first * ROWS_PER_EPISODE + count)
    kinds = _KINDS * len(ids)
    writer = "0123456789abcdef"
    decided = [kind == "decision" for kind in kinds]
    targets = [
        f"{writer}-{seq if kind == 'decision' else seq - 1}" if "episode" not in kind else None
        for kind, seq in zip(kinds, seqs, strict=True)
    ]
    columns = {
        "decision_id": targets,
        "writer_id": [writer] * count,
        "seq": seqs,
        "kind": kinds,
        "episode_id": [each for each in ids for _ in range(ROWS_PER_EPISODE)],
        "run_id": ["run"] * count,
        "env": ["bench"] * count,
        "step": _STEPS * len(ids),
        "ts": [1_700_000_000_000_000 + seq for seq in seqs],
        "mono_ns": seqs,
        "prompt": [_prompt(seq) if yes else None for yes, seq in zip(decided, seqs, strict=True)],
        "response": [
            f"The queue in the east: {seq}. " * 4 if yes else None
            for yes, seq in zip(decided, seqs, strict=True)
        ],
        "valid": [True if yes else None for yes in decided],
        "prompt_token_ids": [
            list(range(seq % 99, seq % 99 + 64)) if yes else []
            for yes, seq in zip(decided, seqs, strict=True)
        ],
        "token_ids": [
            [seq % 1000 + i for i in range(16)] if yes else []
            for yes, seq in zip(decided, seqs, strict=True)
        ],
        "logprobs": [
            [-0.1 * i - seq % 7 for i in range(16)] if yes else []
            for yes, seq in zip(decided, seqs, strict=True)
        ],
        "choices": [[]] * count,
        "choice_logprobs": [[]] * count,
        "reward": [0.5 if kind == "reward" else None for kind in kinds],
        "terminated": [True if kind == "episode_end" else None for kind in kinds],
    }
    arrays = [pa.array(columns.get(field.name, [None] * count), type=field.type) for field in ROWS]
    return pa.Table.from_arrays(arrays, schema=ROWS)


def _prompt(seq: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You steer one vehicle through a city's traffic. " * 10},
        {"role": "user", "content": f"north {seq}, east {seq % 7} waiting, light is red; " * 12},
    ]
