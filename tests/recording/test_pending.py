"""What a captured function returns before its answer is there, and every kind of function."""

import asyncio
import concurrent.futures
import functools
import gc
import inspect
import traceback

import pytest
from read_back import said

import simtune


class Chunks:
    """An iterator of one's own, as a client library has it."""

    def __init__(self, *chunks):
        self.left = list(chunks)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        chunk = self.left.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self):
        self.closed = True
        return "closed"


class Later:
    """An object that can be awaited, and is no coroutine."""

    name = "later"

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "left"


@simtune.capture
def ask_for(prompt, make):
    return make()


def give(result):
    """What a captured function's caller gets where the function returns this."""
    return ask_for("p", lambda: result)


def test_an_iterator_stays_what_it_was(store):
    source = Chunks("le", "ft")
    stream = give(source)
    assert isinstance(stream, Chunks)
    assert (stream.left, repr(stream)) == (["le", "ft"], repr(source))
    stream.tag = 1
    assert source.tag == 1
    del stream.tag
    assert not hasattr(source, "tag")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stream.nothing
    assert iter(stream) is stream
    assert list(stream) == ["le", "ft"]
    assert list(stream) == []
    assert stream.close() == "closed" and source.closed
    row = store.only()
    assert (row.response, row.valid, row.extra) == ("left", True, None)


def test_built_in_iterators(store):
    assert list(give(map(str, [1, 2]))) == ["1", "2"]
    assert next(give(iter(["le", "ft"]))) == "le"
    whole, left_early = store.rows()
    assert whole.response == "12"
    assert (left_early.response, said(left_early.extra)) == ("le", {"closed_early": True})


def test_an_iterator_that_raises(store):
    failure = OSError("cut")
    with pytest.raises(OSError, match="cut") as raised:
        list(give(Chunks("le", failure)))
    assert raised.value is failure
    row = store.only()
    assert (row.response, row.valid, row.error) == ("le", False, "OSError: cut")


def test_a_stream_nobody_looks_at(store):
    give(Chunks("le", "ft"))
    gc.collect()
    row = store.only()
    assert (row.response, said(row.extra)) == ("", {"closed_early": True})


def test_a_generator_that_a_plain_function_returns(store):
    def generate():
        sent = yield "le"
        yield sent
        return "returned"

    stream = give(generate())
    assert inspect.isgenerator(stream)
    assert (next(stream), stream.send("ft")) == ("le", "ft")
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "returned"
    assert store.only().response == "left"


def test_an_asynchronous_generator_that_a_plain_function_returns(store):
    async def generate():
        for chunk in ("le", "ft"):
            yield chunk

    async def play():
        stream = give(generate())
        assert inspect.isasyncgen(stream)
        assert [chunk async for chunk in stream] == ["le", "ft"]

    asyncio.run(play())
    assert store.only().response == "left"


def test_a_coroutine_is_captured_when_it_is_awaited(store):
    async def answer(text):
        await asyncio.sleep(0)
        if text is None:
            raise LookupError("nothing")
        return text

    async def play():
        waiting = give(answer("left"))
        assert inspect.iscoroutine(waiting)
        assert store.rows() == []
        assert await waiting == "left"
        assert await asyncio.gather(*(give(answer(text)) for text in "ab")) == ["a", "b"]
        with pytest.raises(LookupError):
            await give(answer(None))
        cancelled = asyncio.create_task(give(asyncio.sleep(10)))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(play())
    rows = store.rows()
    assert [row.response for row in rows] == ["left", "a", "b", "", ""]
    assert [row.error for row in rows[3:]] == ["LookupError: nothing", "CancelledError: "]


def test_a_coroutine_that_is_closed_has_no_answer(store):
    @simtune.capture
    async def ask(prompt):
        await asyncio.sleep(10)

    async def play():
        waiting = ask("p")
        waiting.send(None)
        waiting.close()

    asyncio.run(play())
    row = store.only()
    assert (row.response, row.valid, row.error) == ("", False, "GeneratorExit: ")


