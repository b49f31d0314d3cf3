"""What an episode came to, in the words that every other part of simtune understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def said_success(info: Mapping[str, Any]) -> bool | None:
    """What the environment says in `info["is_success"]` or `info["success"]`, or None."""
    said = info.get("is_success", info.get("success"))
    return None if said is None else bool(said)


def outcome(said: bool | None, *, terminated: bool, total: float) -> dict[str, Any]:
    """Success and return of a finished episode.

    Where the environment says nothing, success is termination with a positive return.

    Args:
        said: what the environment said about success after the last step.
        terminated: whether the episode ended by the environment's own rules.
        total: undiscounted sum of the rewards.
    """
    return {"success": terminated and total > 0 if said is None else said, "return": total}
