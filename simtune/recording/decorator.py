"""`@simtune.capture`: records what a function that asks the model was asked and answered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec, TypeVar, overload

from simtune.recording.calls import Call, DecisionPoint
from simtune.recording.prompts import PromptFinder

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
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def capture(
    function: Callable[..., Any] | None = None,
    /,
    *,
    agent: str | None = None,
    action: str | None = None,
    parse: Callable[[Any], Any] | None = None,
) -> Callable[..., Any]:
    """Decorate the function in which the simulation asks the model.

    Sync, async, generator and async-generator functions; result and exceptions are unchanged.
    The prompt is the argument `messages` or `prompt`, else the first argument where it is text or
    messages, else the JSON of all arguments. The answer is the result: a `simtune.Reply`, text,
    an OpenAI chat completion, or the JSON of anything else; of a generator, its chunks joined.

    A decision belongs to the current `simtune.episode`; outside of any it is an episode of its
    own, without start and end.

    Args:
        function: the function, where the decorator is used without arguments.
        agent: who decides; the episode's agent by default.
        action: name of the decision point; the function's name by default.
        parse: turns the function's result into the action, for the record only. Where it raises,
            the decision is kept with `valid=False` and the error.

    Returns:
        The decorated function, or the decorator.
    """

    def decorate(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        point = DecisionPoint(
            finder=PromptFinder(wrapped),
            action=action or str(getattr(wrapped, "__name__", type(wrapped).__name__)),
            agent=agent,
            parse=parse,
        )
        return functools.wraps(wrapped)(_wrapper(wrapped, point))

    return decorate if function is None else decorate(function)


def _wrapper(wrapped: Callable[..., Any], point: DecisionPoint) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(wrapped):
        return _around_coroutine(wrapped, point)
    if inspect.isasyncgenfunction(wrapped):
        return _around_async_generator(wrapped, point)
    if inspect.isgeneratorfunction(wrapped):
        return _around_generator(wrapped, point)

    def call(*args: Any, **kwargs: Any) -> Any:
        with Call(point, args, kwargs) as made:
            made.result = result = wrapped(*args, **kwargs)
        return result

    return call


def _around_coroutine(wrapped: Callable[..., Any], point: DecisionPoint) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with Call(point, args, kwargs) as made:
            made.result = result = await wrapped(*args, **kwargs)
        return result

    return call


def _around_generator(wrapped: Callable[..., Any], point: DecisionPoint) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with Call(point, args, kwargs) as made:
            return (yield from _Tap(wrapped(*args, **kwargs), made.chunks))

    return call


def _around_async_generator(
    wrapped: Callable[..., Any], point: DecisionPoint
) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with Call(point, args, kwargs) as made:
            stream = wrapped(*args, **kwargs)
            advance, value = stream.asend, None
            while True:
                try:
                    chunk = await advance(value)
                except StopAsyncIteration:
                    return
                made.chunks.append(chunk)
                try:
                    advance, value = stream.asend, (yield chunk)
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as thrown:  # handed on to the stream, as `yield from` does
                    advance, value = stream.athrow, thrown

    return call


class _Tap(Generator[Any, Any, Any]):
    """A generator that keeps a copy of what passes through."""

    def __init__(self, source: Generator[Any, Any, Any], chunks: list[object]) -> None:
        self._source = source
        self._chunks = chunks

    def send(self, value: Any) -> Any:
        chunk = self._source.send(value)
        self._chunks.append(chunk)
        return chunk

    def throw(self, *raised: Any) -> Any:
        chunk = self._source.throw(*raised)
        self._chunks.append(chunk)
        return chunk

    def close(self) -> None:
        self._source.close()
