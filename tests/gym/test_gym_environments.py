"""Environments by name."""

import gymnasium
import pytest
from gymnasium import spaces

from simtune.errors import EnvironmentSpecError, MissingExtraError
from simtune.gym import TextEnv, make


class Echo(gymnasium.Env):
    """Text in, text out, all by itself."""

    action_space = spaces.Text(20)
    observation_space = spaces.Text(20)


def not_an_environment():
    return 3


def test_a_gymnasium_id_comes_as_text():
    env = make("FrozenLake-v1", is_slippery=False)
    assert isinstance(env, TextEnv)
    assert env.unwrapped.P[0][1] == [(1.0, 4, 0, False)]


def test_a_callable_comes_as_text_with_its_arguments():
    env = make("simtune.gym.frozenlake:random_map", size=5)
    assert isinstance(env, TextEnv)
    assert env.reset(seed=0)[0].count("\n") == 5


def test_gymnasiums_own_module_syntax_works():
    assert make("simtune.gym.frozenlake:simtune/RandomFrozenLake-v0").unwrapped.size == 4


def test_what_is_text_already_is_left_alone():
    assert isinstance(make(f"{__name__}:Echo"), Echo)


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_simulation_3141.py").write_text(
        "from simtune.gym.frozenlake import random_map as lake\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    assert make("my_simulation_3141:lake").reset(seed=0)[0].startswith("P ")


@pytest.mark.parametrize(
    ("spec", "kwargs", "expected"),
    [
        ("frozenlake-v1", {}, "did you mean FrozenLake-v1"),
        ("FrozenLake-v7", {}, "did you mean FrozenLake-v1"),
        ("Nothing-like-it", {}, "a registered gymnasium id, or module:callable"),
        ("no_such_module:make", {}, "module 'no_such_module' cannot be imported"),
        ("simtune.gym.frozenlake:random_mop", {}, "did you mean random_map"),
        ("simtune.gym.frozenlake:ID", {}, "no callable 'ID'"),
        ("simtune.gym.frozenlake:random_map", {"colour": 1}, "with these arguments"),
        ("FrozenLake-v1", {"colour": 1}, "with these arguments"),
        ("Pendulum-v1", {}, "the actions of Pendulum-v1 have no names"),
        (f"{__name__}:not_an_environment", {}, "got: int"),
    ],
)
def test_what_cannot_be_made_says_why(spec, kwargs, expected):
    with pytest.raises(EnvironmentSpecError) as caught:
        make(spec, **kwargs)
    assert expected in str(caught.value)


def test_without_gymnasium_the_extra_is_named(monkeypatch):
    import simtune.gym

    monkeypatch.delitem(vars(simtune.gym), "rollout", raising=False)
    for name in ("simtune.gym.rollouts", "simtune.gym.environments", "simtune.gym.asking"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r"(?s)gymnasium.*pip install 'simtune\[gym\]'"):
        simtune.gym.rollout  # noqa: B018
