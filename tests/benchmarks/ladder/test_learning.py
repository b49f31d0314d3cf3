"""The first rung is climbed from any start; what the table is made of, on curves made by hand."""

import msgspec
import pytest

from tests.benchmarks.ladder.__main__ import HEADERS, decisions_to, table_row
from tests.benchmarks.ladder.learning import Climb, climb
from tests.benchmarks.ladder.recipes import RECIPES


def test_one_turn_is_learned(tmp_path):
    recipe = msgspec.structs.replace(RECIPES["one-turn"], held_out=100, base_steps=30)
    found = climb(recipe, 0, tmp_path)
    assert found.oracle == 1
    assert found.random == pytest.approx(1 / 4, abs=0.1)
    assert found.untrained < 0.6
    assert found.greedy == 1
    assert found.sampled > 0.9
    assert found.decisions == 64 * recipe.ppo["iterations"]
    assert found.curve[0]["success"] < 0.6 < found.curve[-1]["success"]


def climbed(successes, **changed):
    curve = [
        {"success": success, "decisions_seen": 100.0 * (at + 1)}
        for at, success in enumerate(successes)
    ]
    values = {
        "seed": 0,
        "random": 0.2,
        "oracle": 0.8,
        "untrained": 0.2,
        "greedy": 0.9,
        "sampled": 0.7,
        "decisions": 100 * len(curve),
        "cpu_s": {"base": 2.0, "ppo": 3.0},
    }
    return Climb(**(values | {"curve": curve} | changed))


def test_decisions_to_a_rate_are_counted_over_the_last_256_episodes():
    one = climbed([0.5, 1.0, 0.9, 0.8, 0.9, 1.0])
    assert decisions_to(one, 0.9, episodes=256) == 200
    # Rounds of 64 episodes: the means of four are .8, .9 and .9.
    assert decisions_to(one, 0.9, episodes=64) == 500
    assert decisions_to(one, 0.95, episodes=64) is None


def test_a_row_of_the_table():
    climbs = [climbed([1.0]), climbed([1.0], greedy=0.7, decisions=300)]
    row = dict(zip(HEADERS, table_row("lake-slippery", climbs), strict=True))
    assert row["greedy"] == "0.900 0.700"
    assert row["mean"] == pytest.approx(0.8)
    assert row["sd"] == pytest.approx(0.1 * 2**0.5)
    assert row["goal"] == pytest.approx(0.9 * 0.8)
    assert (row["decisions"], row["to 90 %"], row["cpu s"]) == (200, 100, 5.0)
    # Rounds of 64 episodes: one round is too few for a rate, and one seed for a deviation.
    row = dict(zip(HEADERS, table_row("one-turn", climbs[:1]), strict=True))
    assert (row["to 90 %"], row["sd"]) == (None, None)
