"""Whether the writers' clocks ran forward, and not ahead of this machine's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from simtune.doctor.events import Event
from simtune.doctor.finding import Finding, lasting, note, ok
from simtune.doctor.subject import Subject

_BACK_SECONDS: Final = 1.0
_AHEAD_SECONDS: Final = 60.0


def check(subject: Subject) -> Iterator[Finding]:
    """Compare each writer's wall clock with its monotonic one, and with now."""
    events = [event for event in subject.sample.events if event.ts]
    if not events:
        return
    ahead = max(event.ts for event in events) / 1e6 - time.time()
    back = _largest_step_back(events)
    if back > _BACK_SECONDS:
        yield note(
            "clock-set-back",
            f"a writer's clock was set back by {lasting(back)} while it captured; order is by "
            "number, and rates and ages are off by that",
            "let the clock be disciplined (chronyd, systemd-timesyncd) before simulations start",
        )
    if ahead > _AHEAD_SECONDS:
        yield note(
            "clock-ahead",
            f"the latest row is {lasting(ahead)} in this machine's future",
            "set the clocks of the simulation's machine and of this one: timedatectl",
        )
    if back <= _BACK_SECONDS and ahead <= _AHEAD_SECONDS:
        yield ok("clock", f"the latest row is {lasting(max(0.0, -ahead))} old; no clock went back")


def _largest_step_back(events: list[Event]) -> float:
    """Seconds that a writer's wall clock lost against its monotonic clock, at most."""
    last: dict[str, Event] = {}
    largest = 0.0
    for event in sorted(events, key=lambda each: (each.writer, each.seq)):
        before = last.get(event.writer)
        if before is not None and event.ts < before.ts:
            passed = max(0.0, (event.mono_ns - before.mono_ns) / 1e9)
            largest = max(largest, (before.ts - event.ts) / 1e6 + passed)
        last[event.writer] = event
    return largest
