"""How much of an episode a chat shows besides the present observation."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from gymnasium import Env

from simtune.errors import EnvironmentSpecError, OptionError

History: TypeAlias = int | str
"""Earlier turns in a chat: 0 for none, n for the last n, `full` for all."""


def checked_history(history: History) -> int | Literal["full"]:
    """A number of turns, or `full`.

    Raises:
        OptionError: it is neither.
    """
    if history == "full":
        return "full"
    if isinstance(history, int) and history >= 0:
        return history
    if isinstance(history, str) and history.isdecimal():
        return int(history)
    raise OptionError(
        "history cannot be used", expected='0, a number of turns, or "full"', got=history
    )


def remember(env: Env[Any, Any], history: History | None) -> None:
    """Set the history of an environment that has one; None leaves it as it is.

    Raises:
        EnvironmentSpecError: the environment makes its chats itself.
    """
    if history is None:
        return
    if not env.has_wrapper_attr("history"):
        raise EnvironmentSpecError(
            "this environment makes its own chats, so history cannot be set",
            expected="an environment in a simtune.gym.TextEnv",
            got=env,
        )
    env.set_wrapper_attr("history", checked_history(history))
