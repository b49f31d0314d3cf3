"""The merge of sorted files: every episode comes whole and once, whatever the files hold."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.errors import CorruptError
from simtune.store import merge
from simtune.store.footers import read_footers
from simtune.store.merge import merged
from simtune.store.schema import ROWS, parquet_writer

COLUMNS = ["episode_id", "seq"]
FILES = st.lists(
    st.lists(st.sampled_from(["a", "b", "bb", "c", "d", "é", "z"]), min_size=1, max_size=30),
    max_size=5,
)


def write(directory, number, ids, *, group=4):
    """A file with one row for each id, in this order."""
    rows = [
        {"episode_id": each, "seq": 100 * number + i, "ts": number} for i, each in enumerate(ids)
    ]
    path = Path(directory) / f"part-{'0' * 16}-{number:010d}.parquet"
    with open(path, "wb") as file, parquet_writer(file, ROWS) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=ROWS), row_group_size=group)
    return path


@settings(deadline=None, max_examples=40)
@given(FILES, st.integers(1, 9))
def test_whole_episodes_once_however_few_rows_are_read_at_a_time(files, rows):
    with tempfile.TemporaryDirectory() as directory:
        paths = [write(directory, n, sorted(ids)) for n, ids in enumerate(files)]
        found = [table.to_pydict() for table in merged(read_footers(paths), COLUMNS, rows=rows)]
    expected = {}
    for number, ids in enumerate(files):
        for position, each in enumerate(sorted(ids)):
            expected.setdefault(each, []).append(100 * number + position)
    got = {}
    for table in found:
        assert not set(table["episode_id"]) & set(got)  # none is continued from a table before
        for each, seq in zip(table["episode_id"], table["seq"], strict=True):
            got.setdefault(each, []).append(seq)
    assert got == expected  # within an episode: files in order of time, rows as they lie


def test_an_episode_comes_when_its_last_file_is_read_and_only_its_rows_wait(tmp_path, monkeypatch):
    files = [["a", "long"], ["b", "long", "z"], ["c"], ["d", "z"]]
    parts = read_footers([write(tmp_path, n, ids) for n, ids in enumerate(files)])
    opened = []
    read = merge.read_batches
    monkeypatch.setattr(
        merge, "read_batches", lambda part, *a: opened.append(part.begun) or read(part, *a)
    )
    came = [(t["episode_id"].to_pylist(), len(opened)) for t in merged(parts, COLUMNS, rows=100)]
    assert [(sorted(set(ids)), files) for ids, files in came if ids] == [
        (["a"], 1),
        (["b"], 2),
        (["long"], 2),
        (["c"], 3),
        (["d"], 4),
        (["z"], 4),
    ]


@pytest.mark.parametrize("ids", [["b", "a"], ["a"] * 4 + ["b"] * 4 + ["a"], ["a", None]])
def test_a_file_that_is_not_sorted_is_refused_rather_than_episodes_split(tmp_path, ids):
    path = write(tmp_path, 0, ids)
    with pytest.raises(
        CorruptError, match=r"(?s)not sorted by episode_id.*simtune episodes import"
    ):
        list(merged(read_footers([path]), COLUMNS, rows=2))
