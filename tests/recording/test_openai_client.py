"""The OpenAI client's own objects, whole and streamed, from a real server on loopback."""

import asyncio
import gc

import pytest
from openai_server import CALL, RESPONSE, TEXT, USAGE, WHOLE, serving
from read_back import said

import simtune

openai = pytest.importorskip("openai")
ASKED = [{"role": "user", "content": "left or right?"}]


@pytest.fixture(scope="module")
def url():
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def ask(client, store):
    @simtune.capture
    def ask(messages, model, **more):
        return client.chat.completions.create(model=model, messages=messages, **more)

    return ask


def tokens(row):
    return row.prompt_token_ids, row.token_ids, row.logprobs


def unordered(value):
    """JSON within JSON decoded, since the client's objects have their own order of keys."""
    if isinstance(value, dict):
        return {key: unordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unordered(item) for item in value]
    return unordered(said(value)) if isinstance(value, str) and value[:1] in "[{" else value


def test_a_completion(store, ask):
    answer = ask(ASKED, "plain")
    assert type(answer).__name__ == "ChatCompletion"
    row = store.only()
    assert (row.prompt, row.response, row.model, row.valid) == (ASKED, "left", "served", True)
    assert tokens(row) == ([], [], [])
    assert said(row.extra) == {
        "finish_reason": "stop",
        "usage": USAGE,
        "token_logprobs": [-0.5, -0.25],
    }


def test_token_ids_that_the_server_adds(store, ask):
    ask(ASKED, "tokens")
    row = store.only()
    assert tokens(row) == ([1, 2, 3], [5, 6], [-0.5, -0.25])
    assert said(row.extra) == {"finish_reason": "stop", "usage": USAGE}


def test_tool_calls_and_refusals(store, ask):
    ask(ASKED, "tools")
    ask(ASKED, "refusal")
    called, refused = store.rows()
    assert said(called.response) == [CALL]
    assert said(called.extra)["response"] == "tool_calls"
    assert said(called.extra)["finish_reason"] == "tool_calls"
    assert (refused.response, said(refused.extra)["response"]) == ("I won't.", "refusal")


def test_of_several_choices_the_first_is_the_answer(store, ask):
    ask(ASKED, "three")
    row = store.only()
    assert row.response == "a"
    second, third = said(row.extra)["other_choices"]
    assert (second, said(third)) == ("b", [CALL])


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_objects_and_json_are_the_same(store, client, name):
    @simtune.capture
    def ask(messages):
        return client.chat.completions.create(model=name, messages=messages)

    @simtune.capture
    def ask_without_client(messages):
        return WHOLE[name]

    ask(ASKED)
    ask_without_client(ASKED)
    one, other = store.rows()
    assert tokens(one) == tokens(other)
    assert unordered([one.response, said(one.extra)]) == unordered(
        [other.response, said(other.extra)]
    )


def test_an_error_of_the_server_is_the_callers(store, ask):
    with pytest.raises(openai.NotFoundError) as raised:
        ask(ASKED, "refused")
    row = store.only()
    assert (row.response, row.valid) == ("", False)
    assert row.error == f"NotFoundError: {raised.value}"


def test_a_text_completion(store, client):
    @simtune.capture
    def ask(prompt, **more):
        return client.completions.create(model="plain", prompt=prompt, **more)

    ask("left or right?")
    assert [chunk.choices[0].text for chunk in ask("again?", stream=True)] == ["left", "left"]
    row, streamed = store.rows()
    assert (row.response, row.model) == (TEXT["choices"][0]["text"], "served")
    assert row.prompt_token_ids == [1, 2]
    assert row.token_ids == [5, 6]
    assert row.logprobs[0] != row.logprobs[0]
    assert row.logprobs[1] == -0.25
    assert said(row.extra) == {"finish_reason": "length", "usage": USAGE}
    assert (streamed.response, streamed.token_ids) == ("leftleft", [5, 6, 5, 6])


def test_a_response(store, client):
    @simtune.capture
    def ask(prompt, **more):
        return client.responses.create(model="plain", input=prompt, **more)

    assert ask("left or right?").output_text == "left"
    assert len(list(ask("streamed", stream=True))) == 4
    with ask("cut", stream=True) as stream:
        assert [next(stream).type, next(stream).type][1] == "response.output_text.delta"

    @simtune.capture
    def ask_without_client(prompt):
        return RESPONSE

    ask_without_client("as JSON")
    whole, streamed, cut, as_json = store.rows()
    for row in (whole, streamed, as_json):
        assert (row.response, row.model) == ("left", "served")
        assert said(row.sampling) == {"temperature": 0.5, "top_p": 1.0}
        assert said(row.extra) == {"finish_reason": "completed"}
    assert (cut.response, cut.model, said(cut.extra)) == ("le", "served", {"closed_early": True})


