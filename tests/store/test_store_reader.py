"""Reading a store back: tables, episodes, SQL, and stores that cannot be read."""

import asyncio
import math
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import OTHER, WRITER, decision, end, reward, start, write_segment

import simtune
from simtune.errors import CorruptError, DataError, MissingExtraError
from simtune.store import Score, read, reader, write_scores


@pytest.fixture
def walks(tmp_path):
    """Three episodes by two writers; `b` is still running, `c` was aborted."""
    write_segment(
        tmp_path,
        [
            start("a", env="lake", metadata='{"seed":3}'),
            decision("a", 0, reward=None),
            decision("a", 1, reward=0.5),
            reward(f"{WRITER}-1", 1.0, "a"),
            reward(f"{WRITER}-2", 0.25, "a"),
            end("a", 2, terminated=True, metadata='{"outcome":{"success":true,"length":2}}'),
            start("b", env="lake"),
            decision("b", 0, valid=False, reward=None),
        ],
    )
    write_segment(
        tmp_path,
        [
            start("c", env="road"),
            decision("c", 0),
            end("c", 1, error="ValueError: stuck", metadata='{"outcome":{},"aborted":true}'),
            reward(f"{WRITER}-1", 8.0, "an id of no episode"),
        ],
        writer=OTHER,
    )
    return tmp_path


def test_count(walks):
    assert read(walks).count() == {
        "episodes": 3,
        "ended": 2,
        "decisions": 4,
        "late_rewards": 3,
        "scores": 0,
        "files": 1,
    }


def test_late_rewards_are_folded_into_decisions_whoever_logged_them(walks):
    table = read(walks).decisions()
    assert dict(
        zip(table["decision_id"].to_pylist(), table["reward"].to_pylist(), strict=True)
    ) == {
        f"{WRITER}-1": 9.0,
        f"{WRITER}-2": 0.75,
        f"{WRITER}-7": None,
        f"{OTHER}-1": 0.5,
    }


def test_decisions_where_is_sql_and_has_the_same_columns(walks):
    store = read(walks)
    chosen = store.decisions("reward > 0.5 AND valid")
    assert chosen["decision_id"].to_pylist() == [f"{WRITER}-1", f"{WRITER}-2"]
    assert chosen.schema == store.decisions().schema


def test_episodes_come_assembled(walks):
    found = {episode.episode_id: episode for episode in read(walks).episodes()}
    assert sorted(found) == ["a", "b", "c"]
    won = found["a"]
    assert (won.env, won.metadata, won.outcome) == (
        "lake",
        {"seed": 3},
        {"success": True, "length": 2},
    )
    assert (won.success, won.terminated, won.truncated, won.aborted) == (True, True, False, False)
    assert won.total_reward == 9.75
    assert [decision.terminated for decision in won.decisions] == [False, True]
    assert (found["b"].ended, found["b"].decisions[0].valid) == (False, False)
    assert (found["c"].aborted, found["c"].error) == (True, "ValueError: stuck")


def test_episodes_where_and_ended(walks):
    store = read(walks)
    assert [each.episode_id for each in store.episodes("env = 'road'")] == ["c"]
    assert [each.episode_id for each in store.episodes(ended=False)] == ["b"]
    assert [each.episode_id for each in store.episodes("success", ended=True)] == ["a"]
    assert list(store.episodes("decisions > 99")) == []


def test_one_episode_is_the_same_as_among_all(walks):
    store = read(walks)
    for episode in store.episodes():
        assert store.episode(episode.episode_id) == episode


def test_an_unknown_episode_is_an_error_that_says_where_to_look(walks):
    with pytest.raises(DataError, match=r"(?s)no episode 'zzz'.*simtune episodes ls"):
        read(walks).episode("zzz")
    with pytest.raises(DataError, match="no episode"):
        read(walks).episode("an id of no episode")


