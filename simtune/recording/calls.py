"""One call of a captured function: from its arguments to its row."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import NoneType, TracebackType
from typing import Any

import msgspec

from simtune.recording import context
from simtune.recording.conversion import Notes, to_json
from simtune.recording.episodes import EpisodeLog
from simtune.recording.guard import attempt, report
from simtune.recording.pending import followed
from simtune.recording.prompts import PromptFinder
from simtune.recording.recorders import active
from simtune.recording.redaction import Redaction
from simtune.recording.rows import error_text
from simtune.recording.streams import join_chunks
from simtune.records import Messages, Row
from simtune.reply import Reply

_NOTHING = object()
_WHOLE = frozenset({str, Reply, dict, list, tuple, int, float, bool, NoneType})


class DecisionPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the decorator knows about a function that asks the model.

    Attributes:
        finder: finds the prompt among the arguments.
        action: name of the decision point.
        agent: who decides there.
        parse: turns the function's result into the action that the simulation takes.
        redact: what is applied to its rows before they are written.
    """

    finder: PromptFinder
    action: str
    agent: str | None = None
    parse: Callable[[Any], Any] | None = None
    redact: tuple[Redaction, ...] = ()


class Call:
    """One call, as a context manager around it: say what was `answered`, or fill the `stream`.

    The prompt is read at the start, since functions append the answer to the list they were
    given. The decision belongs to the episode in which the call began, wherever its answer is
    consumed. An exception is recorded and goes on its way.

    Attributes:
        chunks: what was consumed of a stream.
    """

    __slots__ = (
        "_began",
        "_captured",
        "_episode",
        "_notes",
        "_pending",
        "_point",
        "_prompt",
        "_result",
        "_streams",
        "chunks",
    )

    def __init__(self, point: DecisionPoint, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._point = point
        self._notes: Notes = {}
        self._prompt: Messages | None = None
        try:
            self._prompt = point.finder.find(args, kwargs, self._notes)
        except Exception as error:  # whatever it is, as in `guarded`
            report(error)
        self._episode = context.current(point.agent)
        self._result: object = _NOTHING
        self._pending = self._streams = self._captured = False
        self.chunks: list[object] = []
        self._began = time.perf_counter_ns()

    def __enter__(self) -> Call:
        """The function, or the next piece of its answer, is about to be asked."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """It has answered, or raised."""
        if not self._pending:
            self._end(error)
        elif error is not None:
            ended = isinstance(error, StopIteration | StopAsyncIteration)
            self._end(None if ended else error)

    def answered(self, result: Any) -> Any:
        """Take what the function returned; gives what its caller is to get."""
        given = None if type(result) in _WHOLE else followed(result, self)
        if given is not None:
            self._pending = True
            return given
        self._result = result
        self._end(None)
        return result

    def failed(self, error: BaseException) -> None:
        """The function raised."""
        self._end(error)

    def stream(self) -> list[object]:
        """The answer comes in chunks; returns the list to fill."""
        self._streams, self._pending = True, False
        return self.chunks

    def close(self) -> None:
        """The consumer has had enough of a stream."""
        self._end(GeneratorExit())

    def done(self, future: Any) -> None:
        """A future that the function returned is done."""
        if future.cancelled():
            self._end("CancelledError: the future was cancelled")
        elif (error := future.exception()) is not None:
            self._end(error)
        else:
            self._result = future.result()
            self._end(None)

    def _end(self, error: BaseException | str | None) -> None:
        if not self._captured:
            self._captured = True
            latency_us = (time.perf_counter_ns() - self._began) // 1000
            try:
                self._capture(error, latency_us)
            except Exception as failure:  # whatever it is, as in `guarded`
                if self._episode is not None:
                    self._episode.lost()
                report(failure, may_raise=error is None)

    def _capture(self, error: BaseException | str | None, latency_us: int) -> None:
        extra: dict[str, Any] = {}
        if self._streams and isinstance(error, GeneratorExit):
            # The consumer had enough: the answer is what it took.
            extra["closed_early"] = True
            error = None
        result = join_chunks(self.chunks) if self._streams else self._result
        if result is _NOTHING:
            result = ""
        point, notes = self._point, self._notes
        parsed = None
        failure = error
        if point.parse is not None and error is None:
            parsed, failure = attempt(point.parse, result)
        log = self._episode or _lone(point.agent)
        row = Row(
            kind="decision",
            episode_id=log.id,
            agent_id=log.agent if point.agent is None else point.agent,
            action=point.action,
            latency_us=latency_us,
            prompt=self._prompt,
            parsed=None if parsed is None else to_json(parsed, "parsed", notes),
            valid=failure is None,
            error=None if failure is None else error_text(failure),
        )
        log.decide(row, result, failure, notes, extra, point.redact)


def _lone(agent: str | None) -> EpisodeLog:
    log = EpisodeLog(active(), agent=agent)
    log.stand_alone()
    context.set_lone(log)
    return log
