"""The default words for an environment: gymnasium's toy-text ones, and any other by its spaces."""

from __future__ import annotations

from typing import Any

from gymnasium import Env

from simtune.gym.space_text import space_text
from simtune.gym.view import Render, View


def environment_name(env: Env[Any, Any], otherwise: str | None = None) -> str:
    """The registered id where there is one; else `otherwise`, or the unwrapped class's name."""
    spec = env.unwrapped.spec
    return spec.id if spec is not None else otherwise or type(env.unwrapped).__name__


def generic_text(observation: Any, env: Env[Any, Any]) -> str:
    """Any observation by its space alone; see `space_text`."""
    return space_text(observation)


def default_view(env: Env[Any, Any]) -> View:
    """The words for this environment; subclasses of a toy-text environment share its own."""
    from simtune.gym.toy_text import VIEWS

    for kind, view in VIEWS.items():
        if isinstance(env.unwrapped, kind):
            return view
    return View(f"You act in the environment {environment_name(env)}.", None, generic_text)


__all__ = ["Render", "View", "default_view", "environment_name", "generic_text"]
