"""One call of a captured function: from its arguments to its row."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from simtune.recording import context
from simtune.recording.answers import join_chunks
from simtune.recording.conversion import Notes
from simtune.recording.episodes import EpisodeLog
from simtune.recording.guard import attempt, guarded
from simtune.recording.prompts import PromptFinder
from simtune.recording.recorders import active
from simtune.records import Messages

_NOTHING = object()


class DecisionPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the decorator knows about a function that asks the model.

    Attributes:
        finder: finds the prompt among the arguments.
        action: name of the decision point.
        agent: who decides there.
        parse: turns the function's result into the action that the simulation takes.
    """

    finder: PromptFinder
    action: str
    agent: str | None = None
    parse: Callable[[Any], Any] | None = None


class Call:
    """One call, as a context manager around it: set `result`, or collect `chunks`.

    The prompt is read on entry, since functions append the answer to the list they were given.
    An exception is recorded and goes on its way.
    """

    __slots__ = ("_began", "_notes", "_point", "_prompt", "chunks", "result")

    def __init__(self, point: DecisionPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._point = point
        self._notes: Notes = {}
        self._prompt: Messages | None = guarded(point.finder.find, args, kwargs, self._notes)
        self.chunks: list[object] = []
        self.result: object = _NOTHING

    def __enter__(self) -> Call:
        """The function is about to be called."""
        self._began = time.perf_counter_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The function is done, or raised."""
        latency_us = (time.perf_counter_ns() - self._began) // 1000
        guarded(self._capture, error, latency_us, may_raise=error is None)

    def _capture(self, error: BaseException | None, latency_us: int) -> None:
        extra: dict[str, Any] = {}
        if isinstance(error, GeneratorExit):
            # The consumer had enough: the answer is what it took.
            extra["closed_early"] = True
            error = None
        if self._notes:
            extra["converted"] = self._notes
        result = join_chunks(self.chunks) if self.result is _NOTHING else self.result
        parsed = None
        failure = error
        if self._point.parse is not None and error is None:
            parsed, failure = attempt(self._point.parse, result)
        _log(self._point.agent).decision(
            self._prompt,
            result,
            action=self._point.action,
            agent=self._point.agent,
            parsed=parsed,
            valid=failure is None,
            error=failure,
            latency_us=latency_us,
            extra=extra,
        )


def _log(agent: str | None) -> EpisodeLog:
    log = context.current(agent)
    if log is None:
        log = EpisodeLog(active(), agent=agent)
        log.stand_alone()
        context.set_lone(log)
    return log
