"""Late rewards: rows of kind `reward`, folded into the decisions they refer to.

Most are in the episode of their decision. One that was given outside of it is a stray: it can be
anywhere in the store.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

LATE = pa.schema([("decision_id", pa.string()), ("reward", pa.float64())])
KEYS = ("decision_id", "kind", "episode_id", "reward")
"""The columns that say which reward is whose."""


def late_rewards(rows: pa.Table) -> pa.Table:
    """Sum of the late rewards of each decision: columns decision_id, reward.

    Args:
        rows: columns kind, decision_id and reward of any rows.
    """
    return _summed(rows.filter(pc.equal(rows["kind"], "reward")))


def strays(rows: pa.Table) -> pa.Table:
    """The late rewards whose decisions are of another episode: columns decision_id, reward.

    Args:
        rows: the columns `KEYS` of all rows of some episodes.
    """
    late, own = _late_and_own(rows)
    return _summed(late.filter(pc.invert(own)))


def fold(rows: pa.Table, given: pa.Table) -> pa.Table:
    """Add late rewards to the `reward` of the decisions among all rows of some episodes.

    Args:
        rows: any columns, the `KEYS` among them; rewards of their own episodes are found here,
            `reward` rows stay as they are.
        given: what `strays` returned, of the whole store.
    """
    late, own = _late_and_own(rows)
    found = [late.filter(own).select(LATE.names).cast(LATE)]
    if given.num_rows:
        found.append(given.filter(pc.is_in(given["decision_id"], rows["decision_id"])))
    return add_late(rows, total(found))


def add_late(rows: pa.Table, late: pa.Table) -> pa.Table:
    """Add sums of late rewards to the `reward` of the decisions they refer to.

    Args:
        rows: any columns, among them kind, decision_id and reward; `reward` rows are untouched.
        late: what `late_rewards` returned.
    """
    if not late.num_rows:
        return rows
    found = pc.index_in(rows["decision_id"], late["decision_id"], skip_nulls=True)
    added = pc.if_else(pc.equal(rows["kind"], "decision"), late["reward"].take(found), None)
    reward = pc.if_else(
        pc.is_valid(added),
        pc.add(pc.coalesce(rows["reward"], 0.0), pc.coalesce(added, 0.0)),
        rows["reward"],
    )
    return rows.set_column(rows.schema.get_field_index("reward"), "reward", reward)


def _late_and_own(rows: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
    """The `reward` rows, and whether the decision of each is in its own episode."""
    keys = rows.select(list(KEYS))
    late = keys.filter(pc.equal(keys["kind"], "reward"))
    decided = keys.filter(pc.equal(keys["kind"], "decision"))
    return late, pc.is_in(_subject(late), _subject(decided))


def _subject(rows: pa.Table) -> pa.ChunkedArray:
    texts = [rows[name].cast(pa.string()) for name in ("decision_id", "episode_id")]
    return pc.binary_join_element_wise(*texts, " ")


def total(tables: Iterable[pa.Table]) -> pa.Table:
    """One sum for each decision, of several tables of the columns decision_id, reward."""
    return _summed(pa.concat_tables([LATE.empty_table(), *tables]))


def _summed(late: pa.Table) -> pa.Table:
    summed = late.group_by("decision_id").aggregate([("reward", "sum")])
    return pa.table([summed["decision_id"], summed["reward_sum"]], schema=LATE)
