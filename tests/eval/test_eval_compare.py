"""Evaluations: from episodes to rates and returns, in real environments."""

from functools import partial

import pytest

from simtune import Decision, Episode, gym
from simtune.errors import OptionError
from simtune.eval.compare import difference, evaluate, summarise
from simtune.eval.intervals import Interval, wilson


def episode(reward, *, success, valid=True):
    decision = Decision(decision_id="", reward=reward, valid=valid)
    outcome = {} if success is None else {"success": success}
    return Episode(episode_id="", decisions=[decision], outcome=outcome)


def test_episodes_become_rates_and_returns():
    played = [
        episode(1.0, success=True),
        episode(0.5, success=True, valid=False),
        episode(0.0, success=False),
        episode(-0.5, success=True),
    ]
    found = summarise(played, seed=4, label="p")
    assert (found.label, found.episodes, found.seed, found.decisions) == ("p", 4, 4, 4)
    assert found.success == wilson(3, 4)
    assert found.successes == [True, True, False, True]
    assert found.mean_return.estimate == 0.25
    assert found.mean_return.low < 0.25 < found.mean_return.high
    assert found.returns == [1.0, 0.5, 0.0, -0.5]
    assert found.valid_rate == 0.75


def test_an_environment_that_does_not_say_has_no_success_rate():
    found = summarise([episode(1.0, success=True), episode(1.0, success=None)], seed=0, label="p")
    assert found.success is None and found.successes == []


def test_differences_are_paired_by_seed():
    first = summarise([episode(r, success=None) for r in (1.0, 11.0)], seed=0, label="a")
    second = summarise([episode(r, success=None) for r in (0.0, 10.0)], seed=0, label="b")
    assert difference(first, second) == Interval(1.0, 1.0, 1.0)
    moved = summarise([episode(0.0, success=None)] * 2, seed=1, label="c")
    with pytest.raises(OptionError, match="same seeds"):
        difference(first, moved)


def test_a_policy_is_played_without_being_captured(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMTUNE_ROOT", str(tmp_path / "store"))
    seen = []
    make = partial(gym.make, "FrozenLake-v1", is_slippery=False)

    def straight_down_then_right(messages):
        return next(answers)

    # The standard 4x4 map: down, down, right, right, down, right reaches the goal.
    answers = iter(["down", "down", "right", "right", "down", "right"])
    found = evaluate(
        straight_down_then_right, make, episodes=1, label="by hand", on_episode=seen.append
    )
    assert (found.label, found.decisions, found.valid_rate) == ("by hand", 6, 1.0)
    assert found.success == wilson(1, 1)
    assert found.mean_return == Interval(1.0, 1.0, 1.0)
    assert [len(played) for played in seen] == [6]
    assert not (tmp_path / "store").exists()


def test_the_same_seeds_are_the_same_episodes():
    spec = "simtune.gym.frozenlake:random_map"
    first, second, other = (
        evaluate(lambda messages: "right", spec, episodes=12, seed=seed, label="right")
        for seed in (5, 5, 50)
    )
    assert first == second
    assert (first.seed, other.seed, other.episodes) == (5, 50, 12)


def test_at_least_one_episode():
    with pytest.raises(OptionError, match="at least one"):
        evaluate(lambda messages: "right", "FrozenLake-v1", episodes=0)
