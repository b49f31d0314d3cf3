"""The words for gymnasium's toy-text environments, letter by letter."""

import gymnasium
import pytest

from simtune.gym import TextEnv


def shown(env_id, seed=0, **kwargs):
    env = TextEnv(gymnasium.make(env_id, **kwargs))
    return env, env.reset(seed=seed)[0]


def test_frozen_lake_shows_the_map_and_the_neighbours():
    env, text = shown("FrozenLake-v1", is_slippery=False)
    assert text == "P F F F\nF H F H\nF F F H\nH F F G\nleft wall, down ice, right ice, up wall"
    text = env.step("down")[0]
    assert text == "S F F F\nP H F H\nF F F H\nH F F G\nleft wall, down ice, right hole, up ice"


def test_frozen_lake_names_the_goal_and_stands_on_it_at_the_end():
    env, _ = shown("FrozenLake-v1", desc=["SG", "FF"], is_slippery=False)
    text, reward, terminated, truncated, info = env.step("right")
    assert text == "S P\nF F\nleft ice, down ice, right wall, up wall"
    assert (reward, terminated, truncated, info["raw_observation"]) == (1, True, False, 1)


def test_frozen_lake_instructions_explain_every_letter_and_list_the_answers():
    env, _ = shown("FrozenLake-v1")
    assert env.instructions == (
        "Walk over the ice to the goal. "
        "P is you, F and S are ice, H is a hole that ends the game, G is the goal.\n"
        "Answer with one of: left, down, right, up"
    )


@pytest.mark.parametrize(("name", "cell"), [("left", 4), ("down", 9), ("right", 6), ("up", 1)])
def test_frozen_lake_names_move_as_they_say(name, cell):
    """The names are in gymnasium's action order: 0 left, 1 down, 2 right, 3 up."""
    env = TextEnv(gymnasium.make("FrozenLake-v1", map_name="4x4", is_slippery=False))
    env.reset(seed=0)
    env.unwrapped.desc[1, 1] = b"F"
    env.unwrapped.s = 5
    env.unwrapped.P[5] = {action: [(1.0, to, 0, False)] for action, to in enumerate((4, 9, 6, 1))}
    assert env.step(name)[4]["raw_observation"] == cell


def test_taxi_tells_places_and_walls():
    env, text = shown("Taxi-v4", seed=1)
    state = env.unwrapped.encode(0, 1, 0, 3)
    env.unwrapped.s = state
    text = env.step("north")[0]
    assert text == (
        "taxi at row 0 column 1\n"
        "passenger at red row 0 column 0\n"
        "destination blue row 4 column 3\n"
        "south free, north wall, east wall, west free"
    )
    env.unwrapped.s = env.unwrapped.encode(0, 0, 0, 3)
    assert env.step("pickup")[0].split("\n")[1] == "passenger in the taxi"
    assert env.action_names == ("south", "north", "east", "west", "pickup", "dropoff")


def test_taxi_walls_agree_with_where_the_taxi_can_go():
    env, _ = shown("Taxi-v4")
    taxi = env.unwrapped
    for row in range(5):
        for column in range(5):
            for name in ("south", "north", "east", "west"):
                taxi.s = taxi.encode(row, column, 0, 1)
                ways = dict(
                    way.split() for way in env._render(taxi.s, taxi).split("\n")[-1].split(", ")
                )
                moved = env.step(name)[4]["raw_observation"] != taxi.encode(row, column, 0, 1)
                assert (ways[name] == "free") == moved, (row, column, name)


def test_cliff_walking_tells_the_cliff_and_the_goal():
    env, text = shown("CliffWalking-v1")
    assert text == (
        "player at row 3 column 0\ngoal at row 3 column 11\n"
        "up free, right cliff, down wall, left wall"
    )
    env.unwrapped.s = 34
    assert env.step("right")[0].split("\n")[-1] == "up free, right wall, down goal, left free"


def test_blackjack_tells_the_sum_and_the_open_card():
    env, _ = shown("Blackjack-v1")
    env.unwrapped.player, env.unwrapped.dealer = [1, 6], [1, 10]
    text, reward, terminated, _, info = env.step("stick")
    assert text == "your sum 17\nusable ace yes\ndealer shows ace"
    assert (reward, terminated) == (-1.0, True)  # the dealer's ace and ten are 21
    assert info["raw_observation"] == (17, 1, 1)
