"""Random models of a few thousand parameters, with rotary and with absolute positions."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from simtune.policy.local import quiet
from simtune.train.actor_critic import ActorCritic
from simtune.train.packing import Layout, pack, prepare

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
    """With `perturb` an adapter that does something, and a critic that says something."""
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
    if perturb:
        for name, weights in model.policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.1)
        torch.nn.init.normal_(model.value_head.weight)
    return model


def layout(budget=1000, *, packed=False):
    return Layout(budget=budget, packed=packed, pad_id=0, device=torch.device("cpu"))


def batches(turns, budget=1000, *, packed=False, value_per_unit=False):
    entries = prepare(turns, value_per_unit=value_per_unit)
    return list(pack(entries, layout(budget, packed=packed)))


def evaluate(model, turns, budget=1000, *, packed=False, value_per_unit=False):
    """Log-probabilities and entropies by unit, values by number, whatever the cut."""
    entries = prepare(turns, value_per_unit=value_per_unit)
    units, values = sum(t.units for t in turns), sum(e.values for e in entries)
    logprobs, entropy, critic = torch.zeros(units), torch.zeros(units), torch.zeros(values)
    for batch in pack(entries, layout(budget, packed=packed)):
        out = model(batch)
        logprobs = logprobs.index_put((batch.units,), out.logprobs)
        entropy = entropy.index_put((batch.units,), out.entropy)
        critic = critic.index_put((batch.value_units,), out.values)
    return logprobs, entropy, critic
