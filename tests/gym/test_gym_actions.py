"""How an answer is read as an action, and how actions get their names."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import EnvironmentSpecError
from simtune.gym.actions import ActionNames, name_actions

MOVES = ActionNames({"left": 0, "down": 1, "right": 2, "up": 3})


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("left", "left"),
        (" Left.\n", "left"),
        ("**DOWN**", "down"),
        ("I would go up, since the hole is below.", "up"),
        ("right right right", "right"),
    ],
)
def test_one_name_in_the_answer_is_the_action(answer, name):
    assert MOVES.parse(answer) == (name, "")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "the answer names no action"),
        ("north", "the answer names no action"),
        ("upwards", "the answer names no action"),  # a part of a word is no word
        ("left or up", "the answer names several actions: left, up"),
    ],
)
def test_anything_else_is_no_action_and_says_why(answer, problem):
    assert MOVES.parse(answer) == (None, problem)


def test_a_longer_name_is_not_read_as_the_shorter_one_inside_it():
    names = ActionNames({"up": 0, "pick up": 1})
    assert names.parse("Pick up!").name == "pick up"
    assert names.parse("I go up").name == "up"


def test_negative_numbers_are_names_too():
    names = name_actions(spaces.Discrete(3, start=-1), None, "Env")
    assert names.actions == {"-1": -1, "0": 0, "1": 1}
    assert names.parse("-1").name == "-1"
    assert names.parse("take 1").name == "1"


@given(
    name=st.sampled_from(MOVES.names),
    before=st.text(" .,;:!?*\"'()[]\n", max_size=5),
    after=st.text(" .,;:!?*\"'()[]\n", max_size=5),
    upper=st.booleans(),
)
def test_case_and_punctuation_never_matter(name, before, after, upper):
    answer = before + (name.upper() if upper else name) + after
    assert MOVES.parse(answer).name == name


@given(st.text())
def test_any_text_is_either_a_name_or_a_problem(answer):
    name, problem = MOVES.parse(answer)
    assert (name is None) == bool(problem)


def test_names_in_order_respect_the_start_of_the_space():
    names = name_actions(spaces.Discrete(2, start=5), ["stay", "go"], "Env")
    assert names.actions == {"stay": 5, "go": 6}


def test_a_wrong_number_of_names_says_which_actions_there_are():
    with pytest.raises(EnvironmentSpecError, match="Env has 2 actions, but 3 names") as caught:
        name_actions(spaces.Discrete(2, start=5), ["a", "b", "c"], "Env")
    assert "5 to 6" in str(caught.value)


@pytest.mark.parametrize("actions", [{}, {"": 0}, {"up": 0, "UP": 1}])
def test_names_must_be_tellable_apart(actions):
    with pytest.raises(EnvironmentSpecError, match="told apart"):
        ActionNames(actions)


def test_box_actions_are_discretised_by_hand():
    box = spaces.Box(-2, 2, (1,), dtype=np.float32)
    names = name_actions(box, {"brake": [-2], "push": [2.0]}, "Pendulum")
    assert names.actions["push"].dtype == np.float32
    np.testing.assert_array_equal(names.actions["brake"], [-2])


def test_an_action_outside_the_space_is_named():
    with pytest.raises(EnvironmentSpecError, match="'fly' is not an action of Lake"):
        name_actions(spaces.Discrete(4), {"fly": 4}, "Lake")


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 2])], ids=["box", "multi"]
)
def test_a_space_without_names_says_what_to_do(space):
    with pytest.raises(EnvironmentSpecError) as caught:
        name_actions(space, None, "Env")
    assert str(space) in str(caught.value)
    assert 'actions={"name": action, ...}' in str(caught.value)
