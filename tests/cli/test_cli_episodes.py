import json
import math

import pytest

import simtune
from simtune import config
from simtune.cli.main import main
from simtune.recording import open_episode, seal


@pytest.fixture
def store(tmp_path):
    """Two episodes: a short success, and a longer one with an answer that named nothing."""
    root = str(tmp_path / "store")
    for seed, answers, reward in ((1, ["left"], 1.0), (2, ["left", "???"], 0.0)):
        log = open_episode(env="walk", seed=seed, root=root, run_id="r")
        for answer in answers:
            log.decision(
                [{"role": "user", "content": f"where, {seed}?"}],
                answer,
                agent="walker",
                parsed=None if answer == "???" else answer,
                valid=answer != "???",
                reward=reward,
            )
        log.finish(terminated=True, outcome={"success": reward > 0})
    simtune.flush()
    return root


def printed(capsys, *argv):
    assert main(["episodes", *argv]) == 0
    return capsys.readouterr().out


def test_ls_has_a_line_per_episode(store, capsys):
    rows = json.loads(printed(capsys, "ls", "--store", store, "--json"))
    assert [(r["decisions"], r["invalid"], r["reward"], r["success"]) for r in rows] == [
        (1, 0, 1.0, True),
        (2, 1, 0.0, False),
    ]
    lines = printed(capsys, "ls", "--store", store).splitlines()
    assert len(lines) == 4
    assert lines[2].split()[1:] == ["walk", "walker", "r", "1", "0", "1", "True", "terminated"]


def test_ls_shows_the_last_ones_and_says_so(store, capsys):
    out = printed(capsys, "ls", "--store", store, "--limit", "1")
    assert out.splitlines()[-1] == "the last 1 of 2 episodes; --limit N shows more"


def test_show_is_a_chat_with_rewards(store, capsys):
    rows = json.loads(printed(capsys, "ls", "--store", store, "--json"))
    out = printed(capsys, "show", rows[1]["episode_id"], "--store", store)
    assert "[user] where, 2?" in out
    assert "[walker] ???" in out
    assert "step 1, parsed None, reward 0.0, invalid: no action could be read" in out
    assert out.splitlines()[-1] == "return 0  outcome {'success': False}"


def test_stats_counts_by_environment_and_draws_the_returns(store, capsys):
    found = json.loads(printed(capsys, "stats", "--store", store, "--json"))
    assert found["counts"]["episodes"] == 2
    assert found["counts"]["decisions"] == 3
    (group,) = found["groups"]
    assert (group["env"], group["episodes"], group["decisions"]) == ("walk", 2, 3)
    assert group["mean_return"] == 0.5
    assert group["valid"] == pytest.approx(2 / 3)
    bars = [line for line in printed(capsys, "stats", "--store", store).splitlines() if "#" in line]
    assert [bar.split()[-1] for bar in bars] == ["1", "1"]


def test_stats_of_returns_that_are_not_numbers(tmp_path, capsys):
    root = str(tmp_path / "store")
    for reward in (math.nan, math.inf, 2.0):
        log = open_episode(env="walk", root=root)
        log.decision("where?", "left", reward=reward)
        log.finish()
    lines = printed(capsys, "stats", "--store", root).splitlines()
    assert lines[-2:] == ["2 returns are not finite numbers", "every other return is 2"]


def test_stats_where_only_a_reward_arrived(tmp_path, monkeypatch, capsys):
    root = str(tmp_path / "store")
    monkeypatch.setattr(config, "_current", config.Config(root=root))
    simtune.reward(1.0, decision="0123456789abcdef-7")
    out = printed(capsys, "stats", "--store", root)
    assert out.startswith("0 episodes, 0 ended, 0 decisions, 1 late_rewards, 0 scores, 1 files")


def test_compact_says_what_it_did(store, capsys):
    seal(store)
    report = json.loads(printed(capsys, "compact", "--store", store, "--json"))
    assert report["rows"] == 7  # two starts, three decisions, two ends
    assert len(report["files"]) == 1


def test_an_empty_store_is_one_clear_message(tmp_path, capsys):
    assert main(["episodes", "ls", "--store", str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert "no captured decisions" in error
    assert "no such directory" in error


def test_an_unknown_episode_is_one_clear_message(store, capsys):
    assert main(["episodes", "show", "nobody", "--store", store]) == 2
    assert "no episode 'nobody'" in capsys.readouterr().err
