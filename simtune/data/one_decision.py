"""Rated decisions from a file as episodes of one decision each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from simtune.data.decisions import DecisionFile, DecisionRow
from simtune.records import Row


def episode_rows(data: DecisionFile, *, env: str) -> Iterator[Row]:
    """A start, a decision and an end for each row of a data set; the same for the same file.

    `rating` becomes the reward; `feedback` and `reason` are in the decision's metadata.

    Args:
        data: what `read_decisions` returned.
        env: name of the environment.
    """
    for row in data.rows:
        episode_id = hashlib.sha256(f"{data.digest} {row.row}".encode()).hexdigest()[:24]
        common: dict[str, Any] = {"episode_id": episode_id, "env": env, "run_id": data.digest[:16]}
        source = {"source": Path(data.path).name, "row": row.row}
        yield Row(kind="episode_start", metadata=_json(source), **common)
        yield Row(
            kind="decision",
            prompt=row.prompt,
            response=row.output,
            valid=True,
            reward=row.rating,
            metadata=_json(_remarks(row)),
            **common,
        )
        yield Row(kind="episode_end", step=1, metadata=_json({"outcome": {}}), **common)


def _remarks(row: DecisionRow) -> dict[str, str]:
    said = {"feedback": row.feedback, "reason": row.reason}
    return {name: text for name, text in said.items() if text is not None}


def _json(value: object) -> str | None:
    return msgspec.json.encode(value).decode() if value else None
