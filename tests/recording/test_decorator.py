"""`@simtune.capture`: everything about a call is kept, and the call stays what it was."""

import asyncio
import inspect
from types import SimpleNamespace as Shape

import pytest
from read_back import said

import simtune
from simtune.recording.guard import failures

ASKED = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "left or right?"}]


def test_the_call_is_unchanged_and_recorded(store):
    @simtune.capture
    def choose(messages, temperature=1.0):
        """Choose."""
        return "left"

    with simtune.episode(agent="walker"):
        assert choose(ASKED, temperature=0.5) == "left"
    row = store.only()
    assert row.prompt == ASKED
    assert (row.response, row.action, row.agent_id) == ("left", "choose", "walker")
    assert (row.valid, row.error, row.extra) == (True, None, None)
    assert 0 <= row.latency_us < 1_000_000
    assert (choose.__name__, choose.__doc__) == ("choose", "Choose.")


def test_outside_of_any_episode_a_decision_is_one_of_its_own(store):
    @simtune.capture(agent="a", action="greet")
    def ask(prompt):
        return prompt.upper()

    ask("hi")
    ask("ho")
    simtune.reward(1.0)
    items = store.items()
    (first, one), (second, two), (_, reward) = items
    assert (one.kind, two.kind, reward.kind) == ("decision", "decision", "reward")
    assert one.episode_id != two.episode_id
    assert (reward.target, reward.episode_id) == (second, two.episode_id)
    assert first != second
    assert (one.agent_id, one.action) == ("a", "greet")


def test_a_reply_brings_its_tokens(store):
    reply = simtune.Reply(
        "left",
        prompt_token_ids=[1, 2],
        token_ids=[3, 4],
        logprobs=[-0.5, -1.5],
        sampling={"temperature": 0.7},
        model="tiny",
        adapter="abc",
    )

    @simtune.capture
    def ask(prompt):
        return reply

    assert ask("p") is reply
    row = store.only()
    assert row.response == "left"
    assert (row.prompt_token_ids, row.token_ids, row.logprobs) == ([1, 2], [3, 4], [-0.5, -1.5])
    assert said(row.sampling) == {"temperature": 0.7}
    assert (row.model, row.adapter) == ("tiny", "abc")


def completion(**message):
    """An answer shaped as the OpenAI client's, with vLLM's token ids."""
    token = [Shape(token="le", logprob=-0.5), Shape(token="ft", logprob=-0.25)]
    return Shape(
        model="gpt-x",
        prompt_token_ids=[9],
        choices=[
            Shape(
                message=Shape(role="assistant", **message),
                finish_reason="stop",
                logprobs=Shape(content=token),
                token_ids=[5, 6],
            )
        ],
    )


def test_a_chat_completion_is_recognised_by_its_shape(store):
    @simtune.capture
    def ask(prompt):
        return completion(content="left")

    ask("p")
    row = store.only()
    assert (row.response, row.model) == ("left", "gpt-x")
    assert (row.prompt_token_ids, row.token_ids, row.logprobs) == ([9], [5, 6], [-0.5, -0.25])
    assert said(row.extra) == {"finish_reason": "stop"}


def test_a_chat_completion_as_json_and_without_token_ids(store):
    answer = {
        "model": "gpt-x",
        "choices": [
            {
                "message": {"role": "assistant", "content": "left"},
                "logprobs": {"content": [{"token": "left", "logprob": -0.5}]},
            }
        ],
        "usage": {"completion_tokens": 1},
    }

    @simtune.capture
    def ask(prompt):
        return answer

    assert ask("p") is answer
    row = store.only()
    assert (row.response, row.token_ids, row.logprobs) == ("left", [], [])
    assert said(row.extra) == {"token_logprobs": [-0.5], "usage": {"completion_tokens": 1}}


def test_tool_calls_are_the_answer_where_there_is_no_text(store):
    @simtune.capture
    def ask(prompt):
        return completion(content=None, tool_calls=[{"function": {"name": "go"}}])

    ask("p")
    row = store.only()
    assert said(row.response) == [{"function": {"name": "go"}}]
    assert said(row.extra)["response"] == "tool_calls"


def test_any_other_result_is_kept_as_json(store):
    @simtune.capture
    def ask(prompt):
        return {"move": 3}

    assert ask("p") == {"move": 3}
    assert said(store.only().response) == {"move": 3}


def test_an_exception_is_recorded_and_raised(store):
    @simtune.capture
    def ask(prompt):
        raise TimeoutError("no answer in 5 s")

    with pytest.raises(TimeoutError, match="no answer"):
        ask("p")
    row = store.only()
    assert (row.response, row.valid) == ("", False)
    assert row.error == "TimeoutError: no answer in 5 s"


def test_what_was_parsed_is_recorded_and_not_returned(store):
    @simtune.capture(parse=int)
    def ask(prompt):
        return "3"

    assert ask("p") == "3"
    row = store.only()
    assert (said(row.parsed), row.valid) == (3, True)


def test_a_parser_that_raises_makes_the_decision_invalid(store):
    @simtune.capture(parse=int)
    def ask(prompt):
        return "three"

    assert ask("p") == "three"
    row = store.only()
    assert (row.response, row.parsed, row.valid) == ("three", None, False)
    assert row.error.startswith("ValueError: invalid literal")
    assert failures() == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "content"),
    [
        (("hello", 3), {}, "hello"),
        ((3, "x"), {"prompt": "hello"}, "hello"),
        ((), {"first": "hello"}, "hello"),
        ((3, "x"), {"more": [1]}, '{"first":3,"second":"x","more":[1]}'),
        ((), {}, "{}"),
    ],
)
def test_where_the_prompt_is_found(store, args, kwargs, content):
    @simtune.capture
    def ask(first=None, second=None, **others):
        return "ok"

    ask(*args, **kwargs)
    assert store.only().prompt == [{"role": "user", "content": content}]