def test_a_response_that_calls_tools(store):
    call = {"type": "function_call", "call_id": "1", "name": "go", "arguments": "{}"}
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}

    @simtune.capture
    def ask(prompt, *output):
        return {**RESPONSE, "output": list(output)}

    ask("p", call)
    ask("p", refusal)
    ask("p", *RESPONSE["output"], call)
    called, refused, both = store.rows()
    assert (said(called.response), said(called.extra)["response"]) == ([call], "tool_calls")
    assert (refused.response, said(refused.extra)["response"]) == ("no", "refusal")
    assert (both.response, said(both.extra)["tool_calls"]) == ("left", [call])


def test_a_stream_is_captured_as_it_is_consumed(store, ask):
    stream = ask(ASKED, "plain", stream=True)
    assert isinstance(stream, openai.Stream)
    assert stream.response.status_code == 200
    assert store.rows() == []
    assert "".join(c.choices[0].delta.content for c in stream if c.choices) == "left"
    row = store.only()
    assert (row.prompt, row.response, row.model, row.valid) == (ASKED, "left", "served", True)
    assert said(row.extra) == {
        "finish_reason": "stop",
        "usage": USAGE,
        "token_logprobs": [-0.5, -0.25],
    }


def test_a_stream_with_token_ids(store, ask):
    list(ask(ASKED, "tokens", stream=True))
    assert tokens(store.only()) == ([1, 2, 3], [5, 6], [-0.5, -0.25])


def test_tool_calls_of_a_stream_are_joined(store, ask):
    list(ask(ASKED, "tools", stream=True))
    row = store.only()
    assert said(row.response) == [CALL]
    assert said(row.extra) == {"response": "tool_calls", "finish_reason": "tool_calls"}


def test_several_choices_of_a_stream(store, ask):
    list(ask(ASKED, "three", stream=True))
    row = store.only()
    assert (row.response, said(row.extra)) == ("xy", {"other_choices": ["xy", "xy"]})


@pytest.mark.parametrize("leave", ["break", "close", "with"])
def test_a_stream_that_is_left_early(store, ask, leave):
    stream = ask(ASKED, "tokens", stream=True)
    if leave == "with":
        with stream as entered:
            assert entered is stream
            next(entered), next(entered)
    else:
        next(stream), next(stream)
        if leave == "close":
            stream.close()
            assert stream.response.is_closed
    if leave == "break":
        stream.close = None  # what the caller sets on the stream is set on the stream
        del stream
        gc.collect()
    row = store.only()
    assert (row.response, row.valid) == ("le", True)
    assert tokens(row) == ([1, 2, 3], [5], [-0.5])
    assert said(row.extra) == {"closed_early": True}


def test_an_error_in_mid_stream(store, ask):
    taken = []
    with pytest.raises(openai.APIError, match="fell over") as raised:
        for chunk in ask(ASKED, "broken", stream=True):
            taken.append(chunk)
    assert len(taken) == 1
    row = store.only()
    assert (row.response, row.valid, row.error) == ("le", False, f"APIError: {raised.value}")


def test_chunks_that_a_generator_function_passes_on(store, client):
    @simtune.capture(parse=str.upper)
    def ask(messages):
        yield from client.chat.completions.create(model="tokens", messages=messages, stream=True)

    assert len(list(ask(ASKED))) == 4
    row = store.only()
    assert (row.response, said(row.parsed)) == ("left", "LEFT")
    assert tokens(row) == ([1, 2, 3], [5, 6], [-0.5, -0.25])


def test_the_asynchronous_client(store, url):
    async def play():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            @simtune.capture
            async def ask(messages, model, **more):
                return await client.chat.completions.create(model=model, messages=messages, **more)

            @simtune.capture(action="ask")
            def ask_later(messages, model, **more):
                return client.chat.completions.create(model=model, messages=messages, **more)

            assert (await ask(ASKED, "plain")).choices[0].message.content == "left"
            assert (await ask_later(ASKED, "plain")).choices[0].message.content == "left"
            stream = await ask(ASKED, "tokens", stream=True)
            assert isinstance(stream, openai.AsyncStream)
            assert len([chunk async for chunk in stream]) == 4
            async with await ask_later(ASKED, "tokens", stream=True) as stream:
                await anext(stream), await anext(stream)
            stream = await ask(ASKED, "plain", stream=True)
            await anext(stream)
            await stream.close()
            with pytest.raises(openai.APIError, match="fell over"):
                async for _ in await ask(ASKED, "broken", stream=True):
                    pass

    asyncio.run(play())
    rows = store.rows()
    assert {row.action for row in rows} == {"ask"}
    assert [row.response for row in rows] == ["left", "left", "left", "le", "", "le"]
    assert [row.valid for row in rows] == [True] * 5 + [False]
    assert tokens(rows[2]) == ([1, 2, 3], [5, 6], [-0.5, -0.25])
    assert [said(row.extra).get("closed_early") for row in rows[3:5]] == [True, True]
    assert rows[5].error.startswith("APIError: the model fell over")
