"""Adapters are swapped while callers ask: nobody is dropped, and no cache is stale."""

import asyncio
import random
import signal
import threading
import time

import openai
import pytest
import torch

import simtune
from simtune.policy.local import load_base
from simtune.registry import Registry
from simtune.serving.beside import beside

CHAT = [{"role": "user", "content": "5 buyers. Your price, 1 to 9?"}]


async def callers(url, count, seconds):
    """Chats that go on turn by turn, with whatever is latest; returns all answers."""
    found = []
    until = time.monotonic() + seconds

    async def one(client, chance):
        while time.monotonic() < until:
            chat = [{"role": "user", "content": "left right " * chance.randrange(1, 30)}]
            for _ in range(3):
                how = {"max_tokens": chance.randrange(1, 24), "logprobs": True, "temperature": 0.9}
                stream = chance.random() < 0.5
                answer = await client.chat.completions.create(
                    model="latest",
                    messages=chat,
                    stream=stream,
                    extra_body={"return_token_ids": True},
                    **how,
                )
                if stream:
                    told = await joined(answer)
                else:
                    choice = answer.choices[0]
                    told = {
                        "adapter": answer.adapter,
                        "prompt": answer.prompt_token_ids,
                        "ids": choice.token_ids,
                        "logprobs": [entry.logprob for entry in choice.logprobs.content],
                        "text": choice.message.content,
                    }
                found.append(told)
                chat += [
                    {"role": "assistant", "content": told["text"]},
                    {"role": "user", "content": "down"},
                ]

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        await asyncio.gather(*(one(client, random.Random(at)) for at in range(count)))
    return found


async def joined(stream):
    told = {"prompt": None, "ids": [], "logprobs": [], "text": "", "adapters": set()}
    async for chunk in stream:
        told["adapters"].add(chunk.adapter)
        told["prompt"] = told["prompt"] or getattr(chunk, "prompt_token_ids", None)
        for choice in chunk.choices:
            told["text"] += choice.delta.content or ""
            told["ids"] += getattr(choice, "token_ids", None) or ()
            told["logprobs"] += (
                [e.logprob for e in choice.logprobs.content] if choice.logprobs else []
            )
    (told["adapter"],) = told["adapters"]
    return told


def swap_while_asked(url, register, models_dir, *, count, seconds, every):
    """Ask while a new adapter is registered again and again; returns (answers, records)."""
    ended = threading.Event()

    def keep_swapping():
        seed = 100
        while not ended.wait(every):
            seed += 1
            register(models_dir, seed)

    swapping = threading.Thread(target=keep_swapping)
    swapping.start()
    try:
        answers = asyncio.run(callers(url, count, seconds))
    finally:
        ended.set()
        swapping.join()
    return answers, Registry(models_dir).list()


@torch.inference_mode()
def check(answers, records, base_dir, models_dir, most):
    """Each answer's log-probabilities are those of a fresh pass with the adapter it names."""
    base, _ = load_base(base_dir)
    by_adapter = {}
    for answer in answers:
        by_adapter.setdefault(answer["adapter"], []).append(answer)
    known = {record.weights_sha256: record for record in records}
    for adapter, some in by_adapter.items():
        model = beside(base, models_dir / known[adapter].path)
        # The latest ones went through most of the cache; the first ones came with the swap.
        for answer in [*some[:most], *some[-most:]]:
            whole = torch.tensor([[*answer["prompt"], *answer["ids"]]])
            scores = model(whole).logits[0, len(answer["prompt"]) - 1 : -1] / 0.9
            fresh = scores.log_softmax(-1).gather(1, torch.tensor(answer["ids"])[:, None])[:, 0]
            assert answer["logprobs"] == pytest.approx(fresh.tolist(), abs=2e-4)
    return list(by_adapter)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory, register, serve):
    models_dir = tmp_path_factory.mktemp("swapped")
    register(models_dir, 100)
    store = tmp_path_factory.mktemp("swapped-store")
    server = serve(
        "--models-dir", models_dir, "--capture", store, "--max-adapters", 3, "--poll", 0.2
    )
    return server, models_dir, store


def test_adapters_swap_while_callers_ask(swapped, register, base_dir):
    server, models_dir, _ = swapped
    answers, records = swap_while_asked(
        server.url, register, models_dir, count=16, seconds=5, every=1
    )
    seen = check(answers, records, base_dir, models_dir, most=3)
    assert len(seen) >= 3
    assert len(answers) > 50


def test_what_is_in_flight_is_finished_before_the_end(swapped):
    server, _, store = swapped
    found = []

    def long_answer():
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="base-tiny", messages=CHAT, max_tokens=300, temperature=0, stream=True
            )
            for chunk in stream:
                found.append(chunk)

    asking = threading.Thread(target=long_answer)
    asking.start()
    while not found:
        time.sleep(0.01)
    assert server.stop(signal.SIGTERM) == 0
    asking.join(20)
    assert found[-1].choices[0].finish_reason == "length"
    decisions = simtune.read(store).decisions()
    (row,) = [row for row in decisions.to_pylist() if row["decision_id"] == found[-1].decision]
    assert len(row["token_ids"]) == 300
    hashes = {record.weights_sha256 for record in Registry(swapped[1]).list()}
    assert {row["adapter"] for row in decisions.to_pylist()} - {None} <= hashes


@pytest.mark.slow
def test_sixty_four_callers_for_two_minutes(tmp_path, register, serve, base_dir):
    register(tmp_path, 100)
    server = serve("--models-dir", tmp_path, "--max-adapters", 3, "--max-concurrency", 64)
    answers, records = swap_while_asked(
        server.url, register, tmp_path, count=64, seconds=120, every=3
    )
    seen = check(answers, records, base_dir, tmp_path, most=5)
    assert len(seen) >= 20
    assert len(answers) > 1000
    assert server.stop() == 0
    assert not server.errors
