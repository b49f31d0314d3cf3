"""One line per episode, computed from the light columns only, and where its rows lie.

The same table is the view `episodes` of `Store.sql` and the order in which `Store.episodes` goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from simtune.recording.conversion import to_json
from simtune.store.assembly import outcome_of

LIGHT: Final = (
    "decision_id",
    "kind",
    "episode_id",
    "run_id",
    "env",
    "agent_id",
    "model",
    "adapter",
    "ts",
    "metadata",
    "valid",
    "error",
    "reward",
    "terminated",
    "truncated",
)
EPISODES: Final = pa.schema(
    [
        ("episode_id", pa.string()),
        ("run_id", pa.string()),
        ("env", pa.string()),
        ("agent_id", pa.string()),
        ("model", pa.string()),
        ("adapter", pa.string()),
        ("started", pa.timestamp("us", tz="UTC")),
        ("decisions", pa.int64()),
        ("invalid", pa.int64()),
        ("reward", pa.float64()),
        ("ended", pa.bool_()),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("aborted", pa.bool_()),
        ("success", pa.bool_()),
        ("error", pa.string()),
        ("outcome", pa.string()),
        ("metadata", pa.string()),
    ]
)
"""The view `episodes`: `model` and `adapter` are those of the first decision that names one,
`invalid` counts unparseable answers, `reward` is the undiscounted sum."""

_AGGREGATES: Final = {
    "run_id": "first",
    "env": "first",
    "agent_id": "first",
    "model": "first",
    "adapter": "first",
    "started": "min",
    "decisions": "sum",
    "invalid": "sum",
    "reward": "sum",
    "ended": "any",
    "terminated": "any",
    "truncated": "any",
    "error": "last",
    "ending": "last",
    "metadata": "first",
}


def partial_summary(rows: pa.Table) -> pa.Table:
    """Summarise the rows of one row group by episode; rewards of other decisions do not count.

    Args:
        rows: the columns `LIGHT`, late rewards folded in.
    """
    rows = rows.filter(pc.not_equal(rows["kind"], "reward"))
    decided = pc.equal(rows["kind"], "decision")
    ends = pc.equal(rows["kind"], "episode_end")
    starts = pc.equal(rows["kind"], "episode_start")
    invalid = pc.and_(decided, pc.invert(pc.coalesce(rows["valid"], True)))
    columns = {
        "episode_id": rows["episode_id"],
        "run_id": rows["run_id"],
        "env": rows["env"],
        "agent_id": rows["agent_id"],
        "model": rows["model"],
        "adapter": rows["adapter"],
        "started": rows["ts"],
        "decisions": decided.cast(pa.int64()),
        "invalid": invalid.cast(pa.int64()),
        "reward": pc.if_else(decided, rows["reward"], None),
        "ended": ends,
        "terminated": rows["terminated"],
        "truncated": rows["truncated"],
        "error": pc.if_else(ends, rows["error"], None),
        "ending": pc.if_else(ends, rows["metadata"], None),
        "metadata": pc.if_else(starts, rows["metadata"], None),
    }
    return _aggregate(pa.table(columns))


def _aggregate(table: pa.Table) -> pa.Table:
    grouped = table.group_by("episode_id", use_threads=False).aggregate(list(_AGGREGATES.items()))
    return pa.table(
        {
            "episode_id": grouped["episode_id"],
            **{name: grouped[f"{name}_{how}"] for name, how in _AGGREGATES.items()},
        }
    )


def summarise(partials: Sequence[pa.Table]) -> pa.Table:
    """The view `episodes`, in order of the episodes' starts.

    Args:
        partials: what `partial_summary` returned for each row group, in order of time.
    """
    if not partials:
        return EPISODES.empty_table()
    table = _aggregate(pa.concat_tables(partials))
    outcomes = [outcome_of(ending) for ending in table["ending"].to_pylist()]
    successes = [None if (said := o.get("success")) is None else bool(said) for o in outcomes]
    texts = [to_json(outcome or None, "outcome", {}) for outcome in outcomes]
    columns = {
        **{name: table[name] for name in EPISODES.names if name in table.column_names},
        "terminated": pc.coalesce(table["terminated"], False),
        "truncated": pc.coalesce(table["truncated"], False),
        "aborted": pc.is_valid(table["error"]),
        "success": pa.array(successes, pa.bool_()),
        "outcome": pa.array(texts, pa.string()),
    }
    view = pa.table([columns[name] for name in EPISODES.names], schema=EPISODES)
    return view.sort_by([("started", "ascending"), ("episode_id", "ascending")])
