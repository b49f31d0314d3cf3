"""The guard around capture: a failure to capture never breaks the simulation.

Failures are counted by kind and warned about once per kind. `backpressure="raise"` is the
caller's choice to be told instead.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from simtune import config

T = TypeVar("T")
_counted: Counter[str] = Counter()
_left_out: Counter[str] = Counter()


def attempt(
    function: Callable[..., T], /, *arguments: Any, **named: Any
) -> tuple[T | None, Exception | None]:
    """Call a function; returns its result, or the exception that it raised."""
    try:
        return function(*arguments, **named), None
    # What is captured comes from the simulation: its parsers, its objects and their methods can
    # raise anything, and none of it may reach a simulation that would run without capture.
    except Exception as error:
        return None, error


def guarded(
    function: Callable[..., T], /, *arguments: Any, may_raise: bool = True, **named: Any
) -> T | None:
    """Call a part of capture; a failure is reported (see `report`) and gives None."""
    try:
        return function(*arguments, **named)
    except Exception as error:  # whatever it is, as in `attempt`
        report(error, may_raise=may_raise)
        return None


def report(error: Exception, *, may_raise: bool = True) -> None:
    """Count a failure of capture and warn at the first of its kind, or raise it where asked to.

    Args:
        error: what went wrong.
        may_raise: False where another exception is already on its way to the caller.
    """
    settings, _ = attempt(config.current)
    if may_raise and settings is not None and settings.backpressure == "raise":
        raise error
    kind = type(error).__name__
    _counted[kind] += 1
    if _counted[kind] == 1:
        warnings.warn(
            f"simtune could not capture as asked, the simulation goes on: {kind}: {error} "
            "(further failures of this kind are counted only)",
            RuntimeWarning,
            stacklevel=3,
        )


def failures() -> dict[str, int]:
    """How often capture failed in this process, by kind of error."""
    return dict(_counted)


def leave_out(by: str) -> None:
    """Count a decision that a plugin or a redaction kept out of the store."""
    _left_out[by] += 1


def left_out() -> dict[str, int]:
    """How many decisions were kept out of the store in this process, by plugin or `redact`."""
    return dict(_left_out)


def forget_failures() -> None:
    """Start counting anew; the next failure of each kind is warned about again."""
    _counted.clear()
    _left_out.clear()
