"""One glob over `data/v1/*.parquet`: every engine reads the same values."""

import math
from datetime import UTC, datetime

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from store_rows import OTHER, WRITER, decision, end, reward, start, write_segment

from simtune.store import compact, read
from simtune.store.schema import ROWS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three files with nulls, NaN, infinities, empty lists, nested prompts and all of Unicode."""
    root = tmp_path_factory.mktemp("store")
    odd = 'tab\t"quoted" line\nnull\x00 \U0001f600 \u2028 é'
    chats = [
        None,
        [],
        [{"role": "system", "content": odd}],
        [
            {"role": "assistant", "content": None, "tool_calls": "[1]"},
            {"role": "tool", "content": "", "name": "n", "tool_call_id": "1"},
        ],
    ]
    for number, chat in enumerate(chats):
        rows = [
            start(f"ep{number}", metadata='{"seed":1}'),
            decision(
                f"ep{number}",
                0,
                prompt=chat,
                response=odd if number else "",
                ts=1_700_000_000_123_456 + number,
                logprobs=[-0.1, math.nan, -math.inf] if number else [],
                choices=["left", "", odd] if number % 2 else [],
                choice_logprobs=[math.nan] if number % 2 else [],
                reward=[None, math.nan, math.inf, -0.1][number],
                latency_us=None if number else 2**62,
                token_ids=[2**31 - 1, -(2**31)],
                valid=[None, True, False, True][number],
            ),
            reward(f"{WRITER}-{5 * number + 1}", 0.25, f"ep{number}"),
            end(f"ep{number}", 1, truncated=True),
            decision(f"other{number}", 3, agent_id=None, adapter=None),
        ]
        write_segment(root, rows, segno=number, first_seq=5 * number)
        compact(root)
    write_segment(root, [decision("ep1", 1)], writer=OTHER)
    compact(root)
    return root


COLUMNS = ", ".join(ROWS.names)


def glob(root):
    return str(root / "data" / "v1" / "*.parquet")


def by_pyarrow(root):
    table = ds.dataset(str(root / "data" / "v1"), format="parquet").to_table()
    return table.to_pylist()


def by_duckdb(root):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT {COLUMNS} FROM '{glob(root)}'")
        return found.to_arrow_table().to_pylist()


def by_polars(root):
    return pl.scan_parquet(glob(root)).collect().to_dicts()


def by_pandas(root):
    return pd.read_parquet(root / "data" / "v1", dtype_backend="pyarrow").to_dict("records")


def by_datasets(root, cache):
    found = datasets.load_dataset(
        "parquet", data_files=glob(root), split="train", cache_dir=str(cache)
    )
    return found.to_list()


def plain(value):
    """One form for the same value: containers as lists and dicts, times in UTC, NaN as itself."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return [plain(each) for each in value]
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, datetime):
        moment = value.to_pydatetime() if isinstance(value, pd.Timestamp) else value
        return moment.astimezone(UTC)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return value


def ordered(rows):
    return sorted(map(plain, rows), key=lambda row: (row["writer_id"], row["seq"]))


@pytest.fixture(scope="module")
def expected(root):
    """What was written, read file by file with nothing but pyarrow's Parquet reader."""
    paths = sorted((root / "data" / "v1").glob("*.parquet"))
    assert len(paths) == 5
    return ordered(row for path in paths for row in pq.ParquetFile(path).read().to_pylist())


def test_what_is_expected(expected):
    assert len(expected) == 21
    second = next(
        r for r in expected if r["decision_id"] == f"{WRITER}-6" and r["kind"] == "decision"
    )
    assert second["ts"] == datetime(2023, 11, 14, 22, 13, 20, 123457, tzinfo=UTC)
    assert second["logprobs"][1:] == ["NaN", -math.inf]
    assert (second["prompt"], second["reward"], second["latency_us"]) == ([], "NaN", None)
    assert second["choices"][:2] == ["left", ""]
    assert list(second) == ROWS.names


@pytest.mark.parametrize("engine", [by_pyarrow, by_duckdb, by_polars, by_pandas])
def test_every_engine_reads_the_same(root, expected, engine):
    assert ordered(engine(root)) == expected


def test_hugging_face_reads_the_same(root, expected, tmp_path):
    assert ordered(by_datasets(root, tmp_path)) == expected


def test_the_query_of_the_format_page_folds_rewards_as_the_reader_does(root):
    with duckdb.connect() as connection:
        found = connection.sql(f"""
            SELECT d.decision_id, coalesce(d.reward, 0) + coalesce(sum(r.reward), 0) AS reward
            FROM '{glob(root)}' d
            LEFT JOIN '{glob(root)}' r ON r.kind = 'reward' AND r.decision_id = d.decision_id
            WHERE d.kind = 'decision' GROUP BY d.decision_id, d.reward""").fetchall()
    rows = read(root).decisions().to_pylist()
    assert sorted(map(str, found)) == sorted(str((r["decision_id"], r["reward"])) for r in rows)


def test_to_hf_is_the_decisions_mapped_from_a_file(root, tmp_path):
    store = read(root)
    made = store.to_hf(cache_dir=tmp_path)
    assert ordered(made.to_list()) == ordered(store.decisions().to_pylist())
    assert made.features.arrow_schema.names == ROWS.names
    (file,) = tmp_path.iterdir()
    assert made.cache_files[0]["filename"] == str(file)
    before = file.stat().st_mtime_ns
    assert store.to_hf(cache_dir=tmp_path).num_rows == made.num_rows
    assert file.stat().st_mtime_ns == before
    chosen = store.to_hf("episode_id = 'ep2'", cache_dir=tmp_path)
    assert chosen["decision_id"][:] == [f"{WRITER}-11"]
    assert made.with_format("numpy")["reward"][:].shape == (9,)
