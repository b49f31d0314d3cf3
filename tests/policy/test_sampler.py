"""A kept cache changes what is computed, never what comes out."""

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from simtune.policy import sampler as sampler_module
from simtune.policy import weights as weights_module
from simtune.policy.generation import Settings, sample
from simtune.policy.local import quiet
from simtune.policy.sampler import Sampler
from simtune.policy.slots import fits

EOS = 1


def llama(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": 0,
    }
    return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=EOS
    )
    return GPT2LMHeadModel(config).eval()


def eager():
    model = llama()
    model.set_attn_implementation("eager")
    return model


def with_lora():
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_dropout=0.1)
    with quiet():
        model = get_peft_model(llama(), config)
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    return model.eval()


def drawing(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    settings = {"max_new_tokens": 5, "temperature": 0.7, "generator": generator}
    return Settings(**({"eos_ids": frozenset([EOS])} | settings | changes))


def fresh_logprobs(model, prompt, answer, temperature=0.7):
    with torch.no_grad():
        scores = (model(torch.tensor([[*prompt, *answer]])).logits[0] / temperature).log_softmax(-1)
    return [scores[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer)]


def turns(sampler, prompts, count, seed=0):
    """Play a chat of growing prompts; gives each turn's (prompts, answers)."""
    settings = drawing(seed)
    for turn in range(count):
        answers = sampler.sample(prompts, settings)
        yield prompts, answers
        prompts = [
            [*prompt, *answer.token_ids, *range(2, 3 + (turn + place) % 4)]
            for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]


PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, 6, 7], [20, 21]]


@pytest.mark.parametrize("make", [llama, gpt2, eager, with_lora])
def test_growing_chats_have_the_log_probabilities_of_a_fresh_full_pass(make):
    model = make()
    for prompts, answers in turns(Sampler(model, pad_id=0), PROMPTS, 5):
        for prompt, answer in zip(prompts, answers, strict=True):
            expected = fresh_logprobs(model, prompt, answer.token_ids)
            assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_only_what_is_new_is_computed():
    model = llama()
    sampler = Sampler(model, pad_id=0)
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    settings = drawing(eos_ids=frozenset(), max_new_tokens=3)
    first = [[5] * 30, [6] * 30]
    answers = sampler.sample(first, settings)
    assert seen == [(2, 30), (2, 1), (2, 1)]
    seen.clear()
    second = [[*prompt, *a.token_ids, 7, 8] for prompt, a in zip(first, answers, strict=True)]
    sampler.sample(second, settings)
    # The last sampled token was never computed, so it is with the two new ones.
    assert seen == [(2, 3), (2, 1), (2, 1)]
    seen.clear()
    # Equal prompts once, and only what differs from a row's own prompt; the last token always.
    sampler.sample([first[0]] * 2, settings)
    assert seen[0] == (1, 1)


def test_rows_that_come_go_and_change_places_stay_exact():
    model = llama()
    sampler = Sampler(model, pad_id=0)
    settings = drawing()
    (_, answers), *_ = turns(sampler, PROMPTS, 1)
    grown = [[*p, *a.token_ids, 3] for p, a in zip(PROMPTS, answers, strict=True)]
    for prompts in (
        [grown[4], [30, 31], grown[2]],
        [grown[4] + [9], grown[1]],
        [*grown, [33] * 70],
    ):
        for prompt, answer in zip(prompts, sampler.sample(prompts, settings), strict=True):
            expected = fresh_logprobs(model, prompt, answer.token_ids)
            assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_answers_that_end_leave_the_others_exact():
    model = llama(initializer_range=0.5)
    prompts = [[place] for place in range(2, 18)]
    answers = Sampler(model, pad_id=0).sample(prompts, drawing(seed=4, max_new_tokens=12))
    assert len({len(answer.token_ids) for answer in answers}) > 2
    for prompt, answer in zip(prompts, answers, strict=True):
        assert (EOS in answer.token_ids) == (answer.token_ids[-1] == EOS)
        assert answer.token_ids[-1] == EOS or len(answer.token_ids) == 12
        expected = fresh_logprobs(model, prompt, answer.token_ids)
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_kept_cache_and_the_model_s_own_draw_the_same():
    model = llama()
    ours = Sampler(model, pad_id=0).sample(PROMPTS, drawing(greedy=True))
    theirs = sample(model, PROMPTS, drawing(greedy=True), pad_id=0)
    assert [a.token_ids for a in ours] == [a.token_ids for a in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_what_is_remembered_does_not_outlive_the_weights():
    """After a swap or a step the same prompt has other log-probabilities, and the right ones."""
    model = with_lora()
    sampler = Sampler(model, pad_id=0)
    prompt = [[5, 6, 7, 8]]

    def logprob():
        (answer,) = sampler.sample(prompt, drawing(greedy=True, max_new_tokens=1))
        expected = fresh_logprobs(model, prompt[0], answer.token_ids)
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
        return round(answer.logprobs[0], 4)

    first = logprob()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model(torch.tensor(prompt)).logits.square().mean().backward()
    optimizer.step()
    stepped = logprob()
    with model.disable_adapter():
        left_out = logprob()
    assert logprob() == stepped
    with quiet():
        model.add_adapter("other", model.peft_config["default"])
    model.set_adapter("other")
    swapped = logprob()
    model.set_adapter("default")
    assert logprob() == stepped
    assert swapped == left_out  # a new adapter is zero
    assert len({first, stepped, left_out}) == 3


def test_folding_the_adapter_in_writes_nothing_to_the_model():
    model = with_lora()
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    Sampler(model, pad_id=0).sample(PROMPTS, drawing())
    assert all(torch.equal(before[name], weights) for name, weights in model.state_dict().items())


def test_models_with_other_layers_are_left_to_their_own_cache():
    assert fits(llama())
    assert fits(gpt2())
    from transformers import MistralConfig, MistralForCausalLM

    windowed = MistralForCausalLM(
        MistralConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=4,
        )
    )
    assert not fits(windowed)
    (answer,) = sample(windowed.eval(), [[5] * 9], drawing(), pad_id=0)
    expected = fresh_logprobs(windowed, [5] * 9, answer.token_ids)
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_large_cache_gives_its_memory_back_at_once(monkeypatch):
    monkeypatch.setattr(sampler_module, "KEEP_AT_MOST", 0)
    sampler = Sampler(llama(), pad_id=0)
    sampler.sample([[3, 4, 5]], drawing())
    keys = weakref.ref(sampler._cache.layers[0].keys)
    gc.disable()
    try:
        sampler.forget()
        assert keys() is None
    finally:
        gc.enable()


def test_a_large_folded_copy_gives_its_memory_back_and_is_made_again(monkeypatch):
    monkeypatch.setattr(weights_module, "KEEP_AT_MOST", 0)
    model = with_lora()
    sampler = Sampler(model, pad_id=0)
    (before,) = sampler.sample([[3, 4, 5]], drawing())
    folded = sampler._weights.forward().model.layers[0].self_attn.q_proj.weight
    assert folded.nbytes == 32 * 32 * 4
    held = weakref.ref(folded)
    del folded
    sampler.forget()
    assert held() is None
    (after,) = sampler.sample([[3, 4, 5]], drawing())
    assert (after.token_ids, after.logprobs) == (before.token_ids, before.logprobs)
