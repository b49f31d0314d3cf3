"""Telling plugins what is captured, through the hooks of the simulation's side."""

from __future__ import annotations

from typing import Any

from simtune import plugins
from simtune.recording.guard import attempt, report

_unusable = False


def listened_to(hook: str) -> bool:
    """Whether any plugin implements a hook.

    Where plugins cannot be loaded, that is reported once and capture goes on without any.
    """
    global _unusable
    if _unusable:
        return False
    found, error = attempt(plugins.implemented, hook)
    if error is not None:
        _unusable = True
        report(error, may_raise=False)
    return bool(found)


def announce(hook: str, **arguments: Any) -> None:
    """Call a hook where any plugin implements it."""
    if listened_to(hook):
        _, error = attempt(plugins.call_each, hook, **arguments)
        if error is not None:
            report(error, may_raise=False)
