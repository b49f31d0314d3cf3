"""Whether the simulation rewarded what it captured, and with numbers that can be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simtune.doctor.finding import Finding, graded, of, ok, warning
from simtune.doctor.sample import Sample, is_finite
from simtune.doctor.subject import Subject

_UNREWARDED: Final = 0.05
_ENOUGH: Final = 10


def check(subject: Subject) -> Iterator[Finding]:
    """Add up each ended episode's rewards, late ones among them."""
    sample = subject.sample
    ended = {event.episode_id for event in sample.events if event.kind == "episode_end"}
    returns = _returns(sample)
    rewarded = {each: value for each, value in returns.items() if each in ended}
    decided = ended & {event.episode_id for event in sample.decisions}
    if not decided:
        return
    fix = (
        "simtune.reward(value) after each decision, or score what is there: "
        f"simtune score {subject.option} --reward NAME, and train with --reward NAME"
    )
    if not rewarded:
        yield warning(
            "no-rewards", f"none of {len(decided):,} ended episodes has a reward{sample.scope}", fix
        )
        return
    missing = len(decided - set(rewarded))
    if missing:
        yield graded(
            "unrewarded-episodes",
            missing / len(decided),
            _UNREWARDED,
            f"{of(missing, len(decided))} ended episodes have no reward at all{sample.scope}; "
            "the reward `environment` leaves them out",
            fix,
        )
    strange = sum(not is_finite(value) for value in rewarded.values())
    if strange:
        yield warning(
            "broken-rewards",
            f"{of(strange, len(rewarded))} returns are not finite numbers{sample.scope}",
            "let the simulation clip or leave out such rewards; captured ones stay as they are",
        )
    yield from _spread(list(rewarded.values()), missing + strange)


def _spread(returns: list[float], wrong: int) -> Iterator[Finding]:
    if len(returns) >= _ENOUGH and len(set(returns)) == 1:
        yield warning(
            "equal-returns",
            f"all {len(returns):,} episodes have the return {returns[0]:g}: nothing is better "
            "than anything else",
            "reward what differs, or let the simulation vary (seeds, a higher temperature)",
        )
    elif not wrong:
        yield ok(
            "rewards",
            f"{len(returns):,} ended episodes with rewards, from {min(returns):g} "
            f"to {max(returns):g}",
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
