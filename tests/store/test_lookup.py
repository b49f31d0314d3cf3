"""One episode out of a large store: which row groups are touched, and that nothing is missed."""

from itertools import groupby

import pyarrow as pa
import pytest

from simtune.store import footers, read
from simtune.store.files import open_part
from simtune.store.schema import ROW_GROUP_ROWS, ROWS
from tests.benchmarks.stores import DECISIONS, ROWS_PER_EPISODE, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24,000 rows in two files of two row groups each."""
    root = tmp_path_factory.mktemp("large")
    return root, make_store(root, rows=24_000, rows_per_file=12_000)


@pytest.fixture
def touched(monkeypatch):
    """(file, row groups, columns) of every read."""
    seen = []

    class Watched:
        def __init__(self, path, file):
            self.path, self.file = path, file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read_row_groups(self, groups, columns=None, **options):
            seen.append((self.path.name[-9], tuple(groups), tuple(columns or ROWS.names)))
            return self.file.read_row_groups(groups, columns=columns, **options)

        def iter_batches(self, row_groups, batch_size, columns=None, **options):
            seen.append((self.path.name[-9], tuple(row_groups), tuple(columns or ROWS.names)))
            return self.file.iter_batches(
                row_groups=row_groups, batch_size=batch_size, columns=columns, **options
            )

    monkeypatch.setattr(
        footers, "open_part", lambda path, *a, **k: Watched(path, open_part(path, *a, **k))
    )
    return seen


def test_opening_reads_nothing(made, touched):
    root, _ = made
    store = read(root)
    assert touched == []
    assert len(store.files) == 2
    assert touched == []  # footers alone


def test_one_episode_is_read_from_one_row_group(made, touched):
    root, ids = made
    store = read(root)
    assert [len(part.groups) for part in store.parts] == [2, 2]
    first = sorted(ids[: len(ids) // 2])[0]  # in the first file, at the beginning of it
    episode = store.episode(first)
    assert len(episode) == DECISIONS
    assert episode.total_reward == 0.5 * DECISIONS
    whole = [(file, groups) for file, groups, columns in touched if "prompt" in columns]
    assert len(whole) == 1
    assert len(whole[0][1]) == 1
    # Of each file the ids of the one group that can hold it were looked at.
    assert [columns for _, _, columns in touched].count(("episode_id",)) == 2
    assert all(len(groups) == 1 for _, groups, columns in touched if columns == ("episode_id",))


def test_rewards_are_looked_for_where_the_decisions_ids_can_be(made, touched):
    root, ids = made
    store = read(root)
    store.episode(ids[200])
    rewards = {file for file, _, columns in touched if columns == ("kind", "decision_id", "reward")}
    assert len(rewards) == 1  # the other file's decision ids are of other numbers


def test_a_condition_on_episodes_reads_only_what_can_hold_them(made, touched):
    root, ids = made
    store = read(root)
    wanted = sorted(ids)[0]
    list(store.episodes(ids=[wanted]))
    whole = [(file, groups) for file, groups, columns in touched if "prompt" in columns]
    assert {groups for _, groups in whole} == {(0,)}


def test_a_condition_is_pushed_down(made, tmp_path):
    """Damage in row groups that cannot match is not met, so they were not read."""
    root, ids = made
    copy = tmp_path / "copy"
    (copy / "data" / "v1").mkdir(parents=True)
    store = read(root)
    lowest = sorted(ids)[0]
    for part in store.parts:
        data = bytearray(part.path.read_bytes())
        last = part.metadata.row_group(1)
        for column in map(last.column, range(last.num_columns)):
            if column.path_in_schema in ("kind", "decision_id", "reward"):
                continue  # read everywhere, for late rewards can be anywhere
            offset = column.dictionary_page_offset or column.data_page_offset
            data[offset + 20] ^= 0xFF
        (copy / "data" / "v1" / part.path.name).write_bytes(data)
    found = read(copy).decisions(
        f"episode_id = '{lowest}'", columns=["episode_id", "step", "prompt"]
    )
    assert found.num_rows == DECISIONS
    assert found.column_names == ["episode_id", "step", "prompt"]


def test_every_episode_is_found_and_all_ways_agree(made):
    root, ids = made
    store = read(root)
    assert store.episode_ids() == sorted(ids)
    assert sorted(episode.episode_id for episode in store.episodes()) == sorted(ids)
    for episode_id in (*ids[:3], *sorted(ids)[-2:], ids[len(ids) // 2]):
        (alone,) = store.episodes(ids=[episode_id])
        assert store.episode(episode_id) == alone
        assert store.episode_ids(episode_id[:7]) == [episode_id]
    assert store.count()["decisions"] == len(ids) * DECISIONS
    assert sum(table.num_rows for table in store.rows()) == len(ids) * ROWS_PER_EPISODE


def test_batches_are_whole_episodes_and_few_rows_at_a_time(made):
    root, ids = made
    store = read(root)
    columns = ["episode_id", "step", "reward", "response"]
    tables = list(store.batches(columns=columns))
    assert max(table.num_rows for table in tables) <= 2 * ROW_GROUP_ROWS
    table = pa.concat_tables(tables)
    runs = [list(run) for _, run in groupby(table.to_pylist(), lambda row: row["episode_id"])]
    assert len(runs) == len(ids)  # each episode is in one place
    assert all([row["step"] for row in run] == list(range(DECISIONS)) for run in runs)
    assert set(table["reward"].to_pylist()) == {0.5}
    assert store.decisions(columns=columns).equals(table)