def test_a_method_is_not_asked_about_itself(store):
    class Agent:
        @simtune.capture
        def ask(self, question):
            return "ok"

        @simtune.capture
        def weigh(self, x, y):
            return "ok"

    Agent().ask("who?")
    Agent().weigh(1, y=2)
    first, second = store.rows()
    assert first.prompt == [{"role": "user", "content": "who?"}]
    assert second.prompt == [{"role": "user", "content": '{"x":1,"y":2}'}]


def test_the_prompt_is_as_it_was_before_the_call(store):
    @simtune.capture
    def ask(messages):
        messages[-1]["content"] += " (asked)"
        messages.append({"role": "assistant", "content": "left"})
        return "left"

    chat = [dict(message) for message in ASKED]
    ask(chat)
    assert store.only().prompt == ASKED


def test_message_objects_and_parts_are_messages_too(store):
    parts = [{"type": "text", "text": "look"}]
    called = [{"id": "1", "function": {"name": "go"}}]

    @simtune.capture
    def ask(messages):
        return "ok"

    ask(
        [
            Shape(role="assistant", content=None, tool_calls=called),
            {"role": "user", "content": parts, "weight": 2},
        ]
    )
    row = store.only()
    assistant, user = row.prompt
    assert said(assistant["tool_calls"]) == called
    assert said(user["content"]) == parts
    extra = said(row.extra)
    assert extra["prompt_fields"] == {"1": {"weight": 2}}
    assert set(extra["converted"]) == {"prompt[0].tool_calls", "prompt[1].content"}


def test_async_functions(store):
    @simtune.capture(parse=str.upper)
    async def ask(prompt):
        await asyncio.sleep(0)
        if prompt == "bad":
            raise OSError("gone")
        return "yes"

    async def play():
        assert await ask("good") == "yes"
        with pytest.raises(OSError, match="gone"):
            await ask("bad")

    asyncio.run(play())
    assert inspect.iscoroutinefunction(ask)
    good, bad = store.rows()
    assert (good.response, said(good.parsed), good.valid) == ("yes", "YES", True)
    assert (bad.valid, bad.error) == (False, "OSError: gone")


def test_a_cancelled_task_leaves_its_decision(store):
    @simtune.capture
    async def ask(prompt):
        await asyncio.sleep(10)

    async def play():
        task = asyncio.create_task(ask("p"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(play())
    assert store.only().error == "CancelledError: "


def test_generators_keep_their_protocol(store):
    @simtune.capture
    def stream(prompt):
        try:
            sent = yield "le"
        except ValueError:
            sent = "thrown"
        yield sent
        return "returned"

    first = stream("p")
    assert next(first) == "le"
    assert first.send("ft") == "ft"
    with pytest.raises(StopIteration) as stop:
        next(first)
    assert stop.value.value == "returned"
    second = stream("p")
    next(second)
    assert second.throw(ValueError("x")) == "thrown"
    second.close()
    assert inspect.isgeneratorfunction(stream)
    whole, early = store.rows()
    assert (whole.response, whole.valid, whole.extra) == ("left", True, None)
    assert (early.response, early.valid) == ("lethrown", True)
    assert said(early.extra) == {"closed_early": True}


def test_a_generator_that_raises(store):
    @simtune.capture
    def stream(prompt):
        yield "le"
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        list(stream("p"))
    row = store.only()
    assert (row.response, row.valid, row.error) == ("le", False, "OSError: cut")


def test_async_generators_keep_their_protocol(store):
    @simtune.capture
    async def stream(prompt):
        try:
            sent = yield "le"
        except ValueError:
            sent = "thrown"
        yield sent

    async def play():
        assert [chunk async for chunk in stream("p")] == ["le", None]
        chunks = stream("p")
        assert await anext(chunks) == "le"
        assert await chunks.asend("ft") == "ft"
        await chunks.aclose()
        chunks = stream("p")
        await anext(chunks)
        assert await chunks.athrow(ValueError("x")) == "thrown"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    asyncio.run(play())
    assert inspect.isasyncgenfunction(stream)
    plain, early, thrown = store.rows()
    assert said(plain.response) == ["le", None]
    assert (early.response, said(early.extra)) == ("left", {"closed_early": True})
    assert thrown.response == "lethrown"


def test_chunks_of_a_chat_stream_are_joined(store):
    @simtune.capture
    def stream(messages):
        for content in ("le", "ft", None):
            yield Shape(choices=[Shape(delta=Shape(content=content))])
        yield Shape(choices=[])

    assert len(list(stream(ASKED))) == 4
    assert store.only().response == "left"


def test_what_capture_cannot_do_is_counted_and_the_call_goes_on(store):
    class Hostile:
        @property
        def choices(self):
            raise RuntimeError("boom")

    hostile = Hostile()

    @simtune.capture
    def ask(prompt):
        return hostile

    with pytest.warns(RuntimeWarning, match="the simulation goes on: RuntimeError: boom"):
        assert ask("p") is hostile
    assert ask("p") is hostile
    assert failures() == {"RuntimeError": 2}


def test_a_failure_never_hides_the_functions_own_exception(store):
    simtune.configure(backpressure="raise")

    @simtune.capture(agent=object())
    def ask(prompt):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ask("p")
