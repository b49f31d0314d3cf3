"""Rows as the checks look at them, made of the columns of a file or of a record of the log."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from simtune.records import Decision, Row
from simtune.store.assembly import mapping

COLUMNS: Final = (
    "decision_id",
    "writer_id",
    "seq",
    "kind",
    "episode_id",
    "env",
    "model",
    "adapter",
    "ts",
    "mono_ns",
    "extra",
    "valid",
    "error",
    "prompt_token_ids",
    "token_ids",
    "logprobs",
    "choice_logprobs",
    "sampling",
    "reward",
)
"""The columns of a file that are read."""


class Event(msgspec.Struct, kw_only=True):
    """A row, with what the checks look at; fields as in `simtune.records.Row`.

    Attributes:
        target: for kind `reward`, the decision it rewards.
        prompt_tokens: number of prompt token ids.
    """

    writer: str
    seq: int
    kind: str
    episode_id: str
    decision_id: str | None
    target: str | None
    env: str | None
    model: str | None
    adapter: str | None
    ts: int
    mono_ns: int
    extra: str | None
    valid: bool | None
    error: str | None
    prompt_tokens: int
    token_ids: list[int]
    logprobs: list[float]
    choice_logprobs: list[float]
    sampling: str | None
    reward: float | None

    def decision(self) -> Decision:
        """As training sees it; of the prompt there is only whether it has token ids."""
        return Decision(
            decision_id=self.decision_id or "",
            prompt_token_ids=[0] if self.prompt_tokens else [],
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            choice_logprobs=self.choice_logprobs,
            sampling=decoded(self.sampling),
            reward=self.reward,
        )


@functools.lru_cache(maxsize=256)
def _decoded(text: str) -> dict[str, Any]:
    return mapping(text)


def decoded(text: str | None) -> dict[str, Any]:
    """A JSON object of a row as a dict that is shared, so not to be changed."""
    return _decoded(text) if text else {}


def of_record(writer: str, seq: int, row: Row) -> Event:
    """A record of the log."""
    return Event(
        writer=writer,
        seq=seq,
        kind=row.kind,
        episode_id=row.episode_id,
        decision_id=f"{writer}-{seq}" if row.kind == "decision" else None,
        target=row.target,
        env=row.env,
        model=row.model,
        adapter=row.adapter,
        ts=row.ts,
        mono_ns=row.mono_ns,
        extra=row.extra,
        valid=row.valid,
        error=row.error,
        prompt_tokens=len(row.prompt_token_ids),
        token_ids=list(row.token_ids),
        logprobs=list(row.logprobs),
        choice_logprobs=list(row.choice_logprobs),
        sampling=row.sampling,
        reward=row.reward,
    )


def of_table(table: Any) -> Iterator[Event]:
    """The rows of a table with the columns `COLUMNS`."""
    columns = {
        name: table[name].to_pylist()
        for name in COLUMNS
        if name not in ("ts", "prompt_token_ids", "decision_id")
    }
    times = [time for chunk in table["ts"].chunks for time in chunk.cast("int64").to_pylist()]
    lengths = [
        length
        for chunk in table["prompt_token_ids"].chunks
        for length in chunk.value_lengths().to_pylist()
    ]
    ids = table["decision_id"].to_pylist()
    names = list(columns)
    for at, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        row["writer"] = row.pop("writer_id")
        late = row["kind"] == "reward"
        for name in ("token_ids", "logprobs", "choice_logprobs"):
            row[name] = row[name] or []
        yield Event(
            decision_id=None if late else ids[at],
            target=ids[at] if late else None,
            ts=times[at] or 0,
            prompt_tokens=lengths[at] or 0,
            **row,
        )


def is_finite(value: float | None) -> bool:
    """Whether there is a number, and a finite one."""
    return value is not None and math.isfinite(value)