def test_other_awaitables(store):
    async def play():
        waiting = give(Later())
        assert isinstance(waiting, Later) and waiting.name == "later"
        assert await waiting == "left"

    asyncio.run(play())
    assert store.only().response == "left"


def test_futures_are_captured_when_they_are_done(store):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: "left")
        assert give(future) is future
        with pytest.raises(ZeroDivisionError):
            give(pool.submit(lambda: 1 / 0)).result()
    never = concurrent.futures.Future()
    give(never).cancel()
    never.set_running_or_notify_cancel()

    async def play():
        task = asyncio.create_task(asyncio.sleep(0, "right"))
        assert give(task) is task
        assert await task == "right"

    asyncio.run(play())
    rows = store.rows()
    assert [row.response for row in rows] == ["left", "", "", "right"]
    assert [row.error for row in rows[1:3]] == [
        "ZeroDivisionError: division by zero",
        "CancelledError: the future was cancelled",
    ]


def test_an_awaited_stream(store):
    async def play():
        @simtune.capture
        async def ask(prompt):
            return Chunks("le", "ft")

        assert list(await ask("p")) == ["le", "ft"]

    asyncio.run(play())
    assert store.only().response == "left"


def test_a_stream_belongs_to_the_episode_in_which_it_was_asked_for(store):
    with simtune.episode() as asked_in:
        stream = give(Chunks("le", "ft"))
    with simtune.episode():
        list(stream)
    assert store.only().episode_id == asked_in.id


def test_methods_of_every_kind(store):
    class Agent:
        @simtune.capture
        def ask(self, prompt):
            return "a"

        @simtune.capture
        @classmethod
        def above(cls, prompt):
            return cls.__name__

        @classmethod
        @simtune.capture
        def below(cls, prompt):
            return cls.__name__

        @simtune.capture
        @staticmethod
        def still(prompt):
            return "s"

        @simtune.capture
        async def later(self, prompt):
            return "l"

    agent = Agent()
    assert (agent.ask("1"), agent.above("2"), Agent.below("3")) == ("a", "Agent", "Agent")
    assert (agent.still("4"), Agent.still("5"), asyncio.run(agent.later("6"))) == ("s", "s", "l")
    rows = store.rows()
    assert [row.prompt[0]["content"] for row in rows] == list("123456")
    names = ["ask", "above", "below", "still", "still", "later"]
    assert [row.action for row in rows] == names


def test_partial_functions_and_callable_objects(store):
    def ask(temperature, prompt):
        return prompt.upper()

    class Policy:
        def __call__(self, prompt):
            return "p"

    class AsyncPolicy:
        async def __call__(self, prompt):
            return "q"

    assert simtune.capture(functools.partial(ask, 0.5))("hi") == "HI"
    assert simtune.capture(functools.partial(ask, 0.5))(prompt="ho") == "HO"
    assert simtune.capture(Policy())("hi") == "p"
    assert asyncio.run(simtune.capture(AsyncPolicy())("hi")) == "q"
    rows = store.rows()
    assert [row.action for row in rows] == ["ask", "ask", "Policy", "AsyncPolicy"]
    assert [row.prompt[0]["content"] for row in rows] == ["hi", "ho", "hi", "hi"]


def test_a_coroutine_function_behind_another_decorator(store):
    def logged(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args)

        return call

    @simtune.capture
    @logged
    async def ask(prompt):
        return "left"

    @logged
    @simtune.capture
    async def other_way_round(prompt):
        return "right"

    assert not inspect.iscoroutinefunction(ask)
    assert asyncio.run(ask("p")) == "left"
    assert asyncio.run(other_way_round("p")) == "right"
    assert [row.response for row in store.rows()] == ["left", "right"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_whatever_is_raised_goes_on_its_way(store, kind):
    failure = kind("now")

    @simtune.capture
    def ask(prompt):
        raise failure

    with pytest.raises(kind) as raised:
        ask("p")
    assert raised.value is failure
    assert (failure.__cause__, failure.__context__) == (None, None)
    assert traceback.extract_tb(failure.__traceback__)[-1].line == "raise failure"
    assert (store.only().valid, store.only().error) == (False, f"{kind.__name__}: now")
