"""Who may ask, how much, how often and how long."""

import json
import socket
import urllib.error
import urllib.request

import openai
import pytest

from simtune.errors import OptionError
from simtune.serving.options import ServeOptions

CHAT = [{"role": "user", "content": "5 buyers"}]
LONG = 1900


@pytest.fixture(scope="module")
def small(serve, models_dir):
    """A server that takes two answers at a time, each for a second at most."""
    return serve(
        *("--models-dir", models_dir, "--max-concurrency", 2, "--max-request-bytes", 2000),
        *("--timeout", 0.6, "--adapter", "latest"),
        env={"SIMTUNE_API_KEY": "secret"},
    )


@pytest.fixture(scope="module")
def asker(small):
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="secret", max_retries=0) as made:
        yield made


def post(url, body, key="secret", **headers):
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", body, {"authorization": f"Bearer {key}", **headers}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status


def test_a_key_is_needed(small):
    for key in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(small.url, b"{}", key=key)
        assert caught.value.code == 401
        assert json.load(caught.value)["error"]["code"] == "invalid_api_key"
    with urllib.request.urlopen(f"{small.url}/health") as health:
        assert json.load(health) == {"status": "ok"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_beyond_loopback_a_key_is_needed_to_start(host):
    with pytest.raises(OptionError, match="anybody could ask"):
        ServeOptions(llm_path="x", host=host).check()
    ServeOptions(llm_path="x", host=host, api_key=["k"]).check()
    ServeOptions(llm_path="x", host="127.0.0.1").check()


@pytest.mark.parametrize("name", ["max_concurrency", "timeout", "cache_bytes"])
def test_limits_are_above_zero(name):
    with pytest.raises(OptionError, match="is above 0"):
        ServeOptions(llm_path="x", **{name: 0}).check()


def test_a_request_that_is_too_large_is_refused(small):
    body = json.dumps({"model": "base-tiny", "messages": CHAT, "user": "x" * 2000}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(small.url, body)
    assert caught.value.code == 413
    assert json.load(caught.value)["error"]["code"] == "request_too_large"


def test_so_is_one_that_does_not_say_its_size(small):
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        raw.sendall(b"fff\r\n" + b"x" * 0xFFF + b"\r\n")
        assert b" 413 " in raw.recv(4096)


def test_an_answer_that_takes_too_long_is_given_up(asker):
    with pytest.raises(openai.APIStatusError) as caught:
        asker.chat.completions.create(
            model="base-tiny", messages=CHAT, max_tokens=LONG, temperature=0
        )
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")


def test_a_stream_that_takes_too_long_says_so(asker):
    stream = asker.chat.completions.create(
        model="base-tiny", messages=CHAT, max_tokens=LONG, temperature=0, stream=True
    )
    with pytest.raises(openai.APIError, match="no whole answer after"):
        list(stream)


def test_one_answer_too_many_is_told_to_come_again(asker):
    with pytest.raises(openai.RateLimitError) as caught:
        asker.chat.completions.create(model="base-tiny", messages=CHAT, n=3)
    assert caught.value.response.headers["retry-after"] == "1"
    # And the places of those that were given up are free again.
    asker.chat.completions.create(model="base-tiny", messages=CHAT, n=2, max_tokens=1)


def test_no_episode_without_capture(asker, small):
    with pytest.raises(openai.BadRequestError, match="--capture ROOT"):
        asker.chat.completions.create(
            model="base-tiny", messages=CHAT, extra_headers={"x-simtune-episode": "e"}
        )


def test_unknown_routes_are_refused_in_the_same_shape(small):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{small.url}/v2")
    assert json.load(caught.value)["error"]["code"] == "no_route"
