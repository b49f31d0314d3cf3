"""Checking rows: their identities, their order, and what they refer to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from simtune.store.identities import Identities, identity_of

KINDS: Final = ("decision", "reward", "episode_start", "episode_end")
WRITER: Final = "^[0-9a-f]{16}$"


class Wrong(NamedTuple):
    """A finding in some rows: its code, what exactly, and how many rows it concerns."""

    code: str
    detail: str
    rows: int


class Rows:
    """What is known of the rows seen so far: memory grows with episodes and writers, not rows."""

    def __init__(self) -> None:
        self._all = Identities()
        self._decisions = Identities()
        self._episodes: set[str] = set()
        self._partial: set[str] = set()
        self._targets: dict[str, int] = {}
        self._last: tuple[str, str] = ("", "")

    def add(self, source: str, rows: pa.Table, *, partial: bool) -> Iterator[Wrong]:
        """Check rows and remember them.

        Args:
            source: the file they are from; those of one Parquet file come in its order.
            rows: all columns of format 1.
            partial: the writers' other rows may be elsewhere, as after an import.
        """
        yield from self._order(source, rows)
        bad = bad_rows(rows)
        if bad:
            yield Wrong("bad-row", *bad)
            return
        if partial:
            self._partial.update(pc.unique(rows["writer_id"]).to_pylist())
        twice = self._all.add(rows)
        if twice:
            yield Wrong("duplicate-row", "rows that are elsewhere too, or twice here", twice)
        decided = rows.filter(pc.equal(rows["kind"], "decision"))
        self._decisions.add(decided)
        own = pc.unique(rows.filter(pc.not_equal(rows["kind"], "reward"))["episode_id"])
        self._episodes.update(own.to_pylist())
        late = rows.filter(pc.equal(rows["kind"], "reward"))["decision_id"]
        for target in late.filter(pc.invert(pc.is_in(late, decided["decision_id"]))).to_pylist():
            self._targets[target] = self._targets.get(target, 0) + 1

    def _order(self, source: str, rows: pa.Table) -> Iterator[Wrong]:
        """Episode ids ascend within a Parquet file; a log has no such order."""
        if source.endswith(".parquet") and rows.num_rows:
            ids = pc.coalesce(rows["episode_id"], "").combine_chunks()
            before = self._last[1] if self._last[0] == source else ""
            down = pc.sum(pc.less(ids[1:], ids[:-1])).as_py() or 0
            if down or ids[0].as_py() < before:
                yield Wrong("unsorted-part", "episode ids do not ascend", max(1, down))
            self._last = (source, ids[-1].as_py())

    def gaps(self) -> Iterator[tuple[str, int, int]]:
        """What is missing of each writer all of whose rows should be here."""
        return (gap for gap in self._all.gaps() if gap[0] not in self._partial)

    def missing_targets(self) -> Iterator[tuple[str, int]]:
        """Late rewards of decisions that are nowhere."""
        for target, count in sorted(self._targets.items()):
            if not self._is_decision(target):
                yield f"no decision {target}", count

    def missing_subjects(self, scores: pa.Table) -> Iterator[tuple[str, int]]:
        """Scores of decisions and episodes that are nowhere."""
        missing: dict[str, int] = {}
        columns = (scores["decision_id"].to_pylist(), scores["episode_id"].to_pylist())
        for decision_id, episode_id in zip(*columns, strict=True):
            if decision_id is not None and not self._is_decision(decision_id):
                missing[f"no decision {decision_id}"] = (
                    missing.get(f"no decision {decision_id}", 0) + 1
                )
            elif episode_id not in self._episodes:
                missing[f"no episode {episode_id}"] = missing.get(f"no episode {episode_id}", 0) + 1
        yield from sorted(missing.items())

    def _is_decision(self, decision_id: str) -> bool:
        identity = identity_of(decision_id)
        return identity is not None and identity in self._decisions


def bad_rows(rows: pa.Table) -> tuple[str, int] | None:
    """What breaks the format in some rows, and in how many; None where nothing does."""
    own = pc.binary_join_element_wise(rows["writer_id"], rows["seq"].cast(pa.string()), "-")
    named = pc.or_kleene(pc.not_equal(rows["kind"], "decision"), pc.equal(rows["decision_id"], own))
    rules = {
        f"kind is none of {', '.join(KINDS)}": pc.is_in(rows["kind"], pa.array(KINDS)),
        "writer_id is not 16 hex digits": pc.match_substring_regex(rows["writer_id"], WRITER),
        "seq is missing or negative": pc.greater_equal(rows["seq"], 0),
        "episode_id is missing or empty": pc.not_equal(rows["episode_id"], ""),
        "decision_id is not writer_id-seq": named,
    }
    for rule, holds in rules.items():
        broken = rows.num_rows - (pc.sum(pc.coalesce(holds, False)).as_py() or 0)
        if broken:
            return rule, broken
    return None
