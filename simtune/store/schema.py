"""The Parquet schema of format 1: columns, types and encodings, pinned (see docs/format.md).

Every file has every column, in this order. A change to this list is a new format version.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT_VERSION: Final = 1
ROW_GROUP_ROWS: Final = 8192
SORT_ORDER: Final = (
    ("episode_id", "ascending"),
    ("step", "ascending"),
    ("seq", "ascending"),
    ("writer_id", "ascending"),
)
_DICTIONARY_PAGE_BYTES: Final = 16 * 1024 * 1024

MESSAGE_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
MESSAGE: Final = pa.struct([(name, pa.string()) for name in MESSAGE_FIELDS])

ROWS: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("writer_id", pa.string()),
        ("seq", pa.int64()),
        ("kind", pa.string()),
        ("episode_id", pa.string()),
        ("run_id", pa.string()),
        ("env", pa.string()),
        ("agent_id", pa.string()),
        ("action", pa.string()),
        ("model", pa.string()),
        ("adapter", pa.string()),
        ("step", pa.int64()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("mono_ns", pa.int64()),
        ("latency_us", pa.int64()),
        ("prompt", pa.list_(MESSAGE)),
        ("response", pa.string()),
        ("parsed", pa.string()),
        ("observation", pa.string()),
        ("metadata", pa.string()),
        ("extra", pa.string()),
        ("valid", pa.bool_()),
        ("error", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("choices", pa.list_(pa.string())),
        ("choice_logprobs", pa.list_(pa.float32())),
        ("sampling", pa.string()),
        ("reward", pa.float64()),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
    ],
    metadata={"simtune.format": str(FORMAT_VERSION), "simtune.table": "rows"},
)
"""One row of `data/v1/*.parquet`.

`(writer_id, seq)` identifies the row. `decision_id` is `<writer_id>-<seq>` on a `decision` row, the
decision referred to on a `reward` row, and null on episode rows.
"""

SCORES: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("episode_id", pa.string()),
        ("scorer", pa.string()),
        ("scorer_version", pa.string()),
        ("score", pa.float64()),
        ("detail", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("writer_id", pa.string()),
        ("seq", pa.int64()),
    ],
    metadata={"simtune.format": str(FORMAT_VERSION), "simtune.table": "scores"},
)
"""One row of `scores/v1/<scorer>/*.parquet`; a null `decision_id` scores the whole episode."""

_DICTIONARY: Final = (
    "writer_id",
    "kind",
    "episode_id",
    "run_id",
    "env",
    "agent_id",
    "action",
    "model",
    "adapter",
    "sampling",
    "prompt.list.element.role",
    "prompt.list.element.content",
    "scorer",
    "scorer_version",
)
_ENCODINGS: Final = {
    "decision_id": "DELTA_BYTE_ARRAY",
    "seq": "DELTA_BINARY_PACKED",
    "step": "DELTA_BINARY_PACKED",
    "ts": "DELTA_BINARY_PACKED",
    "mono_ns": "DELTA_BINARY_PACKED",
    "latency_us": "DELTA_BINARY_PACKED",
    "logprobs.list.element": "BYTE_STREAM_SPLIT",
    "choice_logprobs.list.element": "BYTE_STREAM_SPLIT",
}

_UNCOMPARED: Final = frozenset({"response", "parsed", "observation", "metadata", "extra", "error"})
"""Texts that nobody selects by range: their least and greatest would only swell the footer."""


def parquet_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet writer with the pinned encodings.

    Args:
        sink: a binary file open for writing.
        schema: `ROWS` or `SCORES`.
    """
    own = set(schema.names)
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[path for path in _DICTIONARY if path.split(".")[0] in own],
        write_statistics=[
            field.name
            for field in schema
            if not pa.types.is_list(field.type) and field.name not in _UNCOMPARED
        ],
        column_encoding={k: v for k, v in _ENCODINGS.items() if k.split(".")[0] in own},
        dictionary_pagesize_limit=_DICTIONARY_PAGE_BYTES,
        sorting_columns=pq.SortingColumn.from_ordering(ROWS, SORT_ORDER)
        if schema is ROWS
        else None,
        write_page_index=True,
        write_page_checksum=True,
    )
