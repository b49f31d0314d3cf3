"""Late rewards: rows of kind `reward`, folded into the decisions they refer to."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

LATE = pa.schema([("decision_id", pa.string()), ("reward", pa.float64())])


def late_rewards(rows: pa.Table) -> pa.Table:
    """Sum of the late rewards of each decision: columns decision_id, reward.

    Args:
        rows: columns kind, decision_id and reward of any rows.
    """
    late = rows.filter(pc.equal(rows["kind"], "reward"))
    summed = late.group_by("decision_id").aggregate([("reward", "sum")])
    return pa.table([summed["decision_id"], summed["reward_sum"]], schema=LATE)


def fold(rows: pa.Table, late: pa.Table) -> pa.Table:
    """Add late rewards to the `reward` of the decisions among the rows.

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
