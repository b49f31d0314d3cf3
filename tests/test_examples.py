"""Every example runs as its reader would run it, and prints what it promises."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import simtune

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(cwd, *command):
    """Run a command with an empty configuration; returns what it printed."""
    settings = {name: value for name, value in os.environ.items() if "SIMTUNE" not in name}
    done = subprocess.run(
        command, cwd=cwd, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """The store that the first example leaves behind, and what it printed."""
    directory = tmp_path_factory.mktemp("captured")
    printed = run(directory, sys.executable, EXAMPLES / "01_capture.py", "store")
    return directory / "store", printed


def test_there_are_no_others_and_each_is_short():
    lengths = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert sorted(lengths) == ["01_capture", "02_reward_plugin", "03_train_sft", "junction"]
    parts = [path for kind in ("*.py", "*.sh") for path in EXAMPLES.rglob(kind)]
    assert max(len(path.read_text().splitlines()) for path in parts) < 80


def test_capture_prints_what_the_store_holds(captured):
    root, printed = captured
    assert "20 episodes, 240 decisions in store" in printed
    store = simtune.read(root)
    assert store.count() | {"files": 0} == {
        "episodes": 20,
        "ended": 20,
        "decisions": 240,
        "late_rewards": 240,
        "scores": 0,
        "files": 0,
    }
    episodes = list(store.episodes())
    best = max(episodes, key=lambda episode: episode.total_reward)
    assert f"best: seed {best.metadata['seed']}, reward {best.total_reward:.0f}" in printed
    refused = [each for one in episodes for each in one.decisions if not each.valid]
    assert {each.response for each in refused} == {"Both roads look busy."}
    assert f"{len(refused)} answers named no road" in printed
    first = episodes[0].decisions[0]
    assert (first.agent_id, first.action) == ("signal", "ask")
    assert first.valid is (first.parsed in ("north", "east"))


def test_the_reward_plugin_checks_itself(tmp_path):
    printed = run(tmp_path, sys.executable, EXAMPLES / "02_reward_plugin.py")
    assert printed == "nothing wrong with junction.longer_queue, junction.steady\n"


def test_the_reward_plugin_scores_what_was_captured(captured):
    root, _ = captured
    plugin = EXAMPLES / "02_reward_plugin.py"
    rewards = ["--reward", "junction.longer_queue", "--reward", "junction.steady"]
    command = ["simtune", "score", "--store", root, "--plugin", plugin, *rewards, "--json"]
    printed = run(root.parent, Path(sys.executable).with_name(command[0]), *command[1:])
    queue, steady = json.loads(printed)
    assert (queue["scored"], queue["failed"], queue["decisions"]) == (20, 0, 240)
    assert (steady["scored"], steady["failed"], steady["decisions"]) == (20, 0, 0)
    assert -1 <= steady["mean"] <= 0

    store = simtune.read(root)
    by_hand = 0
    for episode in store.episodes():
        for decision in episode.decisions:
            north, east = map(int, re.findall(r"\d+", decision.prompt[-1]["content"]))
            waiting = {"north": north, "east": east}
            by_hand += waiting.get(decision.parsed, -1) == max(north, east)
    assert queue["mean"] == by_hand / 20
    assert store.count()["scores"] == 20 + 20 + 240


def test_training_makes_the_model_as_good_as_the_rule(tmp_path):
    printed = run(tmp_path, sys.executable, EXAMPLES / "03_train_sft.py", ".")
    model_id = printed.split()[0]
    assert f"{model_id} learned from 40 episodes" in printed
    waits = {name: float(cars) for name, cars in re.findall(r"(\w+): ([\d.]+) cars wait", printed)}
    assert list(waits) == ["rule", "before", "after"]
    assert waits["after"] <= waits["rule"] + 0.5 < waits["before"] - 1

    (record,) = json.loads((tmp_path / "models" / "registry.json").read_text())["models"]
    assert (record["id"], record["method"]) == (model_id, "sft")
    assert (tmp_path / "models" / model_id / "adapter_model.safetensors").is_file()
    # 50 episodes of 12 decisions, the better four fifths of them.
    assert record["data"]["decisions"] == 40 * 12
    assert record["data"]["skipped"] == {"episodes outside the top fraction": 10}
