"""`simtune episodes export` and `import`: what comes back is equal, and nothing is half done."""

import json
import math

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import simtune
from simtune.cli.episodes import export as export_module
from simtune.cli.main import main
from simtune.recording import open_episode
from simtune.store import read


@pytest.fixture
def root(tmp_path):
    """Three episodes with everything that is awkward to move; `b`'s decision is rewarded late."""
    root = str(tmp_path / "store")
    reply = simtune.Reply(
        'left\u2028or \ud7ff\n\t"right"',
        prompt_token_ids=[1, 2**31 - 1],
        token_ids=[7, 8, 9],
        logprobs=[-0.1, math.nan, -math.inf],
        model="tiny",
        adapter="ab" * 32,
        sampling={"temperature": 0.7},
    )
    ids = []
    for env in ("walk", "swim", "walk"):
        log = open_episode(env=env, seed=len(ids), root=root, run_id="r")
        first = log.decision(
            [{"role": "user", "content": f"where, {len(ids)}?", "name": "ann"}],
            reply if env == "walk" else "north",
            parsed={"a": 1.0},
            reward=None if ids else math.inf,
            choices=["north", "south"],
            choice_logprobs=[-0.5, math.nan],
        )
        log.decision(None, "", valid=False, error="ValueError: mute")
        ids.append((log.id, first))
        log.finish(terminated=True, outcome={"success": True})
    other = open_episode(env="elsewhere", root=root)
    other.reward(0.25, ids[1][1])  # a reward given outside of the episode
    other.finish()
    simtune.flush()
    return root


def run(capsys, *argv):
    code = main(["episodes", *argv])
    return code, capsys.readouterr()


def ran(capsys, *argv):
    code, said = run(capsys, *argv, "--json")
    assert code == 0, said.err
    return json.loads(said.out)


def in_order(store):
    keys = [("writer_id", "ascending"), ("seq", "ascending")]
    return pa.concat_tables(store.rows()).sort_by(keys)


def same(left, right):
    """Equal, NaN equal to NaN."""
    return left.schema == right.schema and str(left.to_pylist()) == str(right.to_pylist())


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_everything_comes_back_equal(root, tmp_path, capsys, form):
    file = str(tmp_path / "out")
    done = ran(capsys, "export", "--store", root, "--output", file, "--format", form)
    assert (done["episodes"], done["rows"]) == (4, 15)
    copy = str(tmp_path / "copy")
    report = ran(capsys, "import", file, "--store", copy)
    assert (report["rows"], report["episodes"], report["skipped"]) == (15, 4, 0)
    assert same(in_order(read(root)), in_order(read(copy)))
    assert list(map(str, read(root).episodes())) == list(map(str, read(copy).episodes()))
    assert read(copy).decisions().num_rows == 6
    assert run(capsys, "verify", "--store", copy)[0] == 0


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_is_there_already_is_skipped_and_counted(root, tmp_path, capsys, form):
    file = str(tmp_path / "out")
    ran(capsys, "export", "--store", root, "--output", file, "--format", form)
    before = read(root).count()
    report = ran(capsys, "import", file, "--store", root)
    assert (report["rows"], report["skipped"], report["files"]) == (0, 15, [])
    assert read(root).count() == before
    _, said = run(capsys, "import", file, "--store", root)
    assert said.out == f"0 rows of 0 episodes -> {root}, 15 rows were there already\n"


def test_a_filter_takes_whole_episodes_and_the_rewards_given_elsewhere(root, tmp_path, capsys):
    file = str(tmp_path / "swim.parquet")
    done = ran(capsys, "export", "--store", root, "--output", file, "--env", "swim")
    assert (done["episodes"], done["rows"]) == (1, 5)  # start, two decisions, end, and the reward
    copy = str(tmp_path / "copy")
    ran(capsys, "import", file, "--store", copy)
    (episode,) = read(copy).episodes()
    assert str(episode) == str(next(read(root).episodes("env = 'swim'")))  # NaN is not itself
    assert episode.total_reward == 0.25
    assert run(capsys, "verify", "--store", copy)[0] == 0  # gaps in `seq` are no loss here


