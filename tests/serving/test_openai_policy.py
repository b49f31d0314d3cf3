"""A policy behind an endpoint is asked like one in this process."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simtune.errors import OptionError, PolicyError
from simtune.gym import rollout
from simtune.policy.local import LocalPolicy
from simtune.policy.openai import OpenAIPolicy

CHAT = [{"role": "user", "content": "5 buyers. Your price, 1 to 9?"}]


@pytest.fixture
def policy_of(server):
    made = []

    def make(**settings):
        made.append(
            OpenAIPolicy(f"{server.url}/v1", settings.pop("model", "base-tiny"), **settings)
        )
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def test_a_served_answer_is_that_of_the_model_here(policy_of, base_dir):
    here = LocalPolicy.load(base_dir, greedy=True, max_new_tokens=6).act([CHAT])[0]
    there = policy_of(greedy=True, max_new_tokens=6).act([CHAT])[0]
    assert there == here
    assert there.prompt_token_ids == here.prompt_token_ids
    assert there.token_ids == here.token_ids
    assert there.logprobs == pytest.approx(here.logprobs, abs=1e-4)
    assert there.sampling == {"temperature": 0.0, "max_tokens": 6}


def test_many_are_asked_at_a_time_and_answered_in_order(policy_of):
    policy = policy_of(seed=3, max_new_tokens=5)
    prompts = [[{"role": "user", "content": f"{at} buyers"}] for at in range(20)]
    first = policy.act(prompts)
    again = policy_of(seed=3, max_new_tokens=5).act(prompts)
    assert [reply.token_ids for reply in again] == [reply.token_ids for reply in first]
    assert len({reply.prompt_token_ids for reply in first}) == 20


def test_the_adapter_that_answered_is_named(policy_of, models_dir):
    from simtune.registry import Registry

    reply = policy_of(model="latest", max_new_tokens=2)(CHAT)
    assert reply.adapter == Registry(models_dir).list()[-1].weights_sha256


def test_it_chooses_among_options(policy_of):
    policy = policy_of(decision="choose", temperature=0.5)
    reply = policy(CHAT, choices=["left", "right up"])
    assert reply in ("left", "right up")
    assert reply.choices == ("left", "right up")
    assert len(reply.choice_logprobs) == 2
    assert reply.sampling["choice_token_ids"][reply.choices.index(reply)] == list(reply.token_ids)
    with pytest.raises(OptionError, match="not given the options"):
        policy(CHAT)


def test_it_plays_an_environment(policy_of, tmp_path):
    policy = policy_of(decision="choose", seed=1)
    played = rollout("FrozenLake-v1", policy, episodes=4, num_envs=4, root=tmp_path / "store")
    assert len(played) == 4
    assert all(decision.valid for episode in played for decision in episode.decisions)


@pytest.fixture
def pretended():
    """An endpoint that answers what it is told to, one after another."""
    answers, heard = [], []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, body = answers.pop(0)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            if status == 429:
                self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", answers, heard
        server.shutdown()


def completion(**choice):
    message = {"role": "assistant", "content": "7"}
    whole = {"index": 0, "finish_reason": "stop", "message": message, **choice}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [whole]}


def test_a_refusal_for_now_is_tried_again(pretended):
    url, answers, heard = pretended
    answers += [(429, {}), (503, {}), (200, completion())]
    policy = OpenAIPolicy(url, "m", token_ids=False)
    reply = policy(CHAT)
    assert (reply, reply.token_ids, reply.logprobs, reply.model) == ("7", (), (), "m")
    assert len(heard) == 3
    assert "logprobs" not in heard[0] and "return_token_ids" not in heard[0]
    policy.close()


def test_log_probabilities_without_ids_are_left_out(pretended):
    """They belong to no token that could be trained on."""
    url, answers, _ = pretended
    entry = {"token": "7", "logprob": -0.1, "bytes": [55], "top_logprobs": []}
    answers.append((200, completion(logprobs={"content": [entry], "refusal": None})))
    policy = OpenAIPolicy(url, "m")
    assert policy(CHAT).logprobs == ()
    policy.close()


def test_ids_in_vllms_places_are_found(pretended):
    url, answers, _ = pretended
    entry = {"token": "7", "logprob": -0.1, "bytes": [55], "top_logprobs": []}
    body = completion(logprobs={"content": [entry], "refusal": None}, token_ids=[9])
    answers.append((200, {**body, "prompt_token_ids": [1, 2]}))
    policy = OpenAIPolicy(url, "m")
    reply = policy(CHAT)
    assert (reply.prompt_token_ids, reply.token_ids, reply.logprobs) == ((1, 2), (9,), (-0.1,))
    policy.close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"error": {"message": "return_token_ids?"}}, "token_ids=False"),
        (401, {"error": {"message": "who?"}}, "who"),
        (200, {**completion(), "choices": []}, "without choices"),
    ],
)
def test_what_goes_wrong_is_said(pretended, status, body, says):
    url, answers, _ = pretended
    answers.append((status, body))
    policy = OpenAIPolicy(url, "m", retries=0)
    with pytest.raises(PolicyError, match=says):
        policy(CHAT)
    policy.close()


def test_an_endpoint_that_is_not_there_is_said():
    policy = OpenAIPolicy("http://127.0.0.1:9/v1", "m", retries=0)
    with pytest.raises(PolicyError, match="does not answer"):
        policy(CHAT)
    policy.close()
