"""The official OpenAI client against a real `simtune serve`."""

import openai
import pytest
import torch

from simtune.policy.local import load_base
from simtune.registry import Registry
from simtune.serving.beside import beside

CHAT = [{"role": "user", "content": "5 buyers. Your price, 1 to 9?"}]
IDS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def records(models_dir):
    return Registry(models_dir).list()


@pytest.fixture(scope="module")
def models(base_dir, models_dir, records):
    """Content hash -> the model in this process."""
    base, _ = load_base(base_dir)
    found = {"base": base}
    for record in records:
        found[record.weights_sha256] = beside(base, models_dir / record.path)
    return found


@torch.inference_mode()
def fresh(model, prompt, answer, temperature=1.0):
    scores = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    scores = (scores / temperature).log_softmax(-1)
    return scores.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()


def ask(client, model="base-tiny", messages=CHAT, **more):
    return client.chat.completions.create(model=model, messages=messages, **more)


def logprobs_of(choice):
    return [entry.logprob for entry in choice.logprobs.content]


def test_base_adapters_and_aliases_are_listed(client, records):
    listed = {model.id: model.adapter for model in client.models.list()}
    assert listed == {
        "base-tiny": None,
        "champion": None,
        "latest": records[-1].weights_sha256,
        **{record.id: record.weights_sha256 for record in records},
    }
    assert client.models.retrieve("latest").owned_by == "simtune"


def test_a_chat_is_answered_with_tokens_and_their_log_probabilities(client, models, records):
    for name, adapter in [("base-tiny", "base"), *((r.id, r.weights_sha256) for r in records)]:
        answer = ask(
            client, name, max_tokens=7, logprobs=True, temperature=0.7, seed=3, extra_body=IDS
        )
        (choice,) = answer.choices
        assert answer.system_fingerprint == adapter
        assert answer.model == name
        assert logprobs_of(choice) == pytest.approx(
            fresh(models[adapter], answer.prompt_token_ids, choice.token_ids, 0.7), abs=1e-4
        )
        assert answer.usage.completion_tokens == len(choice.token_ids) == 7
        assert answer.usage.prompt_tokens == len(answer.prompt_token_ids)
        assert choice.finish_reason == "length"
        spelt = bytes(byte for entry in choice.logprobs.content for byte in entry.bytes)
        assert spelt.decode(errors="replace") == choice.message.content


def test_the_header_names_the_adapter(client, records):
    said = client.chat.completions.with_raw_response.create(
        model="latest", messages=CHAT, max_tokens=1
    )
    assert said.headers["x-simtune-adapter"] == records[-1].weights_sha256
    assert said.headers["x-simtune-model"] == records[-1].id
    assert said.parse().adapter == records[-1].weights_sha256


def test_a_stream_is_the_same_answer_in_pieces(client, records):
    how = {"max_tokens": 12, "seed": 5, "logprobs": True, "top_logprobs": 2, "extra_body": IDS}
    whole = ask(client, "latest", **how)
    usage = {"include_usage": True}
    chunks = list(ask(client, "latest", stream=True, stream_options=usage, **how))
    *pieces, counted = chunks
    deltas = [chunk.choices[0] for chunk in pieces]
    assert "".join(each.delta.content or "" for each in deltas) == whole.choices[0].message.content
    ids = [one for each in deltas for one in getattr(each, "token_ids", None) or ()]
    assert ids == whole.choices[0].token_ids
    told = [entry for each in deltas if each.logprobs for entry in each.logprobs.content]
    assert [entry.logprob for entry in told] == pytest.approx(
        logprobs_of(whole.choices[0]), abs=1e-4
    )
    assert all(len(entry.top_logprobs) == 2 for entry in told)
    assert pieces[0].prompt_token_ids == whole.prompt_token_ids
    assert [each.finish_reason for each in deltas[-2:]] == [None, "length"]
    assert pieces[-1].adapter == records[-1].weights_sha256
    assert counted.usage.completion_tokens == 12
    assert counted.choices == []


