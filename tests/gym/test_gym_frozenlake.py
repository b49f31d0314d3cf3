"""A new map for every seed."""

import gymnasium
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from gymnasium.utils.env_checker import check_env

from simtune.gym.frozenlake import ID, RandomFrozenLake, random_map


def rows(env):
    return ["".join(cell.decode() for cell in row) for row in env.unwrapped.desc]


def test_the_seed_is_the_map():
    env = random_map()
    for seed in (0, 7, 100_000):
        env.reset(seed=seed)
        assert rows(env) == generate_random_map(size=4, p=0.8, seed=seed)


def test_seeds_give_many_maps():
    env = random_map()
    maps = set()
    for seed in range(50):
        env.reset(seed=seed)
        maps.add("".join(rows(env)))
    assert len(maps) > 40


def test_a_reset_without_a_seed_draws_on_from_the_seeded_generator():
    def draw():
        env = random_map()
        env.reset(seed=3)
        drawn = []
        for _ in range(4):
            env.reset()
            drawn.append(tuple(rows(env)))
        return drawn

    assert draw() == draw()
    assert len(set(draw())) == 4


def test_moves_follow_the_map_that_was_drawn():
    env = random_map()
    env.reset(seed=1)  # PHFH / FFHF / FFFF / FFFG
    assert rows(env)[0] == "SHFH"
    _, reward, terminated, _, _ = env.step(2)
    assert (reward, terminated) == (0, True)
    env.reset(seed=1)
    for action in (1, 1, 1, 2, 2):
        assert env.step(action)[2] is False
    assert env.step(2)[1:3] == (1, True)


def test_steps_are_limited():
    env = random_map(max_steps=3)
    env.reset(seed=0)
    assert [env.step(3)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_arguments_reach_the_map():
    env = random_map(size=6, p=0.6, slippery=True)
    env.reset(seed=2)
    assert rows(env) == generate_random_map(size=6, p=0.6, seed=2)
    assert len(env.unwrapped.P[0][1]) == 3
    assert env.observation_space.n == 36


def test_the_checker_passes():
    check_env(RandomFrozenLake(), skip_render_check=True)


# check_env warns about every wrapper, here about gymnasium's own time limit:
# https://github.com/Farama-Foundation/Gymnasium/blob/v1.1.1/gymnasium/utils/env_checker.py#L342
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_the_checker_passes_on_the_limited_environment():
    check_env(random_map(), skip_render_check=True)


def test_it_is_registered():
    env = gymnasium.make(ID)
    env.reset(seed=5)
    assert rows(env) == generate_random_map(size=4, p=0.8, seed=5)
    assert env.spec.max_episode_steps == 20
