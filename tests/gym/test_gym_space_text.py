"""Observations of any space as text."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import EnvironmentSpecError
from simtune.gym import TextEnv
from simtune.gym.space_text import LARGEST_ARRAY, check_readable, plain, space_text


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (7, "7"),
        (np.int64(7), "7"),
        (0.123456, "0.1235"),
        (np.array([1.0, -0.00012345, 30000.0]), "1 -0.0001234 3e+04"),
        (np.array([[1, 2], [3, 4]]), "1 2\n3 4"),
        (
            {"mission": "go to the ball", "speed": np.array([0.5])},
            "mission: go to the ball\nspeed: 0.5",
        ),
        ((3, np.array([1, 0])), "3\n1 0"),
    ],
)
def test_each_kind_of_observation(observation, text):
    assert space_text(observation) == text


def test_images_are_refused_with_the_way_out():
    image = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), dtype=np.uint8)})
    with pytest.raises(EnvironmentSpecError) as caught:
        check_readable(image, "Camera-v0")
    assert "12288" in str(caught.value)
    assert "render=(observation, env) -> str" in str(caught.value)
    check_readable(spaces.Box(0, 1, (LARGEST_ARRAY,)), "Edge")


def test_unknown_spaces_are_refused():
    with pytest.raises(EnvironmentSpecError, match="cannot be put into text by default"):
        check_readable(spaces.Graph(spaces.Discrete(2), None), "Graph-v0")


def test_a_continuous_observation_with_named_actions_plays():
    env = TextEnv(gymnasium.make("CartPole-v1"), actions=["left", "right"])
    text, info = env.reset(seed=0)
    assert text == space_text(info["raw_observation"])
    assert len(text.split()) == 4
    assert env.step("right")[4]["action"] == "right"


@given(
    st.recursive(
        st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_plain_values_stay_as_they_are(value):
    assert plain(value) == value


def test_plain_takes_numpy_out_of_nested_values():
    value = {"a": (np.float32(0.5), np.array([[1, 2]])), 3: np.bool_(True)}
    assert plain(value) == {"a": [0.5, [[1, 2]]], "3": True}
    assert type(plain(np.int8(1))) is int