def test_sql_sees_the_same_as_the_methods(walks):
    store = read(walks)
    write_scores(
        walks,
        [Score(decision_id=None, episode_id="a", scorer="judge", scorer_version="1", score=0.5)],
    )
    joined = store.sql(
        "SELECT e.episode_id, e.reward, e.decisions, s.score, e.aborted "
        "FROM episodes e LEFT JOIN scores s USING (episode_id) ORDER BY 1"
    )
    assert [tuple(row.values()) for row in joined.to_pylist()] == [
        ("a", 9.75, 2, 0.5, False),
        ("b", None, 1, None, False),
        ("c", 0.5, 1, None, True),
    ]
    by_sql = store.sql("SELECT * FROM decisions ORDER BY writer_id, seq").cast(
        store.decisions().schema
    )
    keys = [("writer_id", "ascending"), ("seq", "ascending")]
    assert by_sql.equals(store.decisions().sort_by(keys))
    assert store.sql("SELECT count(*) AS n FROM rows").to_pylist() == [{"n": 12}]


def test_sql_that_cannot_run_is_an_error_of_ours(walks):
    store = read(walks)
    with pytest.raises(DataError, match=r"(?s)the query failed.*nonsense"):
        store.sql("SELECT nonsense FROM decisions")
    with pytest.raises(DataError, match="the query failed"):
        store.sql("SELEC 1")


def test_sql_cannot_reach_variables_of_the_program(walks):
    secret = pa.table({"x": [1]})
    assert secret.num_rows == 1
    with pytest.raises(DataError, match="secret"):
        read(walks).sql("SELECT * FROM secret")


def test_without_duckdb_only_sql_is_missing(walks, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    store = read(walks)
    assert store.decisions().num_rows == 4
    assert len(list(store.episodes())) == 3
    with pytest.raises(MissingExtraError, match=r"pip install 'simtune\[train\]'"):
        store.sql("SELECT 1")


def test_episodes_are_whole_however_they_are_cut_into_files_and_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_CHUNK_ROWS", 7)
    ids = [f"ep{n}" for n in (3, 1, 2, 0)]
    for step in range(5):
        # Every compaction takes one step of each episode: each is spread over five files.
        rows = [decision(i, step, ts=1000 * step + n, reward=1.0) for n, i in enumerate(ids)]
        write_segment(tmp_path, rows, segno=step, first_seq=4 * step)
        store = read(tmp_path)
    assert len(store.files) == 5
    found = list(store.episodes())
    assert sorted(each.episode_id for each in found) == sorted(ids)
    assert store.summary()["episode_id"].to_pylist() == ids  # in order of their starts
    for each in found:
        assert [decision.step for decision in each.decisions] == [0, 1, 2, 3, 4]
        assert each.total_reward == 5.0


def test_a_store_is_a_snapshot(walks):
    store = read(walks)
    write_segment(walks, [decision("later")], segno=1, first_seq=8)
    assert read(walks).count()["episodes"] == 4
    assert store.count()["episodes"] == 3


def test_read_after_write_in_one_process(root):
    with simtune.episode(env="lake", agent="walker", seed=7) as log:
        reply = simtune.Reply(
            "left", prompt_token_ids=[1], token_ids=[2, 3], logprobs=[-0.5, math.nan], model="tiny"
        )
        first = log.decision("where?", reply, parsed={"move": 0}, reward=0.5)
        log.finish(truncated=True, outcome={"success": False}, final_prompt="and now?")
        simtune.reward(0.25, decision=first)
        # Inside the episode: no flush, no wait.
        (episode,) = simtune.read(root).episodes()
    (made,) = episode.decisions
    assert (made.decision_id, made.reward, made.truncated) == (first, 0.75, True)
    assert (made.token_ids, made.prompt_token_ids, made.model) == ([2, 3], [1], "tiny")
    assert made.logprobs[0] == -0.5
    assert math.isnan(made.logprobs[1])
    assert episode.metadata == {"seed": 7}
    assert episode.final_prompt == [{"role": "user", "content": "and now?"}]
    assert episode.success is False

    simtune.reward(1.0, decision=first)
    assert simtune.read(root).episode(episode.episode_id).total_reward == 1.75


def test_messages_come_back_as_they_were_captured(root):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "look"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "thought": {"x": 1}},
        {"role": "tool", "content": "[1, 2]", "tool_call_id": "1"},
    ]
    with simtune.episode() as log:
        log.decision(messages, "fine")
    (episode,) = simtune.read(root).episodes()
    assert episode.decisions[0].prompt == messages


