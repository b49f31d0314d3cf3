"""What became of the champion: one entry for every promotion, refusal and rollback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Event: TypeAlias = Literal["promoted", "refused", "rolled_back"]
Author: TypeAlias = Literal["hand", "gate", "watch"]


class Change(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A decision about which model is champion.

    Attributes:
        at: UTC, ISO 8601.
        event: what was decided.
        by: a person, the gate before a promotion, or the watch after it.
        model: id of the model that the decision was about; of a rollback, the one that was
            champion.
        before: id of the champion until then; None: the base model without an adapter.
        after: id of the champion from then on; equal to `before` where nothing changed.
        reason: in words.
        evidence: every number behind the decision.
    """

    at: str
    event: Event
    by: Author
    model: str
    before: str | None
    after: str | None
    reason: str = ""
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


def lineage(history: Sequence[Change]) -> list[str | None]:
    """Which champions can be gone back to, the present one last; begins with the base model.

    A promotion adds to it. A rollback takes off what came after the model it went back to, so
    that a model that was rolled back is not gone back to.
    """
    line: list[str | None] = [None]
    for change in history:
        if change.event == "promoted":
            line.append(change.after)
        elif change.event == "rolled_back":
            while len(line) > 1 and line[-1] != change.after:
                line.pop()
            if line[-1] != change.after:
                line.append(change.after)
    return line


def measured_worse(history: Sequence[Change]) -> set[str]:
    """Models that the gate refused because they are worse than the champion, not just no better.

    The whole confidence interval of their difference lies below 0.
    """
    return {
        change.model
        for change in history
        if change.event == "refused" and change.evidence.get("difference", {}).get("high", 0.0) < 0
    }
