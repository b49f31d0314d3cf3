"""Gymnasium environments as text: wrap them, capture them, roll them out with a policy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simtune.errors import MissingExtraError

if TYPE_CHECKING:
    from simtune.gym.capture_env import CaptureEnv
    from simtune.gym.environments import as_text, build, make
    from simtune.gym.rollouts import Player, rollout
    from simtune.gym.text_env import TextEnv

_HOME = {
    "CaptureEnv": "capture_env",
    "Player": "rollouts",
    "TextEnv": "text_env",
    "as_text": "environments",
    "build": "environments",
    "make": "environments",
    "rollout": "rollouts",
}

__all__ = ["CaptureEnv", "Player", "TextEnv", "as_text", "build", "make", "rollout"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises:
        MissingExtraError: gymnasium is not installed.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'simtune.gym' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"simtune.gym.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise MissingExtraError(f"simtune.gym.{name}", package="gymnasium", extra="gym") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