def test_episodes_by_id_and_by_condition(root, tmp_path, capsys):
    ids = sorted(episode.episode_id for episode in read(root).episodes("env = 'walk'"))
    file = str(tmp_path / "two")
    argv = [
        "export",
        "--store",
        root,
        "--output",
        file,
        "--episode",
        ids[0],
        "--episode",
        ids[1][:9],
    ]
    assert ran(capsys, *argv)["episodes"] == 2
    assert ran(capsys, *argv, "--force", "--where", f"episode_id > '{ids[0]}'")["episodes"] == 1
    decided = pq.read_table(file, filters=[("kind", "=", "decision")])
    assert decided["episode_id"].unique().to_pylist() == [ids[1]]
    code, said = run(capsys, *argv, "--force", "--where", "decisions > 99")
    assert (code, "no episode is left to export" in said.err) == (2, True)


def test_a_file_that_is_there_is_not_replaced_unless_told(root, tmp_path, capsys):
    file = tmp_path / "precious"
    file.write_text("mine")
    argv = ["export", "--store", root, "--output", str(file)]
    code, said = run(capsys, *argv)
    assert (code, file.read_text()) == (2, "mine")
    assert "--force replaces it" in said.err
    assert run(capsys, *argv, "--force")[0] == 0
    assert pq.read_table(file).num_rows == 15
    assert run(capsys, "export", "--store", root, "--output", str(tmp_path), "--force")[0] == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_nothing_half_written_remains(root, tmp_path, capsys, monkeypatch, error):
    def fail(store, sink, **_):
        sink.write(b"half")
        raise error

    monkeypatch.setattr("simtune.store.exporting.export_rows", fail)
    monkeypatch.setattr("simtune.store.export_rows", fail, raising=False)
    out = tmp_path / "out"
    out.mkdir()
    code, _ = run(capsys, "export", "--store", root, "--output", str(out / "file"))
    assert code in (2, 130)
    assert list(out.iterdir()) == []


