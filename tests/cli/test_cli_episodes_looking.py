"""`simtune episodes`: filters, beginnings of ids, scores in a chat, sizes, checks, watching."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import simtune
from simtune.cli.main import main
from simtune.recording import open_episode, seal
from simtune.store import Score, read, write_scores


@pytest.fixture
def root(tmp_path):
    """Three episodes by two adapters in two environments, in two runs."""
    root = str(tmp_path / "store")
    for number, (env, adapter) in enumerate([("walk", "aa"), ("walk", "bb"), ("swim", "bb")]):
        log = open_episode(env=env, root=root, run_id=f"run{number // 2}")
        reply = simtune.Reply(
            "left", prompt_token_ids=[1] * 10, token_ids=[2] * 3, adapter=adapter * 32
        )
        log.decision([{"role": "user", "content": "where?"}], reply, reward=float(number))
        log.finish(terminated=True)
    simtune.flush()
    return root


def run(capsys, *argv):
    code = main(["episodes", *argv])
    return code, capsys.readouterr()


def ran(capsys, *argv):
    code, said = run(capsys, *argv)
    assert code == 0, said.err
    return said.out


@pytest.mark.parametrize(
    ("filters", "rewards"),
    [
        (["--env", "walk"], [0.0, 1.0]),
        (["--run", "run1"], [2.0]),
        (["--adapter", "bb"], [1.0, 2.0]),
        (["--adapter", "bb", "--env", "walk"], [1.0]),
        (["--where", "reward >= 1"], [1.0, 2.0]),
        (["--where", "reward >= 1", "--env", "swim"], [2.0]),
        (["--env", "nowhere"], []),
    ],
)
def test_filters(root, capsys, filters, rewards):
    listed = json.loads(ran(capsys, "ls", "--store", root, "--json", *filters))
    assert [episode["reward"] for episode in listed] == rewards
    groups = json.loads(ran(capsys, "stats", "--store", root, "--json", *filters))["groups"]
    assert sum(group["episodes"] for group in groups) == len(rewards)


def test_a_condition_that_is_no_sql_is_one_clear_message(root, capsys):
    code, said = run(capsys, "ls", "--store", root, "--where", "reward >>> 1")
    assert code == 2
    assert "the query failed" in said.err


def test_show_takes_the_beginning_of_an_id(root, capsys):
    first, *_ = read(root).episode_ids()
    assert f"episode {first}  env" in ran(capsys, "show", first[:8], "--store", root)


def test_show_of_an_unknown_id_names_near_ones(root, capsys):
    first, *others = read(root).episode_ids()
    wrong = first[:10] + "zzz"
    code, said = run(capsys, "show", wrong, "--store", root)
    assert (code, f"no episode {wrong!r}" in said.err, f"such as {first}" in said.err) == (2, 1, 1)
    code, said = run(capsys, "show", "", "--store", root)
    assert (code, "3 episodes begin with ''" in said.err) == (2, True)
    assert others[-1] in said.err


def test_show_has_the_scores_of_decisions_and_of_the_episode(root, capsys):
    episode = next(read(root).episodes("reward = 2"))
    common = {"episode_id": episode.episode_id, "scorer_version": "1"}
    made = episode.decisions[0].decision_id
    write_scores(
        root,
        [
            Score(decision_id=made, scorer="judge", score=0.75, **common),
            Score(decision_id=None, scorer="whole", score=4.0, **common),
            Score(decision_id=made, scorer="broken", score=None, detail={"error": "x"}, **common),
        ],
    )
    lines = ran(capsys, "show", episode.episode_id, "--store", root).splitlines()
    (notes,) = [line for line in lines if "step 0" in line]
    assert "judge 0.75" in notes
    assert 'broken - ({"error":"x"})' in notes
    assert "score whole 4" in lines
    shown = json.loads(ran(capsys, "show", episode.episode_id, "--store", root, "--json"))
    assert shown["episode"]["episode_id"] == episode.episode_id
    assert {score["scorer"] for score in shown["scores"]} == {"judge", "whole", "broken"}


def test_show_of_a_growing_chat_says_everything_once(tmp_path, capsys):
    root = str(tmp_path / "store")
    log = open_episode(root=root)
    chat = [{"role": "system", "content": "Walk well."}]
    for step in range(3):
        chat = [*chat, {"role": "user", "content": f"place {step}"}]
        log.decision(chat, f"go {step}")
        chat = [*chat, {"role": "assistant", "content": f"go {step}"}]
    log.finish()
    out = ran(capsys, "show", log.id, "--store", root)
    said = ["[system] Walk well.", *(f"[user] place {n}" for n in range(3))]
    assert [out.count(line) for line in said] == [1, 1, 1, 1]
    assert [out.count(f"] go {n}") for n in range(3)] == [1, 1, 1]


def test_stats_has_sizes_rates_and_tokens(root, capsys):
    found = json.loads(ran(capsys, "stats", "--store", root, "--json"))
    usage = found["usage"]
    assert (usage["rows"], usage["prompt_tokens"], usage["sampled_tokens"]) == (9, 30, 9)
    assert (usage["rows_per_file"], usage["score_bytes"]) == (9.0, 0)
    assert usage["parquet_bytes"] == read(root).files[0].stat().st_size
    assert found["decisions_per_second"] == pytest.approx(3 / usage["seconds"])
    out = ran(capsys, "stats", "--store", root)
    assert "tokens: 30 in prompts, 9 sampled" in out
    assert "9 rows a file" in out


def test_verify_ends_with_1_and_the_list_where_something_is_wrong(root, capsys):
    read(root)
    code, said = run(capsys, "verify", "--store", root)
    assert (code, said.out.splitlines()[-1]) == (0, "nothing is wrong")
    (path,) = read(root).files
    path.write_bytes(path.read_bytes()[:-1])
    code, said = run(capsys, "verify", "--store", root)
    assert code == 1
    assert f"unreadable-part  data/v1/{path.name}: " in said.out
    assert "restore the Parquet file from a copy" in said.out
    code, said = run(capsys, "verify", "--store", root, "--json")
    assert code == 1
    assert [each["code"] for each in json.loads(said.out)["findings"]] == ["unreadable-part"]
    code, said = run(capsys, "verify", "--store", str(path))
    assert (code, "no store at" in said.err) == (2, True)


def test_watch_compacts_what_arrives_until_it_is_interrupted(tmp_path):
    root = str(tmp_path / "store")
    os.makedirs(root)
    command = [sys.executable, "-m", "simtune.cli.main", "episodes", "compact", "--watch"]
    with subprocess.Popen(
        [*command, "--interval", "0.1", "--store", root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watcher:
        with simtune.episode(root=root) as log:
            log.decision("q", "a")
        seal(root)
        assert watcher.stdout.readline().startswith("3 rows of 1 segments in ")
        watcher.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, errors = watcher.communicate(timeout=60)
    assert (watcher.returncode, errors) == (0, "")
    assert time.monotonic() - begun < 30
    assert len(list((tmp_path / "store" / "data" / "v1").iterdir())) == 1


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_an_interval_that_is_no_pause_is_refused(root, capsys, interval):
    argv = ["compact", "--watch", f"--interval={interval}", "--store", root]
    code, said = run(capsys, *argv)
    assert (code, "--interval is no pause" in said.err) == (2, True)
