"""What an episode came to, in the words that every other part of simtune understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outcome(info: Mapping[str, Any], *, terminated: bool, total: float) -> dict[str, Any]:
    """Success and return of a finished episode.

    Success is what the environment says in `info["is_success"]` or `info["success"]`; where it
    says nothing, an episode that terminated with a positive return.

    Args:
        info: of the last step.
        terminated: whether the episode ended by the environment's own rules.
        total: undiscounted sum of the rewards.
    """
    said = info.get("is_success", info.get("success"))
    success = terminated and total > 0 if said is None else bool(said)
    return {"success": success, "return": total}
