"""Real clients, sync and async, against an endpoint that says what it is told to."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

import simtune
import simtune_openai
from simtune.errors import OptionError

CHAT = [{"role": "user", "content": "5 buyers. Your price?"}]
ENTRY = {"token": "7", "logprob": -0.25, "bytes": [55], "top_logprobs": []}


def completion(**more):
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "7"},
        "logprobs": {"content": [ENTRY], "refusal": None},
        "token_ids": [9],
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "adapter": "abc",
        "sampling": {"temperature": 0.5},
        "prompt_token_ids": [1, 2],
        "choices": [choice],
        **more,
    }


def chunk(delta, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {
        "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [choice], **more,
    }  # fmt: skip


RESPONSE = {
    "id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed",
    "parallel_tool_calls": False, "tool_choice": "none", "tools": [],
    "output": [{
        "id": "o", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "7", "annotations": []}],
    }],
}  # fmt: skip


@pytest.fixture
def endpoint():
    heard = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.append(asked)
            status, kind = 200, "application/json"
            if asked["model"] == "broken":
                status, content = 400, json.dumps({"error": {"message": "no"}}).encode()
            elif self.path.endswith("/responses"):
                content = json.dumps(RESPONSE).encode()
            elif asked.get("stream"):
                kind = "text/event-stream"
                parts = [chunk({"content": piece}) for piece in ("sev", "en", "!")]
                events = [f"data: {json.dumps(part)}\n\n" for part in parts]
                content = "".join([*events, "data: [DONE]\n\n"]).encode()
            else:
                content = json.dumps(completion()).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", heard
        server.shutdown()


@pytest.fixture
def episode(tmp_path):
    """An episode to ask in, and its decisions when it has ended."""
    log = simtune.episode(env="market", agent="seller", root=tmp_path / "store")

    def decisions():
        (found,) = simtune.read(tmp_path / "store").episodes()
        return found.decisions

    return log, decisions


def client_of(url, kind=openai.OpenAI, **settings):
    return simtune_openai.capture(kind(base_url=url, api_key="x", max_retries=0), **settings)


def test_a_whole_answer(endpoint, episode):
    url, heard = endpoint
    log, decisions = episode
    with client_of(url, token_ids=True, parse=lambda answer: 7) as client, log:
        answer = client.chat.completions.create(model="m", messages=CHAT, temperature=0.5)
        simtune.reward(3.0)
    assert answer.choices[0].message.content == "7"
    assert heard[0]["return_token_ids"] is True and heard[0]["logprobs"] is True
    (decision,) = decisions()
    assert (decision.prompt, decision.response, decision.parsed) == (CHAT, "7", 7)
    assert (decision.prompt_token_ids, decision.token_ids) == ([1, 2], [9])
    assert decision.logprobs == [-0.25]
    assert (decision.model, decision.adapter) == ("m", "abc")
    assert decision.sampling == {"temperature": 0.5}
    assert (decision.action, decision.agent_id) == ("chat.completions", "seller")
    assert decision.reward == 3.0


def test_nothing_is_asked_that_the_caller_did_not_ask(endpoint, episode):
    url, heard = endpoint
    log, _ = episode
    with client_of(url) as client, log:
        client.chat.completions.create(model="m", messages=CHAT)
    assert heard == [{"model": "m", "messages": CHAT}]


def test_a_stream_and_one_that_is_left(endpoint, episode):
    url, _ = endpoint
    log, decisions = episode
    with client_of(url) as client, log:
        whole = client.chat.completions.create(model="m", messages=CHAT, stream=True)
        assert isinstance(whole, openai.Stream)
        said = "".join(part.choices[0].delta.content for part in whole)
        with client.chat.completions.create(model="m", messages=CHAT, stream=True) as left:
            next(iter(left))
    assert said == "seven!"
    first, second = decisions()
    assert first.response == "seven!"
    assert (second.response, second.extra["closed_early"]) == ("sev", True)


def test_an_async_client(endpoint, episode):
    url, _ = endpoint
    log, decisions = episode

    async def ask():
        async with client_of(url, openai.AsyncOpenAI) as client, log:
            one, two = await asyncio.gather(
                *(client.chat.completions.create(model="m", messages=CHAT) for _ in range(2))
            )
            stream = await client.chat.completions.create(model="m", messages=CHAT, stream=True)
            return one, two, [part async for part in stream]

    one, two, parts = asyncio.run(ask())
    assert one.choices[0].message.content == two.choices[0].message.content == "7"
    assert len(parts) == 3
    assert [decision.response for decision in decisions()] == ["7", "7", "seven!"]


def test_a_response_with_its_instructions(endpoint, episode):
    url, _ = endpoint
    log, decisions = episode
    with client_of(url, action="price") as client, log:
        answer = client.responses.create(model="m", instructions="Sell.", input="5 buyers.")
    assert answer.output_text == "7"
    (decision,) = decisions()
    assert decision.prompt == [
        {"role": "system", "content": "Sell."},
        {"role": "user", "content": "5 buyers."},
    ]
    assert (decision.response, decision.action) == ("7", "price")


def test_an_error_is_captured_and_raised(endpoint, episode):
    url, _ = endpoint
    log, decisions = episode
    with client_of(url) as client, log, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="broken", messages=CHAT)
    (decision,) = decisions()
    assert not decision.valid
    assert decision.error.startswith("BadRequestError")


def test_what_cannot_be_captured_is_refused(endpoint):
    with pytest.raises(OptionError, match="captured already"), client_of(endpoint[0]) as client:
        simtune_openai.capture(client)
    with pytest.raises(OptionError, match="nothing to capture"):
        simtune_openai.capture(object())
