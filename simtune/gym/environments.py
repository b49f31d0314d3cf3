"""`make`: an environment by name, ready for a policy that reads and writes text."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any

import gymnasium
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv

from simtune.errors import EnvironmentSpecError
from simtune.gym.text_env import TextEnv


def make(spec: str, **kwargs: Any) -> Env[str, str]:
    """Make an environment whose observations and actions are text.

    Args:
        spec: as for `build`.
        **kwargs: passed to `gymnasium.make`, or to the callable.

    Returns:
        The environment, in a `TextEnv` unless its spaces are text already.

    Raises:
        EnvironmentSpecError: it does not exist, cannot be made, or cannot be put into text.
    """
    made = build(spec, **kwargs)
    if isinstance(made, VectorEnv):
        raise _no_environment(spec, made, expected="gymnasium.Env")
    return as_text(made)


def build(spec: str, **kwargs: Any) -> Env[Any, Any] | VectorEnv[Any, Any, Any]:
    """Make an environment as it is, or a vector environment; for `Player` and `rollout`.

    Args:
        spec: a gymnasium id (`FrozenLake-v1`, `module:FrozenLake-v1`), or `module:callable` for a
            function or class that returns one. Modules are also looked for in the current
            directory.
        **kwargs: passed to `gymnasium.make`, or to the callable.

    Raises:
        EnvironmentSpecError: it does not exist or cannot be made.
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon:
        return _from_registry(spec, kwargs)
    module = _import(module_name, spec)
    if getattr(module, attribute, None) is None and attribute in gymnasium.registry:
        return _from_registry(attribute, kwargs)
    factory = named(spec, "a callable that returns a gymnasium environment")
    try:
        made = factory(**kwargs)
    except TypeError as error:
        raise _unusable(spec, kwargs, error) from error
    if not isinstance(made, (Env, VectorEnv)):
        raise _no_environment(spec, made, expected="gymnasium.Env, or a vector environment")
    return made


def _no_environment(spec: str, made: object, *, expected: str) -> EnvironmentSpecError:
    return EnvironmentSpecError(
        f"{spec!r} does not make an environment that can be used here",
        expected=expected,
        got=type(made).__name__,
    )


def named(spec: str, expected: str) -> Any:
    """What `module:callable` names; modules are also looked for in the current directory.

    Raises:
        EnvironmentSpecError: there is no such callable.
    """
    module_name, _, attribute = spec.partition(":")
    module = _import(module_name, spec)
    found = getattr(module, attribute, None)
    if not callable(found):
        close = difflib.get_close_matches(attribute, vars(module), n=3)
        raise EnvironmentSpecError(
            f"{spec!r}: {module_name} has no callable {attribute!r}",
            expected=f"module:callable, {expected}",
            fix=f"did you mean {' or '.join(close)}?" if close else None,
        )
    return found


def as_text(env: Env[Any, Any]) -> Env[str, str]:
    """The environment itself where its spaces are text already, else in a `TextEnv`."""
    spaces_are_text = isinstance(env.observation_space, spaces.Text) and isinstance(
        env.action_space, spaces.Text
    )
    return env if spaces_are_text else TextEnv(env)


def _from_registry(env_id: str, kwargs: dict[str, Any]) -> Env[Any, Any]:
    if env_id.startswith("simtune/"):
        # Importing it registers its id, so that the name in a store can be made again.
        importlib.import_module("simtune.gym.frozenlake")
    try:
        return gymnasium.make(env_id, **kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        raise EnvironmentSpecError(
            f"environment {env_id!r} needs a package that is not installed: {error}"
        ) from error
    except gymnasium.error.Error as error:
        raise _unknown(env_id, error) from error
    except TypeError as error:
        raise _unusable(env_id, kwargs, error) from error


def _unknown(env_id: str, error: gymnasium.error.Error) -> EnvironmentSpecError:
    known = list(gymnasium.registry)
    by_key = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(env_id.casefold(), by_key, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(by_key[key] for key in close)}?" if close else None
    return EnvironmentSpecError(
        f"gymnasium cannot make environment {env_id!r}: {error}",
        expected="a registered gymnasium id, or module:callable",
        fix=hint,
    )


def _unusable(spec: str, kwargs: dict[str, Any], error: TypeError) -> EnvironmentSpecError:
    return EnvironmentSpecError(
        f"environment {spec!r} cannot be made with these arguments: {error}", got=kwargs
    )


def _import(name: str, spec: str) -> Any:
    # An installed command does not have the current directory on its path; `python -m` does.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentSpecError(
            f"environment {spec!r}: module {name!r} cannot be imported: {error}",
            expected="a gymnasium id, or module:callable",
            fix=f"install the package of {name!r}, or run where {name.split('.')[0]}.py is",
        ) from error
