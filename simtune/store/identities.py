"""Which rows there are, by (writer_id, seq), kept as runs of numbers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class Identities:
    """A set of (writer_id, seq). A writer counts up, so it has few runs, whatever it wrote."""

    def __init__(self) -> None:
        self._runs: dict[str, list[tuple[int, int]]] = {}

    def __contains__(self, identity: tuple[str, int]) -> bool:
        """Whether a row is known."""
        writer, seq = identity
        runs = self._runs.get(writer, [])
        position = bisect_right(runs, (seq, _BEYOND)) - 1
        return position >= 0 and runs[position][1] >= seq

    def add(self, rows: pa.Table) -> int:
        """Add rows; returns how many of them were known already, or are there twice.

        Args:
            rows: columns writer_id and seq, without nulls.
        """
        keys = rows.select(["writer_id", "seq"]).group_by(["writer_id", "seq"]).aggregate([])
        twice = rows.num_rows - keys.num_rows
        known = sum(self._add(*run) for run in _runs(keys))
        return int(twice) + known

    def gaps(self) -> Iterator[tuple[str, int, int]]:
        """Writer, first and last number of what is missing below each writer's greatest."""
        for writer, runs in sorted(self._runs.items()):
            expected = 0
            for first, last in runs:
                if first > expected:
                    yield writer, expected, first - 1
                expected = last + 1

    def _add(self, writer: str, first: int, last: int) -> int:
        """Add one run; returns how many numbers of it were known."""
        runs = self._runs.setdefault(writer, [])
        begin = bisect_left(runs, (first, first))
        if begin and runs[begin - 1][1] >= first - 1:
            begin -= 1
        end, known = begin, 0
        low, high = first, last
        while end < len(runs) and runs[end][0] <= last + 1:
            low, high = min(low, runs[end][0]), max(high, runs[end][1])
            known += max(0, min(last, runs[end][1]) - max(first, runs[end][0]) + 1)
            end += 1
        runs[begin:end] = [(low, high)]
        return known


_BEYOND = 1 << 63


def _runs(keys: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Writer, first and last number of each run among distinct keys."""
    ordered = keys.sort_by([("writer_id", "ascending"), ("seq", "ascending")])
    position = pa.array(range(ordered.num_rows), pa.int64())
    # Within a run both count up by one, so their difference stays the same.
    run = pc.subtract(ordered["seq"], position)
    found: Any = (
        ordered.append_column("run", run)
        .group_by(["writer_id", "run"])
        .aggregate([("seq", "min"), ("seq", "max")])
    )
    yield from zip(
        found["writer_id"].to_pylist(),
        found["seq_min"].to_pylist(),
        found["seq_max"].to_pylist(),
        strict=True,
    )


def identity_of(decision_id: str | None) -> tuple[str, int] | None:
    """Writer and number in a decision_id; None where it is none."""
    writer, dash, seq = (decision_id or "").rpartition("-")
    digits = dash and seq.isascii() and seq.isdecimal() and len(seq) <= 19
    return (writer, int(seq)) if digits else None
