"""docs/reading.md is true: its code runs, and it leaves out no method, action or finding."""

import inspect
import re
from pathlib import Path

import pytest

import simtune
from simtune import config

READING = (Path(__file__).parents[1] / "docs" / "reading.md").read_text(encoding="utf-8")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of one episode, under the name that the page uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "_current", None)
    with simtune.episode(env="market", root="simtune-data") as episode:
        episode.decision("5 buyers?", "3", reward=3.0)
        episode.finish(terminated=True)
    return simtune.read("simtune-data")


def section(heading):
    return READING.split(f"{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]


def test_its_code_runs(store, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", READING, re.S)
    exec(block, {})
    (episode,) = store.episodes()
    assert f"{episode.episode_id} 3.0 1" in capsys.readouterr().out


def test_its_queries_run(store):
    queries = re.findall(r"```sql\n(.*?)```", READING, re.S)
    assert [store.sql(query).num_rows for query in queries] == [0, 0]
    (condition,) = re.findall(r"^`(episode_id IN .*)`\.$", READING, re.M)
    assert list(store.episodes(condition)) == []


def test_every_method_of_a_store_is_there():
    from simtune.store import Store

    named = set(re.findall(r"^\| `(\w+)\(", section("## From Python"), re.M))
    methods = {name for name, each in vars(Store).items() if inspect.isfunction(each)}
    public = {name for name in methods if not name.startswith("_")}
    assert named == public - {"tail", "episode_ids_where"}


def test_every_finding_of_verify_is_there():
    from simtune.store.findings import CODES

    assert re.findall(r"^\| `([a-z-]+)` \|", section("### What verify finds"), re.M) == list(CODES)


def test_every_action_and_format_is_there():
    from simtune.cli.episodes import ACTIONS
    from simtune.cli.episodes.export import ROWS, TRAINING

    assert re.findall(r"^\| `simtune episodes (\w+)", READING, re.M) == list(ACTIONS)
    formats = re.findall(r"^\| `([a-z-]+)` \|", section("### Export and import"), re.M)
    assert formats == [*ROWS, *TRAINING]
