"""Whether a candidate is to be champion, and the one rule by which that is decided."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from simtune.errors import OptionError
from simtune.eval.intervals import Interval
from simtune.registry import Change, ModelRecord, Registry
from simtune.registry.promotion import BASE, ChampionChangedError, promote, refuse

CONFIDENCE = 0.95


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Promote only where the lower confidence bound of the difference is above the margin.

    Attributes:
        margin: by how much a candidate has to be better, in units of the metric.
        confidence: of the lower bound.
    """

    margin: float = 0.0
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            OptionError: a margin that is not finite, or a confidence that is none.
        """
        if not math.isfinite(self.margin):
            raise OptionError("a margin is a finite number", got=self.margin)
        if not 0.5 <= self.confidence < 1:
            raise OptionError("a confidence lies between 0.5 and 1", got=self.confidence)

    def holds(self, difference: Interval) -> bool:
        """Whether a candidate this much better is promoted."""
        return difference.low > self.margin

    def hopeless(self, difference: Interval) -> bool:
        """Whether the whole interval is below the margin."""
        return difference.high < self.margin


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and what follows from it.

    Attributes:
        promote: whether the candidate is to be champion.
        reason: in words.
        candidate: id of the candidate.
        champion: id of the champion, or `base`.
        method: `sign-flip`, `betting` or `off-policy`: where the bounds are from.
        metric: what was measured.
        episodes: how many on each side, or how many logged ones.
        candidate_mean: mean of the metric.
        champion_mean: likewise.
        difference: candidate minus champion, each bound at the rule's confidence on its own.
        margin: see `Rule`.
        confidence: see `Rule`.
        details: how it was played, or how far the logged data carries.
    """

    promote: bool
    reason: str
    candidate: str
    champion: str
    method: str
    metric: str
    episodes: int
    candidate_mean: float
    champion_mean: float
    difference: Interval
    margin: float
    confidence: float
    details: dict[str, Any] = {}


def judge(rule: Rule, difference: Interval, metric: str) -> tuple[bool, str]:
    """The decision, and the sentence that says why."""
    side = "above" if rule.holds(difference) else "not above"
    said = (
        f"{metric} differs by {difference.estimate:.4g}; its lower {rule.confidence:.4g} bound "
        f"{difference.low:.4g} is {side} the margin {rule.margin:g}"
    )
    return rule.holds(difference), said


def settle(
    registry: Registry,
    candidate: ModelRecord,
    champion: ModelRecord | None,
    verdict: Verdict,
    *,
    other_base: bool = False,
) -> Change:
    """Promote the candidate, or note in the history that it was refused, and why.

    A candidate that was measured against a champion which is no longer one is refused.

    Raises:
        RegistryError: the candidate cannot be promoted: files gone or changed, another base.
    """
    evidence = msgspec.to_builtins(verdict)
    if not verdict.promote:
        return refuse(registry, candidate.id, reason=verdict.reason, evidence=evidence)
    try:
        return promote(
            registry,
            candidate.id,
            by="gate",
            reason=verdict.reason,
            evidence=evidence,
            beaten=champion,
            other_base=other_base,
        )
    except ChampionChangedError:
        beaten = BASE if champion is None else champion.id
        return refuse(
            registry,
            candidate.id,
            reason=f"measured against {beaten}, which is not the champion any more; measure again",
            evidence=evidence,
        )
