"""`@simtune.capture`: records what a function that asks the model was asked and answered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from simtune.recording.calls import Call, DecisionPoint
from simtune.recording.pending import async_generator_function, generator_function
from simtune.recording.prompts import PromptFinder
from simtune.recording.redaction import Redact, redactions

P = ParamSpec("P")
R = TypeVar("R")


@overload
def capture(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def capture(
    *,
    agent: str | None = None,
    action: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    redact: Redact | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def capture(
    function: Callable[..., Any] | None = None,
    /,
    *,
    agent: str | None = None,
    action: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    redact: Redact | None = None,
) -> Callable[..., Any]:
    """Decorate the function in which the simulation asks the model.

    Sync, async, generator and async-generator functions, methods, and whatever else can be
    called; result and exceptions are unchanged. The prompt is the argument `messages` or
    `prompt`, else the first argument where it is text or messages, else the JSON of all arguments.
    The answer is the result: a `simtune.Reply`, text, a completion or response of the OpenAI
    client, or the JSON of anything else; of a stream, what was consumed of it, joined.

    A decision belongs to the `simtune.episode` that is the current one where the call begins;
    outside of any it is an episode of its own, without start and end.

    Args:
        function: the function, where the decorator is used without arguments.
        agent: who decides; the episode's agent by default.
        action: name of the decision point; the function's name by default.
        parse: turns the function's result into the action, for the record only. Where it raises,
            the decision is kept with `valid=False` and the error. Of a stream it gets the text.
        redact: takes secrets out before anything is written. Texts and compiled patterns:
            `[redacted]` takes their place in every text of the row. A function: gets the
            `simtune.records.Row` and returns the row to write, or None or False for none. A rule
            that raises costs the decision, not the secret. See also `simtune.configure`.

    Returns:
        The decorated function, or the decorator.

    Raises:
        OptionError: `redact` is none of these.
    """
    rules = redactions(redact)

    def decorate(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(wrapped, classmethod | staticmethod):
            return type(wrapped)(decorate(wrapped.__func__))
        point = DecisionPoint(
            finder=PromptFinder(wrapped),
            action=action or _name(wrapped),
            agent=agent,
            parse=parse,
            redact=rules,
        )
        return functools.wraps(wrapped)(_wrapper(wrapped, point))

    return decorate if function is None else decorate(function)


def _wrapper(wrapped: Callable[..., Any], point: DecisionPoint) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(wrapped):
        return _around_coroutine(wrapped, point)

    def begin(*args: Any, **kwargs: Any) -> tuple[Call, Callable[[], Any]]:
        return Call(point, args, kwargs), functools.partial(wrapped, *args, **kwargs)

    if inspect.isasyncgenfunction(wrapped):
        return async_generator_function(begin)
    if inspect.isgeneratorfunction(wrapped):
        return generator_function(begin)

    def call(*args: Any, **kwargs: Any) -> Any:
        made = Call(point, args, kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:  # recorded, and on its way again
            made.failed(error)
            raise
        return made.answered(result)

    return call


def _around_coroutine(wrapped: Callable[..., Any], point: DecisionPoint) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with Call(point, args, kwargs) as made:
            return made.answered(await wrapped(*args, **kwargs))

    return call


def _name(wrapped: Callable[..., Any]) -> str:
    while isinstance(wrapped, functools.partial):
        wrapped = wrapped.func
    return str(getattr(wrapped, "__name__", type(wrapped).__name__))
