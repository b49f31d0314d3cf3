"""Whether the simulation rewarded what it captured, and with numbers that can be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simtune.doctor.events import is_finite
from simtune.doctor.finding import Finding, graded, of, ok, warning
from simtune.doctor.sample import Sample
from simtune.doctor.scores import scorers
from simtune.doctor.subject import Subject

_UNREWARDED: Final = 0.05
_ENOUGH: Final = 10
_NEVER: Final = 2.0
"""A share that nothing reaches."""


def check(subject: Subject) -> Iterator[Finding]:
    """Add up each ended episode's rewards, late ones among them."""
    sample = subject.sample
    ended = {event.episode_id for event in sample.events if event.kind == "episode_end"}
    decided = ended & {event.episode_id for event in sample.decisions}
    returns = {each: value for each, value in _returns(sample).items() if each in decided}
    if not decided:
        return
    findings = [*_missing(subject, decided, returns), *_worth(subject, list(returns.values()))]
    yield from findings
    if not findings:
        low, high = min(returns.values()), max(returns.values())
        seen = f"{len(returns):,} ended episodes with rewards, from {low:g} to {high:g}"
        yield ok("rewards", seen)


def _missing(subject: Subject, decided: set[str], returns: dict[str, float]) -> Iterator[Finding]:
    names = scorers(subject)
    scored = f"; there are scores of {', '.join(names)}" if names else ""
    scope = subject.sample.scope
    fix = (
        f"train with --reward {names[0]}"
        if names
        else "simtune.reward(value) after each decision, or score what is there: simtune score "
        f"{subject.option} --reward NAME, and train with --reward NAME"
    )
    missing = len(decided) - len(returns)
    if not returns:
        seen = f"none of {len(decided):,} ended episodes has a reward{scope}{scored}"
        yield graded("no-rewards", 1.0, _NEVER if names else 1.0, seen, fix)
    elif missing:
        yield graded(
            "unrewarded-episodes",
            missing / len(decided),
            _NEVER if names else _UNREWARDED,
            f"{of(missing, len(decided))} ended episodes have no reward at all{scope}, and the "
            f"reward `environment` leaves them out{scored}",
            fix,
        )


def _worth(subject: Subject, returns: list[float]) -> Iterator[Finding]:
    scope = subject.sample.scope
    strange = sum(not is_finite(value) for value in returns)
    if strange:
        yield warning(
            "broken-rewards",
            f"{of(strange, len(returns))} returns are not finite numbers{scope}",
            "let the simulation clip or leave out such rewards; captured ones stay as they are",
        )
    elif len(returns) >= _ENOUGH and len(set(returns)) == 1:
        yield graded(
            "equal-returns",
            1.0,
            _NEVER if scorers(subject) else 1.0,
            f"all {len(returns):,} episodes have the return {returns[0]:g}{scope}: nothing is "
            "better than anything else",
            "reward what differs, or let the simulation vary (seeds, a higher temperature); or "
            "train with the --reward of a scorer",
        )


def _returns(sample: Sample) -> dict[str, float]:
    """Episode -> sum of its rewards, where it has any."""
    home = {event.decision_id: event.episode_id for event in sample.decisions}
    found: dict[str, float] = {}
    for event in sample.events:
        if event.reward is not None:
            episode = home.get(event.target, event.episode_id)
            found[episode] = found.get(episode, 0.0) + event.reward
    return found
