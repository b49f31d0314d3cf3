"""The examination: one check after the other; one that fails is a finding like any other."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from simtune.doctor.finding import Finding, Report, error, first_line
from simtune.doctor.subject import Subject
from simtune.recording.guard import attempt

CHECKS: Final[Mapping[str, str]] = {
    "root": "where",
    "capture": "contents",
    "rewards": "rewards",
    "tokens": "tokens",
    "losses": "losses",
    "clock": "clock",
    "scores": "scores",
    "log": "log",
    "damage": "damage",
    "files": "files",
    "disk": "disk",
    "registry": "registered",
    "tracking": "tracking",
    "prompts": "prompts",
    "logprobs": "logprobs",
    "versions": "versions",
    "torch": "torch_build",
    "plugins": "plugged",
    "devices": "devices",
    "limits": "limits",
    "threads": "threads",
}
"""Name of a check -> the module of this package whose `check(subject)` it is, in order."""


def diagnose(subject: Subject, checks: Iterable[str] = tuple(CHECKS)) -> Report:
    """Examine a subject; nothing is changed.

    Args:
        subject: what to look at.
        checks: names of checks, of `CHECKS`.
    """
    started = time.monotonic()
    findings = [finding for name in checks for finding in _run(name, subject)]
    return Report(findings=findings, seconds=time.monotonic() - started)


def _run(name: str, subject: Subject) -> list[Finding]:
    with warnings.catch_warnings():
        # What is wrong is told as a finding, not as a warning in between.
        warnings.simplefilter("ignore")
        found, failure = attempt(partial(_findings, name, subject))
    if failure is not None:
        kind = type(failure).__name__
        return [
            error(
                "check-failed",
                f"the check {name!r} could not be done: {kind}: {first_line(failure)}",
                "mend what it names and run simtune doctor again",
            )
        ]
    return found or []


def _findings(name: str, subject: Subject) -> list[Finding]:
    module = importlib.import_module(f"simtune.doctor.{CHECKS[name]}")
    check: Callable[[Subject], Iterable[Finding]] = module.check
    return list(check(subject))
