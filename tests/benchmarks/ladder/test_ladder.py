"""The bounds of every rung: an oracle that reads the text is far above chance, at known values."""

import numpy as np
import pytest

from simtune.gym import make, rollout
from tests.benchmarks.ladder.bounds import RandomPolicy, TableOracle, toward_goal
from tests.benchmarks.ladder.rungs import frozen_lake, grid_walk, line_walk, taxi

RUNGS = "tests.benchmarks.ladder.rungs"
EPISODES = 300


def mean_return(name, policy, episodes=EPISODES, **arguments):
    played = rollout(
        lambda: make(f"{RUNGS}:{name}", **arguments), policy, episodes=episodes, capture=False
    )
    return sum(episode.total_reward for episode in played) / episodes


def test_one_turn():
    assert mean_return("one_turn", lambda messages: "c") == 1
    assert mean_return("one_turn", RandomPolicy()) == pytest.approx(1 / 4, abs=0.08)


def test_shown_target():
    assert mean_return("shown_target", lambda messages: messages[-1]["content"]) == 1
    assert mean_return("shown_target", lambda messages: "c") == pytest.approx(1 / 4, abs=0.08)


def within(shape, turns):
    """Exact chance that a random walk on a board meets the goal in time, over all starts."""
    cells = list(np.ndindex(*shape))
    moves = [(0, -1), (0, 1)] + [(-1, 0), (1, 0)] * (shape[0] > 1)
    step = np.zeros((len(cells), len(cells)))
    for at, (row, column) in enumerate(cells):
        for down, right in moves:
            there = (
                min(max(row + down, 0), shape[0] - 1),
                min(max(column + right, 0), shape[1] - 1),
            )
            step[at, cells.index(there)] += 1 / len(moves)
    met = []
    for goal in range(len(cells)):
        absorbing = step.copy()
        absorbing[goal] = np.eye(len(cells))[goal]
        after = np.linalg.matrix_power(absorbing, turns)[:, goal]
        met += [after[start] for start in range(len(cells)) if start != goal]
    return float(np.mean(met))


@pytest.mark.parametrize(
    ("name", "shape", "turns", "expected"),
    [("line_walk", (1, 4), 5, 0.6146), ("grid_walk", (4, 4), 8, 0.2604)],
)
def test_walks(name, shape, turns, expected):
    assert mean_return(name, toward_goal) == 1
    assert within(shape, turns) == pytest.approx(expected, abs=1e-3)
    assert mean_return(name, RandomPolicy()) == pytest.approx(expected, abs=0.08)


def test_rewards_for_every_step_add_a_tenth_of_the_way():
    # Two cells of a 4x4 board are 2 * 1.25 * 16 / 15 = 8/3 steps apart in the mean.
    shaped = mean_return("grid_walk", toward_goal, shaped=True)
    assert shaped == pytest.approx(1 + 0.1 * 8 / 3, abs=0.03)


def test_a_curriculum_brings_the_goal_near():
    env = grid_walk()
    for seed in range(20):
        env.reset(seed=seed, options={"distance": 1})
        _, reward, *_ = env.step(toward_goal(env.messages(env._text)))
        assert reward == 1
    assert line_walk().action_names == ("left", "right")


@pytest.mark.parametrize(
    ("slippery", "oracle", "random"), [(False, 1.0, 0.0148), (True, 0.7404, 0.0142)]
)
def test_frozen_lake(slippery, oracle, random):
    """Exact success rates within the 100 turns of FrozenLake-v1."""
    best = TableOracle(frozen_lake(slippery), discount=0.999)
    starts = np.eye(16)[0]
    assert best.expected(starts, 100) == pytest.approx(oracle, abs=1e-3)
    assert best.expected(starts, 100, at_random=True) == pytest.approx(random, abs=1e-3)
    played = mean_return("frozen_lake", best, 200, slippery=slippery)
    assert played == pytest.approx(oracle, abs=0.1)


def test_taxi():
    """Exact mean returns within 200 turns, over the 300 states an episode can start in."""
    env = taxi()
    best = TableOracle(env, discount=0.99)
    starts = env.unwrapped.initial_state_distrib
    assert best.expected(starts, 200) == pytest.approx(7.93, abs=0.01)
    assert best.expected(starts, 200, at_random=True) == pytest.approx(-770, abs=5)
    assert mean_return("taxi", best, 100) == pytest.approx(7.93, abs=0.8)
