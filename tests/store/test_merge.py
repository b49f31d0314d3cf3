"""The merge of sorted files: every episode comes whole and once, whatever the files hold."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.errors import CorruptError
from simtune.store import footers, merge
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
def test_whole_episodes_in_order_however_little_is_held(files, held):
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "_LEAST_ROWS", 1)
        paths = [write(directory, n, sorted(ids)) for n, ids in enumerate(files)]
        found = [table.to_pydict() for table in merged(read_footers(paths), COLUMNS, rows=held)]
    expected = {}
    for number, ids in enumerate(files):
        for position, each in enumerate(sorted(ids)):
            expected.setdefault(each, []).append(100 * number + position)
    got, last = {}, ""
    for rows in found:
        assert min(rows["episode_id"]) > last  # none is continued from the table before
        last = max(rows["episode_id"])
        for each, seq in zip(rows["episode_id"], rows["seq"], strict=True):
            got.setdefault(each, []).append(seq)
    assert got == expected  # within an episode: files in order of time, rows as they lie


def test_files_whose_ids_do_not_overlap_are_opened_one_after_another(tmp_path, monkeypatch):
    ids = ["a", "b", "c", "d"]
    paths = [write(tmp_path, n, [each] * 9) for n, each in enumerate(ids)]
    opened = []
    read = footers.read_batches
    monkeypatch.setattr(
        merge, "read_batches", lambda part, *a: opened.append(part.path) or read(part, *a)
    )
    tables = merged(read_footers(paths), COLUMNS, rows=100)
    seen = [(next(tables)["episode_id"][0].as_py(), len(opened)) for _ in ids]
    assert [name for name, _ in seen] == ids
    assert seen[0][1] < len(ids)
    assert opened == paths


@pytest.mark.parametrize("ids", [["b", "a"], ["a"] * 4 + ["b"] * 4 + ["a"], ["a", None]])
def test_a_file_that_is_not_sorted_is_refused_rather_than_episodes_split(tmp_path, ids):
    path = write(tmp_path, 0, ids)
    with pytest.raises(
        CorruptError, match=r"(?s)not sorted by episode_id.*simtune episodes import"
    ):
        list(merged(read_footers([path]), COLUMNS, rows=2))
