"""What an examination finds: a level, a code, what was seen, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["ok", "note", "warning", "error"]

LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "error")

CODES: Final[Mapping[str, tuple[Level, ...]]] = {
    "check-failed": ("error",),
    # where the store is
    "bad-settings": ("error",),
    "no-store": ("error",),
    "not-a-store": ("error",),
    "unreachable-store": ("error",),
    "other-root": ("note",),
    # what was captured
    "no-decisions": ("error",),
    "no-episode-ends": ("warning", "error"),
    "unfinished-episodes": ("note", "warning"),
    "aborted-episodes": ("note", "warning"),
    "invalid-answers": ("note", "warning"),
    "no-rewards": ("note", "warning"),
    "unrewarded-episodes": ("note", "warning"),
    "broken-rewards": ("warning",),
    "equal-returns": ("note", "warning"),
    "no-token-ids": ("note", "warning"),
    "no-logprobs": ("note", "warning"),
    "greedy-sampling": ("note", "warning"),
    "cut-sampling": ("note", "warning"),
    "no-chosen-option": ("note", "warning"),
    "left-out": ("note",),
    "dropped-rows": ("warning",),
    "converted-values": ("note",),
    "clock-set-back": ("note",),
    "clock-ahead": ("note",),
    # scores
    "failed-scores": ("note", "warning"),
    "old-scores": ("note",),
    "unscored-episodes": ("note",),
    "unknown-scorer": ("note",),
    "unreadable-scores": ("error",),
    # log and files
    "log-waiting": ("note", "warning"),
    "backlog-near-limit": ("warning", "error"),
    "compactor-failed": ("warning",),
    "unfinished-compaction": ("warning",),
    "orphan-staged": ("note",),
    "unfinished-segment": ("note",),
    "damaged-segment": ("error",),
    "set-aside-segment": ("warning",),
    "unreadable-part": ("error",),
    "small-files": ("note",),
    "open-modes": ("warning",),
    "disk-nearly-full": ("warning",),
    "disk-full": ("error",),
    # models and tracking
    "no-models": ("note",),
    "broken-registry": ("error",),
    "missing-model": ("error",),
    "changed-weights": ("error",),
    "base-model-gone": ("warning",),
    "no-champion": ("note",),
    "unregistered-files": ("note",),
    "registry-locked": ("warning",),
    "no-runs": ("note",),
    "tracking-unreachable": ("error",),
    # a model beside the store
    "no-sample": ("note",),
    "other-tokenizer": ("error",),
    "template-drift": ("warning",),
    "other-tokens": ("warning",),
    "logprob-drift": ("warning",),
    "untempered-logprobs": ("warning",),
    "unknown-adapter": ("note",),
    # the installation
    "version-conflict": ("warning", "error"),
    "ranges-unchecked": ("note",),
    "cpu-torch": ("warning",),
    "broken-plugin": ("error",),
    "failed-plugin": ("warning",),
    "no-builtin-rewards": ("error",),
    # the machine
    "hidden-gpu": ("note",),
    "gpu-nearly-full": ("warning",),
    "low-memory": ("warning",),
    "few-descriptors": ("warning",),
    "small-shared-memory": ("note",),
    "too-many-threads": ("warning",),
}
"""Code of a finding -> the levels it can have; `ok` findings have the check's name as code."""


class Finding(msgspec.Struct, kw_only=True, frozen=True):
    """One thing that was seen.

    Attributes:
        level: `ok`, `note` (worth knowing), `warning` (something will not work as meant), `error`
            (something does not work, or is lost).
        code: one of `CODES`, or the check's name where all is well.
        seen: what was seen, with numbers.
        fix: how to mend it, with the command; empty where nothing is to be done.
    """

    level: Level
    code: str
    seen: str
    fix: str = ""


class Report(msgspec.Struct, kw_only=True):
    """What an examination came to.

    Attributes:
        findings: in the order of the checks.
        seconds: how long it took.
    """

    findings: list[Finding]
    seconds: float

    @property
    def worst(self) -> Level:
        """The worst level among the findings."""
        return max((each.level for each in self.findings), key=LEVELS.index, default="ok")

    def count(self, level: Level) -> int:
        """How many findings have a level."""
        return sum(each.level == level for each in self.findings)


def ok(check: str, seen: str) -> Finding:
    """A check found nothing wrong."""
    return Finding(level="ok", code=check, seen=seen)


def note(code: str, seen: str, fix: str = "") -> Finding:
    """Something worth knowing."""
    return Finding(level="note", code=code, seen=seen, fix=fix)


def warning(code: str, seen: str, fix: str) -> Finding:
    """Something will not work as it is meant to."""
    return Finding(level="warning", code=code, seen=seen, fix=fix)


def error(code: str, seen: str, fix: str) -> Finding:
    """Something does not work, or is lost."""
    return Finding(level="error", code=code, seen=seen, fix=fix)


def graded(code: str, share: float, limit: float, seen: str, fix: str) -> Finding:
    """A warning from some share on, a note below it."""
    return Finding(level="warning" if share >= limit else "note", code=code, seen=seen, fix=fix)


def of(part: int, whole: int) -> str:
    """`12 of 30 (40 %)`."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.3g} %)" if whole else f"{part:,} of 0"


def size(count: float) -> str:
    """Bytes with a unit: `3.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def lasting(seconds: float) -> str:
    """Seconds with a unit: `90 s`, `12 min`, `7 h`, `3 days`."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def first_line(text: object) -> str:
    """The first line of a message, shortened."""
    lines = str(text).strip().splitlines()
    line = lines[0] if lines else ""
    return line if len(line) <= 200 else f"{line[:197]}..."
