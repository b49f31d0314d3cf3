"""Make the LLM inside a simulation better at it: capture, score, train, put back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtune import gym, testing
    from simtune.hookspecs import hookimpl, hookspec
    from simtune.plugins import hooks
    from simtune.recording import capture, configure, episode, flush, reward
    from simtune.records import Decision, Episode
    from simtune.reply import Reply
    from simtune.store import read
    from simtune.train import run_tuning

__version__ = "0.1.0"

_HOME = {
    "Decision": "simtune.records",
    "Episode": "simtune.records",
    "Reply": "simtune.reply",
    "capture": "simtune.recording",
    "configure": "simtune.recording",
    "episode": "simtune.recording",
    "flush": "simtune.recording",
    "hookimpl": "simtune.hookspecs",
    "hooks": "simtune.plugins",
    "hookspec": "simtune.hookspecs",
    "read": "simtune.store",
    "reward": "simtune.recording",
    "run_tuning": "simtune.train",
}
_MODULES = ("gym", "testing")

__all__ = [
    "Decision",
    "Episode",
    "Reply",
    "__version__",
    "capture",
    "configure",
    "episode",
    "flush",
    "gym",
    "hookimpl",
    "hooks",
    "hookspec",
    "read",
    "reward",
    "run_tuning",
    "testing",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f"simtune.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'simtune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
