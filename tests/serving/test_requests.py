"""What is asked is understood, or refused by name; nothing is ignored."""

import msgspec
import pytest

from simtune.serving.refusals import Refusal
from simtune.serving.requests import NEUTRAL, ChatAsked, TextAsked, check, parse

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def refused(body, kind=ChatAsked):
    with pytest.raises(Refusal) as caught:
        check(parse(msgspec.json.encode(body), kind))
    return caught.value


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"top_p": 0.9}, "top_p", "unsupported_value"),
        ({"top_k": 40}, "top_k", "unsupported_value"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_value"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "invalid_value"),
    ],
)
def test_what_cannot_be_heeded_is_refused_by_name(more, param, code):
    refusal = refused({**CHAT, **more})
    assert (refusal.status, refusal.param, refusal.code) == (400, param, code)


def test_a_field_that_is_missing_is_named():
    refusal = refused({"model": "m"})
    assert (refusal.param, refusal.code) == ("messages", "missing_parameter")


@pytest.mark.parametrize("body", [b"{", b"", b'{"model": "\xff"}'])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(Refusal) as caught:
        parse(body, ChatAsked)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_values_are_understood(name):
    for value in NEUTRAL[name]:
        kind = ChatAsked if name in ChatAsked.__struct_fields__ else TextAsked
        body = {**CHAT} if kind is ChatAsked else {"model": "m", "prompt": "x"}
        check(parse(msgspec.json.encode({**body, name: value}), kind))


def test_the_error_has_the_shape_of_openai():
    body = msgspec.json.decode(refused({**CHAT, "top_p": 0.5}).body())
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    assert "full distribution" in body["error"]["message"]
