"""A simulation in any language: served answers are decisions of the episodes that it names."""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

import simtune
from simtune.errors import DataError

CHAT = [{"role": "user", "content": "5 buyers. Your price, 1 to 9?"}]
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def post(server, path, body):
    request = urllib.request.Request(
        f"{server.url}/v1/simtune/{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def refusal(server, path, body):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, path, body)
    return caught.value.code, json.load(caught.value)["error"]["code"]


def test_an_episode_with_rewards_and_an_end(client, server, store, models_dir):
    begun = post(
        server,
        "episodes",
        {"episode": "market-1", "env": "market", "seed": 7, "metadata": {"k": 1}},
    )
    assert begun == {"episode": "market-1"}
    said = client.chat.completions.with_raw_response.create(
        model="latest",
        messages=CHAT,
        max_tokens=4,
        temperature=0.7,
        logprobs=True,
        metadata={"simtune_agent": "seller", "simtune_action": "price", "shop": "north"},
        extra_body={"return_token_ids": True},
        extra_headers={"x-simtune-episode": "market-1"},
    )
    first = said.parse()
    assert said.headers["x-simtune-decision"] == first.decision
    assert said.headers["x-simtune-episode"] == "market-1"
    post(server, "episodes/market-1/reward", {"reward": 2.0})
    stream = client.chat.completions.create(
        model="base-tiny",
        messages=CHAT,
        extra_body={"choices": ["left", "down"]},
        metadata={"simtune_episode": "market-1"},
        stream=True,
    )
    second = list(stream)[-1]
    post(server, "episodes/market-1/reward", {"reward": -1.0, "decision": first.decision})
    post(server, "episodes/market-1/reward", {"reward": 0.5})
    post(
        server,
        "episodes/market-1/finish",
        {"terminated": True, "outcome": {"success": True}, "final_messages": CHAT},
    )
    post(server, "episodes/market-1/reward", {"reward": 4.0, "decision": second.decision})

    episode = wait_for(store, "market-1", decisions=2)
    assert (episode.env, episode.metadata["seed"], episode.metadata["k"]) == ("market", 7, 1)
    assert episode.terminated and episode.outcome == {"success": True}
    assert episode.final_prompt == CHAT
    price, move = episode.decisions
    assert (price.agent_id, price.action, price.metadata) == ("seller", "price", {"shop": "north"})
    assert price.prompt == CHAT
    assert price.response == first.choices[0].message.content
    assert price.prompt_token_ids == first.prompt_token_ids
    assert price.token_ids == first.choices[0].token_ids
    told = [entry.logprob for entry in first.choices[0].logprobs.content]
    assert price.logprobs == pytest.approx(told)
    assert price.sampling == {"temperature": 0.7, "max_tokens": 4}
    assert price.adapter == first.adapter
    assert price.reward == 1.0
    assert (move.response, move.choices) == (second_text(move), ["left", "down"])
    assert move.sampling["decision"] == "choose"
    assert move.sampling["choice_token_ids"][move.choices.index(move.response)] == move.token_ids
    assert move.adapter is None
    assert move.reward == 4.5


def second_text(move):
    return "left" if move.token_ids == move.sampling["choice_token_ids"][0] else "down"


def wait_for(store, episode_id, *, decisions, ended=True):
    """The episode, once the server's log has been read that far."""
    for _ in range(200):
        with contextlib.suppress(DataError):
            found = {one.episode_id: one for one in simtune.read(store).episodes()}.get(episode_id)
            if found and found.ended == ended and len(found.decisions) == decisions:
                return found
        time.sleep(0.05)
    raise AssertionError(f"{episode_id} did not come")


def test_what_an_episode_refuses(client, server):
    post(server, "episodes", {"episode": "twice"})
    assert refusal(server, "episodes", {"episode": "twice"}) == (409, "episode_exists")
    assert refusal(server, "episodes/twice/reward", {"reward": 1}) == (409, "no_decision")
    assert refusal(server, "episodes/never/reward", {"reward": 1}) == (404, "episode_not_found")
    assert refusal(server, "episodes/never/finish", {}) == (404, "episode_not_found")
    assert refusal(server, "episodes/twice/reward", {"reward": "x"}) == (400, "invalid_type")
    assert refusal(server, "episodes", {"episode": "../x"}) == (400, "invalid_value")
    assert refusal(server, "episodes/twice/finish", {"won": 1}) == (400, "unknown_parameter")
    post(server, "episodes/twice/finish", {"truncated": True})
    assert refusal(server, "episodes/twice/finish", {}) == (404, "episode_not_found")
    with pytest.raises(openai.ConflictError, match="is finished"):
        client.chat.completions.create(
            model="base-tiny", messages=CHAT, metadata={"simtune_episode": "twice"}
        )
    with pytest.raises(openai.BadRequestError, match="simtune_agnet"):
        client.chat.completions.create(
            model="base-tiny", messages=CHAT, metadata={"simtune_agnet": "x"}
        )


def test_a_stream_that_is_left_keeps_what_was_taken(client, store):
    stream = client.chat.completions.create(
        model="base-tiny",
        messages=CHAT,
        max_tokens=1500,
        temperature=0,
        stream=True,
        extra_headers={"x-simtune-episode": "left-early"},
    )
    taken = 0
    for chunk in stream:
        taken += bool(chunk.choices[0].delta.content)
        if taken == 3:
            break
    stream.close()
    (decision,) = wait_for(store, "left-early", decisions=1, ended=False).decisions
    assert decision.extra["closed_early"] is True
    assert 3 <= len(decision.token_ids) == len(decision.logprobs) < 1500
    assert decision.valid


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_shell_simulation_of_the_page_works(server, store, tmp_path):
    script = re.search(r"```sh\n(#!.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1]
    program = tmp_path / "simulation.sh"
    program.write_text(script)
    done = subprocess.run(
        ["sh", str(program), f"{server.url}/v1", "base-tiny"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (episode_id,) = re.findall(r"episode (\S+)", done.stdout)
    episode = wait_for(store, episode_id, decisions=3)
    assert [decision.reward for decision in episode.decisions] == [1.0, 1.0, 1.0]
    assert episode.env == "shell"
