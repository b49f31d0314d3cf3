"""The columns of format 1, their types and encodings: pinned, since others read these files."""

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import decision, end, reward, start, write_segment

from simtune.store import compact
from simtune.store.schema import ROWS, SCORES

MESSAGE = "struct<role: string, content: string, name: string, tool_calls: string, "
MESSAGE += "tool_call_id: string>"
COLUMNS = {
    "decision_id": "string",
    "writer_id": "string",
    "seq": "int64",
    "kind": "string",
    "episode_id": "string",
    "run_id": "string",
    "env": "string",
    "agent_id": "string",
    "action": "string",
    "model": "string",
    "adapter": "string",
    "step": "int64",
    "ts": "timestamp[us, tz=UTC]",
    "mono_ns": "int64",
    "latency_us": "int64",
    "prompt": f"list<element: {MESSAGE}>",
    "response": "string",
    "parsed": "string",
    "observation": "string",
    "metadata": "string",
    "extra": "string",
    "valid": "bool",
    "error": "string",
    "prompt_token_ids": "list<element: int32>",
    "token_ids": "list<element: int32>",
    "logprobs": "list<element: float>",
    "choices": "list<element: string>",
    "choice_logprobs": "list<element: float>",
    "sampling": "string",
    "reward": "double",
    "terminated": "bool",
    "truncated": "bool",
}
ENCODINGS = {
    "decision_id": "DELTA_BYTE_ARRAY",
    "writer_id": "RLE_DICTIONARY",
    "episode_id": "RLE_DICTIONARY",
    "kind": "RLE_DICTIONARY",
    "sampling": "RLE_DICTIONARY",
    "seq": "DELTA_BINARY_PACKED",
    "step": "DELTA_BINARY_PACKED",
    "ts": "DELTA_BINARY_PACKED",
    "mono_ns": "DELTA_BINARY_PACKED",
    "latency_us": "DELTA_BINARY_PACKED",
    "prompt.list.element.role": "RLE_DICTIONARY",
    "prompt.list.element.content": "RLE_DICTIONARY",
    "logprobs.list.element": "BYTE_STREAM_SPLIT",
    "choice_logprobs.list.element": "BYTE_STREAM_SPLIT",
    "response": "PLAIN",
    "token_ids.list.element": "PLAIN",
}


@pytest.fixture
def part(tmp_path):
    """The Parquet file of one episode that fills every column, rows logged out of order."""
    first, second = decision(step=0), decision(step=1, logprobs=[float("nan"), -0.25])
    rows = [start(metadata='{"seed":3}'), second, first, reward("0123456789abcdef-1", 2.0), end()]
    write_segment(tmp_path, [*rows, decision("another", prompt=None, reward=None)])
    (file,) = compact(tmp_path).files
    return file


def test_every_file_has_every_column_in_this_order(part):
    found = pq.read_schema(part)
    assert {field.name: str(field.type) for field in found} == COLUMNS
    assert found.names == list(COLUMNS) == ROWS.names
    assert found.metadata[b"simtune.format"] == b"1"


def test_the_columns_of_scores():
    assert {field.name: str(field.type) for field in SCORES} == {
        "decision_id": "string",
        "episode_id": "string",
        "scorer": "string",
        "scorer_version": "string",
        "score": "double",
        "detail": "string",
        "ts": "timestamp[us, tz=UTC]",
        "writer_id": "string",
        "seq": "int64",
    }


def test_encodings_compression_and_page_index(part):
    group = pq.read_metadata(part).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for path, encoding in ENCODINGS.items():
        assert encoding in columns[path].encodings, path
        dictionary = encoding == "RLE_DICTIONARY"
        assert columns[path].has_dictionary_page is dictionary, path
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["episode_id"].has_offset_index
    assert columns["episode_id"].has_column_index
    assert [group.sorting_columns[i].column_index for i in range(2)] == [
        list(columns).index("episode_id"),
        list(columns).index("step"),
    ]


def test_only_columns_that_rows_are_selected_by_have_statistics(part):
    group = pq.read_metadata(part).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    known = {column.path_in_schema for column in columns if column.is_stats_set}
    texts = {"response", "parsed", "observation", "metadata", "extra", "error"}
    assert known == {field.name for field in ROWS if not pa.types.is_list(field.type)} - texts


def test_rows_are_sorted_and_identified(part):
    table = pq.read_table(part, columns=["episode_id", "step", "kind", "decision_id", "seq"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("another", 0, "decision", "0123456789abcdef-5", 5),
        ("ep", 0, "episode_start", None, 0),
        ("ep", 0, "decision", "0123456789abcdef-2", 2),
        # A reward's decision_id is the decision it refers to; its own identity is (writer, seq).
        ("ep", 0, "reward", "0123456789abcdef-1", 3),
        ("ep", 1, "decision", "0123456789abcdef-1", 1),
        ("ep", 99, "episode_end", None, 4),
    ]


def test_missing_values_are_null_lists_are_empty_and_logprobs_nan(part):
    table = pq.read_table(part)
    by_kind = {row["kind"]: row for row in table.to_pylist()}
    assert by_kind["episode_start"]["prompt"] is None
    assert by_kind["episode_start"]["token_ids"] == []
    assert by_kind["episode_start"]["response"] is None
    assert table["logprobs"].combine_chunks().flatten().null_count == 0
    (unsure,) = [row for row in table.to_pylist() if row["seq"] == 1]
    assert str(unsure["logprobs"][0]) == "nan"
    assert unsure["logprobs"][1] == -0.25


def _plain(value):
    """Values of any engine as comparable ones: NaN equals NaN."""
    if isinstance(value, float) and value != value:
        return "nan"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def test_five_engines_read_the_same(part):
    expected = [_plain(row) for row in pq.read_table(part).to_pylist()]
    glob = part.rsplit("/", 1)[0] + "/*.parquet"

    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        by_duckdb = connection.sql(f"SELECT * FROM read_parquet('{glob}')").to_arrow_table()
    assert by_duckdb.column_names == list(COLUMNS)
    assert [_plain(row) for row in by_duckdb.to_pylist()] == expected

    by_polars = polars.read_parquet(glob)
    assert [_plain(row) for row in by_polars.to_dicts()] == expected

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(part, dtype_backend="pyarrow")
    again = pa.Table.from_pandas(frame, preserve_index=False)
    assert [_plain(row) for row in again.to_pylist()] == expected

    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(glob, cache_dir=part + ".cache", keep_in_memory=True)
    assert [_plain(row) for row in loaded.with_format("arrow")[:].to_pylist()] == expected
