"""One episode, or the rewards of some decisions, out of a large store: few row groups are read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.store.footers import Group, Part, Range, read_groups, read_slice
from simtune.store.late import LATE, late_rewards
from simtune.store.schema import ROWS

_REWARD: Final = "reward"
_REWARDS: Final = ("kind", "decision_id", "reward")


def rows_of(parts: Iterable[Part], episode_id: str) -> pa.Table:
    """The rows of one episode, files in the order given."""
    tables = [ROWS.empty_table()]
    for part, group in _holding(parts, episode_id):
        ids = read_groups(part, [group.number], ["episode_id"])["episode_id"].combine_chunks()
        code = ids.dictionary.index(episode_id).as_py()
        start = ids.indices.index(code).as_py() if code >= 0 else -1
        if start >= 0:
            stop = group.rows - _reversed(ids.indices).index(code).as_py()
            rows = read_slice(part, group.number, start, stop)
            tables.append(rows.filter(pc.equal(rows["episode_id"], episode_id)))
    return pa.concat_tables(tables)


def _holding(parts: Iterable[Part], episode_id: str) -> list[tuple[Part, Group]]:
    return [
        (part, group)
        for part in parts
        for group in part.groups
        if group.episodes.may_hold(episode_id)
    ]


def _reversed(values: pa.Array) -> pa.Array:
    return values[::-1]


def ids_like(parts: Iterable[Part], beginning: str) -> list[str]:
    """The episode ids that begin with a text, in order."""
    found = set()
    last = beginning + "\U0010ffff"
    for part in parts:
        numbers = [g.number for g in part.groups if g.episodes.meets(beginning, last)]
        if numbers:
            rows = read_groups(part, numbers, ["episode_id", "kind"])
            ids = pc.unique(rows.filter(pc.not_equal(rows["kind"], _REWARD))["episode_id"])
            found.update(ids.filter(pc.starts_with(ids.cast(pa.string()), beginning)).to_pylist())
    return sorted(found)


def narrowed(parts: Iterable[Part], ids: Sequence[str]) -> list[Part]:
    """The files with only those row groups that can hold some of the episodes.

    Args:
        parts: the files.
        ids: the episodes' ids, sorted.
    """
    found = [
        part._replace(groups=[group for group in part.groups if _any_in(group.episodes, ids)])
        for part in parts
    ]
    return [part for part in found if part.groups]


def _any_in(episodes: Range, ids: Sequence[str]) -> bool:
    first = bisect_left(ids, episodes.low or "")
    return first < len(ids) and episodes.may_hold(ids[first])


def rewards_of(parts: Iterable[Part], decision_ids: Sequence[str]) -> pa.Table:
    """Sums of the late rewards of some decisions, wherever they were given."""
    if not decision_ids:
        return LATE.empty_table()
    wanted = pa.array(decision_ids, pa.string())
    rows = _reward_rows(parts, min(decision_ids), max(decision_ids))
    return late_rewards(rows.filter(pc.is_in(rows["decision_id"], wanted)))


def all_rewards(parts: Iterable[Part]) -> pa.Table:
    """Sums of the late rewards of every decision."""
    return late_rewards(_reward_rows(parts, "", "\U0010ffff"))


def count_rewards(parts: Iterable[Part]) -> int:
    """How many rows of kind `reward` there are."""
    count = 0
    for part in parts:
        numbers = [group.number for group in part.groups if group.kinds.may_hold(_REWARD)]
        if numbers:
            kinds = read_groups(part, numbers, ["kind"])["kind"]
            count += pc.sum(pc.equal(kinds, _REWARD)).as_py() or 0
    return count


def episodes_rewarding(parts: Iterable[Part], decision_ids: pa.Array) -> list[str]:
    """The ids of the episodes in which some decisions were rewarded."""
    if not len(decision_ids):
        return []
    span = pc.min_max(decision_ids).as_py()
    rows = _reward_rows(parts, span["min"], span["max"], (*_REWARDS, "episode_id"))
    found = rows.filter(pc.is_in(rows["decision_id"], decision_ids))["episode_id"]
    return sorted(pc.unique(found).to_pylist())


def _reward_rows(
    parts: Iterable[Part], low: str, high: str, columns: Sequence[str] = _REWARDS
) -> pa.Table:
    """The late rewards of decisions whose ids are from `low` to `high`, and perhaps others."""
    tables = [pa.schema([ROWS.field(name) for name in columns]).empty_table()]
    for part in parts:
        numbers = [
            group.number
            for group in part.groups
            if group.kinds.may_hold(_REWARD) and group.decisions.meets(low, high)
        ]
        if numbers:
            rows = read_groups(part, numbers, columns)
            tables.append(rows.filter(pc.equal(rows["kind"], _REWARD)).cast(tables[0].schema))
    return pa.concat_tables(tables)
