"""Results that are still to come: streams, awaitables and futures.

The caller gets the same thing, or a stand-in that behaves like it; the call is captured as what it
gives is consumed, and once: at its end, where it raises, or where the consumer lets it go.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from simtune.recording.calls import Call

Begin: TypeAlias = Callable[..., "tuple[Call, Callable[[], Any]]"]
"""From the arguments of a call: its record, and what makes the generator that it runs."""


def followed(result: object, call: Call) -> object | None:
    """What the caller gets for a result that is still to come; None where the result is whole."""
    kind = type(result)
    if kind is CoroutineType:
        return _awaited(result, call)  # type: ignore[arg-type]
    if kind is GeneratorType:
        return generator_function(lambda: (call, lambda: result))()
    if kind is AsyncGeneratorType:
        return async_generator_function(lambda: (call, lambda: result))()
    if hasattr(kind, "add_done_callback"):
        result.add_done_callback(call.done)  # type: ignore[attr-defined]
        return result
    for method, stand_in in _STAND_INS.items():
        if hasattr(kind, method):
            return stand_in(result, call)
    return None


def generator_function(begin: Begin) -> Callable[..., Generator[Any, Any, Any]]:
    """A generator function that captures what passes through."""

    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        made, source = begin(*args, **kwargs)
        with made:
            return (yield from _Tap(source(), made.stream()))

    return call


def async_generator_function(begin: Begin) -> Callable[..., AsyncGenerator[Any, Any]]:
    """An async-generator function that captures what passes through."""

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        made, source = begin(*args, **kwargs)
        with made:
            stream, chunks = source(), made.stream()
            advance, value = stream.asend, None
            while True:
                try:
                    chunk = await advance(value)
                except StopAsyncIteration:
                    return
                chunks.append(chunk)
                try:
                    advance, value = stream.asend, (yield chunk)
                except GeneratorExit:
                    await stream.aclose()
                    raise
                except BaseException as thrown:  # handed on to the stream, as `yield from` does
                    advance, value = stream.athrow, thrown

    return call


async def _awaited(source: Coroutine[Any, Any, Any], call: Call) -> Any:
    with call:
        return call.answered(await source)


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


class _StandIn:
    """Looks like another object: its class, its attributes, its context manager.

    `isinstance` says that it is one; only `type()` and `is` tell them apart.
    """

    __slots__ = ("__weakref__", "_simtune_call", "_simtune_source")
    _simtune_call: Call
    _simtune_source: Any

    def __init__(self, source: object, call: Call) -> None:
        object.__setattr__(self, "_simtune_source", source)
        object.__setattr__(self, "_simtune_call", call)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._simtune_source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simtune_source, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._simtune_source, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._simtune_source, name)

    def __repr__(self) -> str:
        return repr(self._simtune_source)


class _Stream(_StandIn):
    """Stands in for an iterator, such as the OpenAI client's `Stream`."""

    __slots__ = ()

    def __init__(self, source: object, call: Call) -> None:
        super().__init__(source, call)
        call.stream()

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        with self._simtune_call as call:
            chunk = next(self._simtune_source)
            call.chunks.append(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._simtune_source, name)
        return self._simtune_closing(found) if name == "close" else found

    def _simtune_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        def closing(*arguments: Any) -> Any:
            try:
                return close(*arguments)
            finally:
                self._simtune_call.close()

        return closing

    def __enter__(self) -> Any:
        entered = self._simtune_source.__enter__()
        return self if entered is self._simtune_source else entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return self._simtune_closing(self._simtune_source.__exit__)(kind, error, traceback)

    def __del__(self) -> None:
        self._simtune_call.close()


class _AsyncStream(_StandIn):
    """Stands in for an asynchronous iterator, such as the OpenAI client's `AsyncStream`."""

    __slots__ = ()

    def __init__(self, source: object, call: Call) -> None:
        super().__init__(source, call)
        call.stream()

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> Any:
        with self._simtune_call as call:
            chunk = await self._simtune_source.__anext__()
            call.chunks.append(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._simtune_source, name)
        return self._simtune_closing(found) if name in ("close", "aclose") else found

    def _simtune_closing(self, close: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def closing(*arguments: Any) -> Any:
            try:
                return await close(*arguments)
            finally:
                self._simtune_call.close()

        return closing

    async def __aenter__(self) -> Any:
        entered = await self._simtune_source.__aenter__()
        return self if entered is self._simtune_source else entered

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return await self._simtune_closing(self._simtune_source.__aexit__)(kind, error, traceback)

    def __del__(self) -> None:
        self._simtune_call.close()


class _Awaitable(_StandIn):
    """Stands in for an object that can be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        with self._simtune_call as call:
            return call.answered((yield from self._simtune_source.__await__()))


_STAND_INS: dict[str, Callable[[object, Call], object]] = {
    "__anext__": _AsyncStream,
    "__next__": _Stream,
    "__await__": _Awaitable,
}
