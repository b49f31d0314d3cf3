"""Telling plugins what is captured, through the hooks of the simulation's side."""

from __future__ import annotations

from typing import Any

from simtune import plugins
from simtune.recording.guard import attempt, leave_out, report
from simtune.records import Row

_unusable = False


def listened_to(hook: str) -> bool:
    """Whether any plugin implements a hook.

    Where plugins cannot be loaded, that is reported once and capture goes on without any.
    """
    global _unusable
    if _unusable:
        return False
    try:
        return plugins.implemented(hook)
    except Exception as error:  # whatever loading a plugin raises
        _unusable = True
        report(error, may_raise=False)
        return False


def announce(hook: str, **arguments: Any) -> None:
    """Call a hook where any plugin implements it."""
    if listened_to(hook):
        _, error = attempt(plugins.call_each, hook, **arguments)
        if error is not None:
            report(error, may_raise=False)


def kept_by_plugins(row: Row) -> bool:
    """Offer a decision to each plugin in turn; the first that returns False keeps it out."""
    dropped_by, error = attempt(_dropped_by, row)
    if error is not None:
        report(error, may_raise=False)
    if dropped_by is not None:
        leave_out(dropped_by)
    return dropped_by is None


def _dropped_by(row: Row) -> str | None:
    for plugin, answer in plugins.in_turn("simtune_decision", row=row):
        if answer is False:
            return plugin
    return None