def test_data_sets_for_training(root, tmp_path, capsys):
    def written(form):
        file = tmp_path / form
        done = ran(capsys, "export", "--store", root, "--output", str(file), "--format", form)
        return done, file.read_text()

    done, text = written("prompt-completion")
    assert (done["decisions"], done["skipped"]) == (3, 3)  # the mute ones had no prompt
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert {line["completion"][0]["content"] for line in lines} >= {"north"}
    assert all(line["prompt"][0]["role"] == "user" for line in lines)
    _, text = written("conversations")
    turns = json.loads(text.split("\n")[0])["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]


def test_decisions_go_out_and_come_in_as_rated_rows(tmp_path, capsys):
    rated = tmp_path / "rated.json"
    rows = [
        {
            "prompt": "2 buyers?",
            "output": "3",
            "rating": 1.0,
            "feedback": "2",
            "reason": "too many",
        },
        {
            "prompt": [{"role": "system", "content": "Sell."}, {"role": "user", "content": "9?"}],
            "output": "9",
            "rating": 5.0,
        },
        {"prompt": "?", "output": "unrated", "rating": None},
    ]
    rated.write_text(json.dumps(rows))
    store = str(tmp_path / "store")
    report = ran(capsys, "import", str(rated), "--store", store, "--env", "market")
    assert (report["episodes"], report["rows"]) == (3, 9)
    assert ran(capsys, "import", str(rated), "--store", store, "--env", "market")["skipped"] == 9
    episodes = {each.decisions[0].response: each for each in read(store).episodes("env = 'market'")}
    assert episodes["3"].decisions[0].metadata == {"feedback": "2", "reason": "too many"}
    assert (episodes["9"].total_reward, episodes["9"].ended) == (5.0, True)
    assert episodes["unrated"].decisions[0].reward is None
    assert run(capsys, "verify", "--store", store)[0] == 0

    out = str(tmp_path / "again.json")
    ran(capsys, "export", "--store", store, "--output", out, "--format", "decisions")
    again = json.loads((tmp_path / "again.json").read_text())
    assert sorted(map(str, again)) == sorted(map(str, rows))


def test_parquet_that_another_tool_rewrote_is_taken(root, tmp_path, capsys):
    file = tmp_path / "out.parquet"
    ran(capsys, "export", "--store", root, "--output", str(file))
    table = pl.read_parquet(file)
    by_polars = tmp_path / "polars.parquet"  # large strings, other encodings, other order
    table.select(sorted(table.columns)).reverse().write_parquet(by_polars)
    copy = str(tmp_path / "copy")
    assert ran(capsys, "import", str(by_polars), "--store", copy)["rows"] == 15
    assert same(in_order(read(root)), in_order(read(copy)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns("prompt"), "missing: prompt"),
        (lambda t: t.append_column("new", pa.array([1] * len(t))), "unknown: new"),
        (lambda t: with_column(t, "seq", pa.array(["x"] * len(t))), "columns of other types"),
        (lambda t: with_column(t, "seq", pc.subtract(-1, t["seq"])), "seq is missing or negative"),
        (lambda t: with_column(t, "kind", pa.array(["???"] * len(t))), "kind is none of"),
        (lambda t: with_column(t, "writer_id", pa.array(["../x"] * len(t))), "16 hex digits"),
        (lambda t: with_column(t, "decision_id", pa.nulls(len(t), pa.string())), "writer_id-seq"),
        (lambda t: with_column(t, "episode_id", pa.array(["../../etc"] * len(t))), "has slashes"),
        (lambda t: with_column(t, "episode_id", pa.array(["a\nb"] * len(t))), "control characters"),
    ],
)
def test_rows_that_break_the_format_are_refused(root, tmp_path, capsys, change, said):
    file = tmp_path / "out.parquet"
    ran(capsys, "export", "--store", root, "--output", str(file))
    pq.write_table(change(pq.read_table(file)), file)
    copy = tmp_path / "copy"
    code, printed = run(capsys, "import", str(file), "--store", str(copy))
    assert (code, said in printed.err) == (2, True), printed.err
    assert list(copy.glob("data/v1/*")) == []


def with_column(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {**row, "seq": "first"}, "lines 1 to"),
        (lambda row: {**row, "new": 1}, "line 1 is no row of an export"),
        (lambda row: {**row, "reward": "lots"}, "a number that is none"),
        (lambda row: {**row, "logprobs": [True]}, "a number that is none"),
        (lambda row: {**row, "writer_id": "/etc/passwd"}, "16 hex digits"),
        (lambda row: {**row, "token_ids": [2**40]}, "lines 1 to"),
    ],
)
def test_lines_that_are_no_rows_are_refused(root, tmp_path, capsys, change, said):
    file = tmp_path / "out.jsonl"
    ran(capsys, "export", "--store", root, "--output", str(file), "--format", "jsonl")
    lines = file.read_text().split("\n")
    lines[0] = json.dumps(change(json.loads(lines[0])))
    file.write_text("\n".join(lines))
    code, printed = run(
        capsys, "import", str(file), "--store", str(tmp_path / "copy"), "--format", "jsonl"
    )
    assert (code, said in printed.err) == (2, True), printed.err


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"x" * 90 + b"PAR1", b"\xff\xfe", b"[3"]
)
def test_files_that_are_something_else_are_refused(tmp_path, capsys, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    code, printed = run(capsys, "import", str(file), "--store", str(tmp_path / "store"))
    assert code == 2
    assert str(file) in printed.err
    assert run(capsys, "import", str(tmp_path / "none"), "--store", str(tmp_path))[0] == 2


def test_formats_that_are_known_are_those_that_are_offered():
    from simtune.store.exporting import FORMATS

    assert export_module.ROWS == FORMATS
