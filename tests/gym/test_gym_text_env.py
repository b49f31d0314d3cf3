"""`TextEnv`: valid and unusable answers, and gymnasium's own checker."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from simtune.errors import EnvironmentSpecError, OptionError
from simtune.gym import TextEnv

# check_env warns about every wrapper, since it was written for base environments:
# https://github.com/Farama-Foundation/Gymnasium/blob/v1.1.1/gymnasium/utils/env_checker.py#L342
wrapped = pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
# The other render modes of toy-text draw with pygame, which simtune does not need.
CHECK = {"skip_render_check": True}


class Mirror(gymnasium.Env):
    """Shows its last action; reuses one array for every observation, as fast simulators do."""

    action_space = spaces.Discrete(3, start=10)
    observation_space = spaces.Box(0, 100, (1,), dtype=np.int64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.int64), {"note": [1]}

    def step(self, action):
        return np.array([action]), 1.5, action == 12, False, {"note": [2]}


def lake(**kwargs):
    env = TextEnv(gymnasium.make("FrozenLake-v1", is_slippery=False), **kwargs)
    env.reset(seed=0)
    return env


@wrapped
@pytest.mark.parametrize(
    "env_id", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Blackjack-v1", "CartPole-v1"]
)
def test_gymnasiums_own_checker_passes(env_id):
    check_env(TextEnv(gymnasium.make(env_id)), **CHECK)


def test_the_checker_passes_on_a_bare_environment_too():
    with pytest.warns(UserWarning) as seen:
        check_env(TextEnv(Mirror()), **CHECK)
    assert all("unwrapped version" in str(warning.message) for warning in seen)


def test_everything_shown_is_in_the_observation_space():
    env = lake(actions={"\u2190": 0, "\u4e0b": 1}, instructions="Geh \u00fcbers Eis.")
    text = env.step("nonsense")[0]
    assert "\u4e0b" in text
    assert text in env.observation_space
    assert "\u4e0b" in env.action_space


def test_a_renderer_may_bring_its_own_characters():
    env = TextEnv(
        gymnasium.make("FrozenLake-v1"), render=lambda obs, env: "\U0001f9ca", charset="\U0001f9ca"
    )
    assert env.reset(seed=0)[0] in env.observation_space


def test_a_valid_answer_is_told_in_info():
    env = lake()
    text, reward, terminated, truncated, info = env.step("I go Down.")
    assert text.startswith("S F F F\nP H F H")
    assert (reward, terminated, truncated) == (0, False, False)
    assert info == {
        "prob": 1.0,
        "valid": True,
        "action": "down",
        "error": None,
        "raw_observation": 4,
    }


def test_an_unusable_answer_leaves_the_environment_where_it_is():
    env = lake()
    before = env.step("down")[0]
    text, reward, terminated, truncated, info = env.step("left or right?")
    assert text == (
        f"{before}\nThe answer names several actions: left, right. "
        "Answer with one of: left, down, right, up"
    )
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert (info["valid"], info["action"], info["raw_observation"]) == (False, None, 4)
    assert info["error"] == "the answer names several actions: left, right"
    assert env.step("down")[4]["raw_observation"] == 8


def test_too_many_unusable_answers_in_a_row_terminate_without_success():
    env = lake()
    for answers, expected in (
        (("?", "?", "down", "?", "?"), [False] * 5),  # a valid answer starts the count anew
        (("?",), [True]),
    ):
        assert [env.step(answer)[2] for answer in answers] == expected
    env.reset(seed=0)
    assert env.step("?")[2] is False
    _, reward, terminated, truncated, info = lake(max_invalid=1).step("?")
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["is_success"] is False


def test_terminated_and_truncated_stay_apart():
    limited = TextEnv(gymnasium.make("FrozenLake-v1", is_slippery=False, max_episode_steps=2))
    limited.reset(seed=0)
    limited.step("up")
    assert limited.step("up")[2:4] == (False, True)
    limited.reset(seed=0)
    limited.step("right")
    assert limited.step("down")[2:4] == (True, True)  # into the hole on the last step


def test_infos_share_nothing_with_each_other():
    env = TextEnv(Mirror())
    env.reset()
    info = env.step("11")[4]
    first, second = env.step("?")[4], env.step("?")[4]
    assert first["note"] == second["note"] == info["note"] == [2]
    assert len({id(i["note"]) for i in (info, first, second)}) == 3
    assert len({id(i["raw_observation"]) for i in (info, first, second)}) == 3


def test_numbers_are_the_names_where_the_documentation_gives_none():
    env = TextEnv(Mirror())
    assert env.action_names == ("10", "11", "12")
    assert env.instructions == (
        "You act in the environment Mirror.\nAnswer with one of: 10, 11, 12"
    )
    env.reset()
    assert env.step("12")[:3] == ("12", 1.5, True)


def test_messages_are_the_instructions_and_the_observation():
    env = lake(instructions="Reach G.")
    assert env.messages("P G") == [
        {"role": "system", "content": "Reach G.\nAnswer with one of: left, down, right, up"},
        {"role": "user", "content": "P G"},
    ]


def test_render_and_actions_can_be_ones_own():
    env = TextEnv(
        gymnasium.make("Pendulum-v1"),
        render=lambda observation, env: f"angle {observation[0] > 0} {type(env).__name__}",
        actions={"brake": [-2.0], "let go": [0.0], "push": [2.0]},
    )
    text, _ = env.reset(seed=0)
    assert text in {"angle True PendulumEnv", "angle False PendulumEnv"}
    assert env.step("Let go!")[4]["action"] == "let go"


def test_a_continuous_action_space_is_refused_with_the_way_out():
    with pytest.raises(EnvironmentSpecError) as caught:
        TextEnv(gymnasium.make("Pendulum-v1"))
    assert "Pendulum-v1" in str(caught.value)
    assert "Box(-2.0, 2.0, (1,), float32)" in str(caught.value)
    assert "pass actions=" in str(caught.value)


def test_max_invalid_must_allow_an_answer():
    with pytest.raises(OptionError, match="max_invalid"):
        lake(max_invalid=0)


def test_the_spec_makes_the_same_environment_again():
    env = TextEnv(gymnasium.make("FrozenLake-v1"), actions=["w", "s", "e", "n"], max_invalid=5)
    again = gymnasium.make(env.spec)
    assert again.get_wrapper_attr("action_names") == ("w", "s", "e", "n")
    assert again.get_wrapper_attr("max_invalid") == 5
