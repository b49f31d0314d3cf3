"""`simtune demo`: what it prints, what it leaves behind, and that both agree."""

import json
import re
import sqlite3

import duckdb
import pytest

LABELS = ("random", "untrained", "heuristic", "after SFT", "after PPO", "oracle")
ROW = re.compile(r"(?P<label>[A-Za-z ]+?)  +(?P<greedy>-|\S+ \[.*?\])  +(?P<sampled>-|\S+ \[.*?\])")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def results(demo):
    return json.loads((demo.directory / "results.json").read_bytes())


def shown(interval):
    if interval is None:
        return "-"
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def test_the_table_is_that_of_the_results_file(demo, results):
    printed = [match for line in demo.ended.out.splitlines() if (match := ROW.match(line))]
    assert [match["label"] for match in printed] == list(LABELS)
    assert [policy["label"] for policy in results["policies"]] == list(LABELS)
    for match, policy in zip(printed, results["policies"], strict=True):
        assert match["greedy"] == shown(policy["greedy"])
        assert match["sampled"] == shown(policy["sampled"])


def test_shortest_paths_always_arrive_and_the_heuristic_does_not(results):
    rates = {policy["label"]: policy["greedy"] for policy in results["policies"]}
    assert results["held_out"] == 20
    assert rates["oracle"]["estimate"] == 1.0
    assert 0.5 < rates["heuristic"]["estimate"] < 1.0


def test_the_counts_that_were_printed_are_those_of_the_files(demo, results):
    found = duckdb.sql(
        "SELECT count(DISTINCT episode_id), count(*) FILTER (kind = 'decision'), "
        "count(*) FILTER (kind = 'episode_end') "
        f"FROM read_parquet('{demo.directory}/store/data/v1/*.parquet')"
    ).fetchall()
    captured = results["captured"]
    assert found == [(captured["episodes"], captured["decisions"], captured["ended"])]
    # 40 of the heuristic, and two rounds of 16 roll-outs.
    assert captured["episodes"] == captured["ended"] == 72
    assert f"{captured['episodes']} episodes" in demo.ended.out
    assert f"{captured['decisions']} decisions" in demo.ended.out


def test_every_path_that_is_printed_exists(demo, results):
    for name, path in results["paths"].items():
        assert (demo.directory.parent / path).exists(), name
        assert re.search(rf"^  {name} +{path}$", demo.ended.out, re.MULTILINE)
    assert (demo.directory / "learning-curve.png").read_bytes().startswith(PNG)
    assert len(results["curve"]) == 2


def test_the_adapters_of_the_results_are_those_of_the_registry(demo, results):
    registry = json.loads((demo.directory / "models" / "registry.json").read_bytes())
    sft, ppo = registry["models"]
    assert sft["weights_sha256"] != ppo["weights_sha256"]
    assert results["models"] == {"after SFT": sft["id"], "after PPO": ppo["id"]}
    assert (sft["method"], sft["parent"]) == ("sft", None)
    assert (ppo["method"], ppo["parent"]) == ("ppo", sft["id"])


def test_the_tracking_path_holds_three_finished_runs_and_the_picture(demo, results):
    directory = demo.directory / "mlruns"
    with sqlite3.connect(directory / "mlflow.db") as database:
        ended = database.execute("SELECT status FROM runs").fetchall()
    assert ended == [("FINISHED",)] * 3
    assert len(list(directory.rglob("learning-curve.png"))) == 1


def test_the_commands_it_ends_with_work(demo, simtune):
    commands = demo.ended.out.partition("Next:\n")[2].split("\n")
    listing = next(line.split() for line in commands if "simtune models ls" in line)
    table = simtune(*listing[1:], cwd=demo.directory.parent).out
    assert "sft-" in table and "ppo-" in table
    stats = next(line.split() for line in commands if "simtune episodes stats" in line)
    assert "72" in simtune(*stats[1:], cwd=demo.directory.parent).out


def test_a_second_run_in_the_same_directory_touches_nothing(demo, simtune, files):
    before = files(demo.directory)
    ended = simtune("demo", "--quick", "--dir", "D", cwd=demo.directory.parent, code=2)
    assert "the demo's directory 'D' is not empty" in ended.err
    assert "fix: simtune demo --dir ANOTHER" in ended.err
    assert files(demo.directory) == before