def test_temperature_zero_takes_the_most_probable_token(client):
    answer = ask(client, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
    for entry in answer.choices[0].logprobs.content:
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob


def test_several_answers_differ_and_the_seed_says_how(client):
    first, second = (ask(client, n=3, seed=1, max_tokens=8) for _ in range(2))
    said = [choice.message.content for choice in first.choices]
    assert said == [choice.message.content for choice in second.choices]
    assert len(set(said)) == 3
    assert first.usage.completion_tokens == 24


def test_an_answer_ends_before_a_stop_text(client):
    whole = ask(client, seed=2, max_tokens=24).choices[0].message.content
    stop = next(letter for letter in whole[3:] if letter.isascii() and letter.isprintable())
    cut = ask(client, seed=2, max_tokens=24, stop=[stop])
    assert cut.choices[0].message.content == whole.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"
    streamed = ask(client, seed=2, max_tokens=24, stop=stop, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed]
    assert "".join(pieces) == whole.partition(stop)[0]


def test_options_are_chosen_among(client, models):
    options = ["left", "right up", "down"]
    answer = ask(client, temperature=0.5, extra_body={"choices": options, **IDS})
    (choice,) = answer.choices
    assert choice.message.content in options
    scores = [
        sum(fresh(models["base"], answer.prompt_token_ids, ids)) for ids in choice.choice_token_ids
    ]
    policy = (torch.tensor(scores) / 0.5).log_softmax(-1)
    assert choice.choice_logprobs == pytest.approx(policy.tolist(), abs=1e-4)
    assert choice.token_ids == choice.choice_token_ids[options.index(choice.message.content)]


def test_texts_are_completed(client, models):
    how = {"max_tokens": 3, "logprobs": 2, "n": 2, "extra_body": IDS}
    answer = client.completions.create(model="base-tiny", prompt="5 buyers", **how)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.logprobs.token_logprobs == pytest.approx(
            fresh(models["base"], choice.prompt_token_ids, choice.token_ids), abs=1e-4
        )
        assert len(choice.logprobs.top_logprobs) == len(choice.token_ids)
    by_ids = client.completions.create(
        model="base-tiny", prompt=answer.choices[0].prompt_token_ids, max_tokens=3, temperature=0
    )
    by_text = client.completions.create(
        model="base-tiny", prompt="5 buyers", max_tokens=3, temperature=0, stream=True
    )
    assert by_ids.choices[0].text == "".join(
        chunk.choices[0].text for chunk in by_text if chunk.choices
    )


def test_a_chat_that_goes_on_begins_with_the_very_tokens_that_were_sampled(client):
    """The texts of random tokens would encode to others."""
    chat, before = list(CHAT), []
    for turn in range(3):
        answer = ask(client, messages=chat, max_tokens=9, seed=turn, extra_body=IDS)
        assert answer.prompt_token_ids[: len(before)] == before
        before = answer.prompt_token_ids + answer.choices[0].token_ids
        chat.append({"role": "assistant", "content": answer.choices[0].message.content})
        chat.append({"role": "user", "content": "left"})
    assert answer.usage.prompt_tokens_details.cached_tokens > 0.8 * len(answer.prompt_token_ids)


@pytest.mark.parametrize(
    ("more", "error", "code", "says"),
    [
        (
            {"model": "nope"},
            openai.NotFoundError,
            "model_not_found",
            "there are: base-tiny, champion, latest",
        ),
        ({"top_p": 0.5}, openai.BadRequestError, "unsupported_value", "full distribution"),
        ({"extra_body": {"foo": 1}}, openai.BadRequestError, "unknown_parameter", "'foo'"),
        ({"max_tokens": 5000}, openai.BadRequestError, "context_length_exceeded", "2048 tokens"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "empty"),
        (
            {"messages": [{"role": "judge", "content": "x"}]},
            openai.BadRequestError,
            "invalid_value",
            "a role is one of",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            openai.BadRequestError,
            "invalid_value",
            "only text",
        ),
        (
            {"extra_body": {"choices": ["left", "left"]}},
            openai.BadRequestError,
            "invalid_value",
            "cannot be chosen among",
        ),
        (
            {"messages": [{"role": "user", "content": "left " * 3000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "the prompt has",
        ),
    ],
)
def test_bad_input_raises_the_clients_own_error(client, more, error, code, says):
    with pytest.raises(error) as caught:
        ask(client, **more)
    assert caught.value.code == code
    assert says in caught.value.body["message"]


def test_a_client_that_leaves_frees_its_place(client, server):
    import time
    import urllib.request

    stream = ask(client, stream=True, max_tokens=1500)
    next(iter(stream))
    stream.close()
    for _ in range(100):
        text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        if "\nsimtune_in_flight 0\n" in text:
            break
        time.sleep(0.05)
    assert "\nsimtune_in_flight 0\n" in text
    assert 'finish="cancelled"} 1\n' in text


def test_metrics_count(client, server):
    import urllib.request

    def counted(name):
        text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = counted("simtune_sampled_tokens_total")
    ask(client, max_tokens=5)
    assert counted("simtune_sampled_tokens_total") == before + 5
    assert counted("simtune_answer_seconds_count") > 0
