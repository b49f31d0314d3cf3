import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from simtune.policy.generation import sample
from simtune.policy.local import quiet
from simtune.train.actor_critic import ActorCritic
from simtune.train.turns import Turn, collate

VOCABULARY = 24


def rotary():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def absolute():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=64,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=1,
        )
    )


def actor_critic(make=rotary, *, dropout=0.0, perturb=True):
    torch.manual_seed(0)
    target = ["c_attn", "c_proj"] if make is absolute else "all-linear"
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_dropout=dropout,
        target_modules=target,
        fan_in_fan_out=make is absolute,
    )
    with quiet():
        model = ActorCritic(get_peft_model(make(), config))
    if perturb:  # an adapter that does something, and a critic that says something
        for name, weights in model.policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.1)
        torch.nn.init.normal_(model.value_head.weight)
    return model


def batch(*turns):
    return collate(turns, pad_id=0, device="cpu")


def test_logprob_of_three_tokens_by_hand():
    """Token t is predicted at t - 1: no off-by-one, and the temperature divides the logits."""
    model = actor_critic()
    prompt, action = [5, 6], [7]
    with torch.no_grad():
        logits = model.policy(torch.tensor([[5, 6, 7]])).logits[0, 1] / 0.6
    by_hand = logits[7] - logits.exp().sum().log()
    out = model(batch(Turn(prompt_ids=prompt, action_ids=action, temperature=0.6)))
    assert out.logprobs.tolist() == pytest.approx([by_hand.item()], abs=1e-5)
    chances = logits.softmax(-1)
    by_hand = -(chances * chances.log()).sum()
    assert out.entropy.item() == pytest.approx(by_hand.item(), abs=1e-5)


@pytest.mark.parametrize("make", [rotary, absolute])
def test_padded_rows_equal_one_by_one(make):
    model = actor_critic(make)
    turns = [
        Turn(prompt_ids=[3, 4, 5, 6, 7], action_ids=[8, 1]),
        Turn(prompt_ids=[9], action_ids=[10, 11, 12]),
        Turn(prompt_ids=[2, 2], action_ids=[1]),
    ]
    together = model(batch(*turns))
    alone = [model(batch(turn)) for turn in turns]
    expected = torch.cat([out.logprobs for out in alone])
    torch.testing.assert_close(together.logprobs, expected, atol=1e-5, rtol=0)
    expected = torch.cat([out.values for out in alone])
    torch.testing.assert_close(together.values, expected, atol=1e-5, rtol=0)


def test_value_is_read_at_the_last_prompt_token():
    """The action does not change the state's value."""
    model = actor_critic()
    one = model(batch(Turn(prompt_ids=[3, 4], action_ids=[5])))
    other = model(batch(Turn(prompt_ids=[3, 4], action_ids=[9, 9, 9])))
    state = model(batch(Turn(prompt_ids=[3, 4])), actor=False)
    assert one.values.item() == pytest.approx(other.values.item(), abs=1e-6)
    assert one.values.item() == pytest.approx(state.values.item(), abs=1e-6)


def test_trainer_agrees_with_the_sampler_under_configured_dropout():
    """Ratio 1 within 1e-4, though the adapter has dropout 0.1."""
    model = actor_critic(dropout=0.1)
    prompts = [[3, 4, 5], [6], [7, 8]]
    answers = sample(
        model.policy,
        prompts,
        eos_ids=[1],
        pad_id=0,
        max_new_tokens=5,
        temperature=0.7,
        generator=torch.Generator().manual_seed(3),
    )
    turns = [
        Turn(
            prompt_ids=prompt,
            action_ids=answer.token_ids,
            behaviour_logprobs=answer.logprobs,
            temperature=0.7,
        )
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    rows = batch(*turns)
    ratio = (model(rows).logprobs - rows.behaviour_logprobs).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_reference_is_the_base_and_the_adapter_comes_back():
    model = actor_critic()
    turn = batch(Turn(prompt_ids=[3, 4], action_ids=[5, 6]))
    with_adapter = model(turn).logprobs
    with model.reference():
        base = model(turn).logprobs
    fresh = actor_critic(perturb=False)
    torch.testing.assert_close(base, fresh(turn).logprobs)
    assert not torch.allclose(base, with_adapter)
    with pytest.raises(RuntimeError, match="inside"), model.reference():
        raise RuntimeError("inside")
    torch.testing.assert_close(model(turn).logprobs, with_adapter)


def test_critic_starts_at_zero_and_its_gradient_stays_out_of_the_policy_in_warm_up():
    model = actor_critic(perturb=False)
    out = model(batch(Turn(prompt_ids=[3, 4], action_ids=[5])), actor=False)
    assert out.values.tolist() == [0.0]
    assert (len(out.logprobs), len(out.entropy)) == (0, 0)
    out.values.sum().backward()
    assert all(weights.grad is None for weights in model.policy.parameters())
    assert model.value_head.weight.grad.abs().sum() > 0


def test_collate_marks_exactly_the_sampled_tokens():
    rows = batch(
        Turn(prompt_ids=[3, 4], action_ids=[5], behaviour_logprobs=[-0.5], advantage=2.0),
        Turn(prompt_ids=[6], action_ids=[7, 1], behaviour_logprobs=[-1.0, -2.0], advantage=-1.0),
    )
    chosen = rows.input_ids[rows.action_rows, rows.action_positions]
    assert chosen.tolist() == [5, 7, 1]
    assert rows.behaviour_logprobs.tolist() == [-0.5, -1.0, -2.0]
    assert rows.advantages.tolist() == [2.0, -1.0, -1.0]
    assert rows.prompt_ends.tolist() == [1, 0]
    assert rows.attention_mask.sum(1).tolist() == [3, 3]
    assert math.prod(rows.input_ids.shape) == 6
