"""Whatever comes together, every answer is what the model alone would have said."""

import random

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from simtune.serving.asks import Ask, Wanted
from simtune.serving.lane import CHUNK, Lane

VOCABULARY = 200
PLENTY = 2**26


def llama(attention="sdpa"):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None
    )
    return GPT2LMHeadModel(config).eval()


def lane_of(model, *, ends=(), limit=6, budget=PLENTY):
    return Lane(model, adapter=None, ends=frozenset(ends), pad_id=0, limit=limit, budget=budget)


def tokens(count, seed=0):
    return random.Random(seed).choices(range(4, VOCABULARY), k=count)


@torch.inference_mode()
def run(lane, *asks):
    lane.waiting.extend(asks)
    while lane.busy:
        lane.step()


@torch.inference_mode()
def fresh(model, prompt, answer, temperature=1.0):
    """Log-probabilities of an answer in one plain pass."""
    whole = torch.tensor([[*prompt, *answer]])
    scores = (model(whole).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return scores.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()


def check(model, ask):
    heat = ask.wanted.temperature or 1.0
    if ask.wanted.options is None:
        assert ask.logprobs == pytest.approx(
            fresh(model, ask.prompt, ask.token_ids, heat), abs=1e-4
        )
    else:
        scores = [sum(fresh(model, ask.prompt, list(each))) for each in ask.wanted.options]
        policy = (torch.tensor(scores) / heat).log_softmax(-1)
        assert ask.choice_logprobs == pytest.approx(policy.tolist(), abs=1e-4)


@pytest.mark.parametrize("budget", [60_000, PLENTY], ids=["little cache", "plenty"])
@pytest.mark.parametrize(
    "make", [llama, lambda: llama("eager"), gpt2], ids=["sdpa", "eager", "gpt2"]
)
def test_answers_of_a_crowd_are_those_of_the_model_alone(make, budget):
    model = make()
    lane, chance = lane_of(model, ends=[3], budget=budget), random.Random(1)
    asks, given_up = [], []
    with torch.inference_mode():
        while len(asks) < 40 or lane.busy:
            if len(asks) < 40 and chance.random() < 0.6:
                earlier = [ask for ask in asks if ask.finish in ("stop", "length")]
                if earlier and chance.random() < 0.6:  # a chat goes on, or forks
                    last = chance.choice(earlier[-8:])
                    prompt = [*last.prompt, *last.token_ids, *tokens(chance.randrange(1, 9))][:300]
                else:
                    prompt = tokens(chance.choice([1, 20, 90]), seed=chance.random())
                wanted = Wanted(
                    max_tokens=chance.randrange(1, 12),
                    temperature=chance.choice([0, 0.7, 1.0]),
                    seed=chance.choice([None, 4]),
                    options=chance.choice([None, None, None, ((5,), (6, 7), (8, 9, 10))]),
                )
                asks.append(Ask(prompt, wanted))
                lane.waiting.append(asks[-1])
            lane.step()
            if chance.random() < 0.05 and asks[-1].finish is None:
                asks[-1].cancelled = True
                given_up.append(asks[-1])
    assert {ask.finish for ask in asks} <= {"stop", "length", "cancelled", None}
    assert all(ask in given_up for ask in asks if ask.finish in ("cancelled", None))
    for ask in asks:
        if ask not in given_up:
            check(model, ask)


def test_who_comes_later_joins_at_the_next_token():
    lane = lane_of(llama())
    first, second = (Ask(tokens(9, seed=at), Wanted(max_tokens=12)) for at in range(2))
    with torch.inference_mode():
        lane.waiting.append(first)
        for _ in range(4):
            lane.step()
        lane.waiting.append(second)
        lane.step()
    assert (len(first.token_ids), len(second.token_ids)) == (6, 2)


def test_a_chat_that_goes_on_computes_only_what_is_new():
    model = llama()
    lane = lane_of(model)
    first = Ask(tokens(50), Wanted(max_tokens=8))
    run(lane, first, Ask(tokens(40, seed=5), Wanted(max_tokens=3)))
    more = Ask([*first.prompt, *first.token_ids, *tokens(4, seed=2)], Wanted(max_tokens=8))
    run(lane, more)
    assert more.reused == 50 + 8 - 1  # the last token that was sampled was not computed yet
    check(model, more)


def test_a_beginning_that_callers_share_is_computed_once():
    model = llama()
    lane = lane_of(model, limit=8)
    beginning = tokens(120)
    asks = [Ask([*beginning, *tokens(5, seed=at)], Wanted(max_tokens=4)) for at in range(8)]
    run(lane, *asks)
    assert sorted(ask.reused for ask in asks) == [0] + [120] * 7
    for ask in asks:
        check(model, ask)


def test_a_long_prompt_lets_others_go_on():
    lane = lane_of(llama())
    short, long = Ask(tokens(5), Wanted(max_tokens=9)), Ask(tokens(3 * CHUNK), Wanted(max_tokens=1))
    with torch.inference_mode():
        lane.waiting.append(short)
        lane.step()
        lane.waiting.append(long)
        while long.finish is None:
            lane.step()
    assert len(short.token_ids) == 5  # two with its prompt, and one beside each part of the other


def test_the_same_seed_draws_the_same_answer_in_any_company():
    model = llama()
    alone = Ask(tokens(20), Wanted(max_tokens=10, seed=7))
    run(lane_of(model), alone)
    crowd = [Ask(tokens(9 * at, seed=at), Wanted(max_tokens=10)) for at in range(1, 5)]
    again = Ask(tokens(20), Wanted(max_tokens=10, seed=7))
    run(lane_of(model), *crowd, again)
    assert again.token_ids == alone.token_ids


def test_the_most_probable_tokens_are_told():
    model = llama()
    ask = Ask(tokens(9), Wanted(max_tokens=2, temperature=0, alternatives=3))
    run(lane_of(model), ask)
    with torch.inference_mode():
        scores = model(torch.tensor([ask.prompt])).logits[0, -1].log_softmax(-1)
    top = scores.topk(3)
    assert [token for token, _ in ask.alternatives[0]] == top.indices.tolist()
    assert [told for _, told in ask.alternatives[0]] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert ask.token_ids[0] == ask.alternatives[0][0][0]


def test_the_cache_stays_within_its_budget():
    model = llama()
    one_token = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width of a head, bytes
    budget = 600 * one_token
    lane = lane_of(model, limit=8, budget=budget)
    asks = [Ask(tokens(30, seed=at), Wanted(max_tokens=3)) for at in range(20)]
    largest = 0
    lane.waiting.extend(asks)
    with torch.inference_mode():
        while lane.busy:
            lane.step()
            largest = max(largest, lane.cache_bytes)
    assert 0 < largest <= budget
    for ask in asks:
        check(model, ask)


def test_weights_that_are_not_finite_fail_their_answers_only():
    """What the engine does when a step raises: the lane forgets everything and can go on."""
    model = llama()
    lane = lane_of(model)
    lost = Ask(tokens(5), Wanted(max_tokens=3))
    lane.waiting.append(lost)
    assert lane.fail("out of memory") == [lost]
    assert (lost.finish, lost.error) == ("failed", "out of memory")
    ask = Ask(tokens(5), Wanted(max_tokens=3))
    run(lane, ask)
    check(model, ask)
