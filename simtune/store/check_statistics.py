"""Checking what a footer says of its rows: lookups skip row groups on its word."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_USED: Final = {"decision_id", "kind", "episode_id", "seq"}


def misstated(group: pq.RowGroupMetaData, rows: pa.Table) -> list[str]:
    """The columns whose values go beyond what the footer says.

    Args:
        group: of the footer.
        rows: what the row group holds.
    """
    found = []
    for column in map(group.column, range(group.num_columns)):
        name, said = column.path_in_schema, column.statistics
        if name in _USED and said is not None and said.has_min_max:
            span = pc.min_max(rows[name]).as_py()
            if span["min"] is not None and not (
                said.min <= span["min"] and span["max"] <= said.max
            ):
                found.append(name)
    return found