ONE_EPISODE = """
import os, sys, simtune
simtune.configure(root=sys.argv[1], durability="os")
with simtune.episode(env="lake") as log:
    log.decision("q", f"a{sys.argv[2]}")
    if sys.argv[2] == "1":
        os._exit(9)
"""


def test_what_other_processes_captured_is_there_also_of_one_that_died(root):
    command = [sys.executable, "-c", ONE_EPISODE, str(root)]
    running = [subprocess.Popen([*command, str(n)]) for n in range(2)]
    assert [process.wait() for process in running] == [0, 9]
    with simtune.episode() as log:
        log.decision("q", "a2")
    episodes = list(simtune.read(root).episodes())
    said = {episode.decisions[0].response: episode.ended for episode in episodes}
    assert said == {"a0": True, "a1": False, "a2": True}


def test_tasks_that_read_while_others_capture(root):
    async def capture(n):
        async with simtune.episode() as log:
            log.decision("q", str(n))
            await asyncio.sleep(0)
            return simtune.read(root).count()["decisions"]

    async def all_of_them():
        return await asyncio.gather(*(capture(n) for n in range(8)))

    counts = asyncio.run(all_of_them())
    assert max(counts) == 8
    assert simtune.read(root).count()["ended"] == 8


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path: None, "no such directory"),
        (lambda path: path.write_text("x"), "a file, not a directory"),
        (lambda path: path.mkdir(), "an empty directory"),
        (lambda path: (path / "models").mkdir(parents=True), "a directory with models"),
    ],
)
def test_nothing_captured_says_what_is_there_and_what_to_do(tmp_path, make, got):
    path = tmp_path / "store"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="no captured decisions") as caught:
        read(path)
    assert f"got: {got}" in str(caught.value)
    assert "simtune.configure(root=" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_damage_in_the_log_is_a_warning_not_a_silence(walks):
    path = write_segment(walks, [decision("d"), decision("d", 1)], segno=1, first_seq=8)
    data = bytearray(path.read_bytes())
    data[-60] ^= 8
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="fails its checksum"):
        store = read(walks)
    assert len(store.episode("d")) == 1


def test_truncated_hostile_and_foreign_files_end_in_a_clear_error(walks):
    (path,) = read(walks).files
    sound = path.read_bytes()
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"decision_id": ["a"], "extra_column": [1]}), foreign)
    for data in (
        b"",
        b"PAR1",
        sound[:-1],
        sound[: len(sound) // 2],
        b"PAR1" + b"\xff" * 64 + b"PAR1",
    ):
        path.write_bytes(data)
        with pytest.raises(CorruptError, match=path.name):
            read(walks).decisions()
    path.write_bytes(foreign.getvalue())
    with pytest.raises(CorruptError, match=r"(?s)other columns.*extra_column"):
        read(walks).count()


def test_a_flipped_bit_in_any_page_is_never_passed_on(walks):
    (path,) = read(walks).files
    sound = path.read_bytes()
    expected = read(walks).decisions()
    pages_end = pq.read_metadata(path).row_group(0)
    last = max(
        column.data_page_offset + column.total_compressed_size
        for column in map(pages_end.column, range(pages_end.num_columns))
    )
    caught = 0
    for position in range(4, min(last, len(sound)), 97):
        data = bytearray(sound)
        data[position] ^= 0x10
        path.write_bytes(data)
        try:
            assert read(walks).decisions().equals(expected)
        except CorruptError:
            caught += 1
    assert caught > 10
    data = bytearray(sound)
    data[pages_end.column(2).data_page_offset + 30] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(CorruptError):
        read(walks).sql("SELECT * FROM decisions")
