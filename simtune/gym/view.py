"""How one kind of environment is put into words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gymnasium import Env

Render: TypeAlias = Callable[[Any, Env[Any, Any]], str]
"""`(observation, unwrapped environment) -> text`; must be deterministic."""


@dataclass(frozen=True)
class View:
    """Words for an environment.

    Attributes:
        task: what is to be done, and what the symbols of the observation mean.
        actions: names in action order; None: the actions' numbers are their names.
        render: the observation as text.
    """

    task: str
    actions: tuple[str, ...] | None
    render: Render
