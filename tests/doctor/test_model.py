"""A model beside the store: prompts rendered and answers computed anew, as the trainer would."""

import re

import pytest

import simtune
from simtune.gym import rollout
from simtune.policy.local import LocalPolicy
from simtune.registry import Registry
from tests.doctor.broken_things import decision as decision_row
from tests.doctor.broken_things import write_rows

LAKE = "simtune.gym.frozenlake:random_map"
PROMPTS = [[{"role": "user", "content": f"go {way} now"}] for way in ("left", "right", "up")]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A Llama of random weights with its tokenizer, in Hugging Face format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.tiny import build_tokenizer, save_base

    tokenizer = build_tokenizer([f"go {way} now" for way in ("left", "right", "up")] * 30)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    output = tmp_path_factory.mktemp("model") / "base"
    save_base(model, tokenizer, output)
    return output


def capture(root, policy, **sampling):
    simtune.configure(root=str(root))
    ask = simtune.capture(policy)
    for prompt in PROMPTS:
        with simtune.episode(env="lake") as episode:
            ask(prompt)
            simtune.reward(1.0)
            episode.finish(terminated=True)
    simtune.flush()


def test_what_the_same_model_sampled_agrees(tmp_path, found, base):
    capture(tmp_path / "mine", LocalPolicy.load(base, max_new_tokens=4, temperature=0.7))
    codes = found("prompts", "logprobs", store=tmp_path / "mine", llm_path=str(base))
    assert {code: finding.level for code, finding in codes.items()} == {
        "prompts": "ok",
        "logprobs": "ok",
    }
    assert codes["prompts"].seen == "3 captured prompts are rendered to the same token ids"
    mean = re.search(r"differ by mean (\S+) and", codes["logprobs"].seen)
    assert float(mean[1]) < 1e-5


@pytest.mark.parametrize("decision", ["generate", "choose"])
def test_whole_chats_and_named_options_agree_as_rolled_out(tmp_path, found, base, decision):
    """Later prompts hold sampled tokens, which tokenising the text anew need not give."""
    policy = LocalPolicy.load(base, max_new_tokens=3, decision=decision)
    rollout(LAKE, policy, episodes=2, root=str(tmp_path / "mine"), history="full")
    simtune.read(str(tmp_path / "mine"))
    codes = found("prompts", "logprobs", store=tmp_path / "mine", llm_path=str(base))
    assert {code: finding.level for code, finding in codes.items()} == {
        "prompts": "ok",
        "logprobs": "ok",
    }


def test_without_a_model_nothing_is_compared(found):
    assert found("prompts", "logprobs") == {}


def test_without_token_ids_there_is_nothing_to_compare(tmp_path, found, base):
    write_rows(tmp_path / "bare", [decision_row("ep", prompt_token_ids=[])])
    codes = found("prompts", "logprobs", store=tmp_path / "bare", llm_path=str(base))
    assert list(codes) == ["no-sample"]


def test_another_chat_template_is_drift_and_shown(tmp_path, found, base):
    policy = LocalPolicy.load(base, max_new_tokens=4)
    policy.tokenizer.chat_template = (
        "{{ '<|system|>Be good.<|end|>' }}" + policy.tokenizer.chat_template
    )
    capture(tmp_path / "mine", policy)
    wrong = found("prompts", store=tmp_path / "mine", llm_path=str(base))["template-drift"]
    assert wrong.seen.startswith(f"3 of 3 (100 %) prompts of {base} are rendered differently")
    assert "captured '<|system|>Be good.<|end|>" in wrong.seen
    assert "rendered '<|user|>go " in wrong.seen


def test_the_same_text_in_other_tokens_is_told(tmp_path, found, base):
    policy = LocalPolicy.load(base, max_new_tokens=4)
    (ids,) = policy.encode([PROMPTS[0]])
    text = policy.tokenizer.decode(ids[1:2])
    spelled = policy.tokenizer(list(text), add_special_tokens=False)["input_ids"]
    other = [ids[0], *(one for letter in spelled for one in letter), *ids[2:]]
    assert policy.tokenizer.decode(other) == policy.tokenizer.decode(ids) and other != ids
    row = decision_row("ep", prompt=PROMPTS[0], prompt_token_ids=other)
    write_rows(tmp_path / "mine", [row])
    codes = found("prompts", store=tmp_path / "mine", llm_path=str(base))
    assert codes["other-tokens"].seen.startswith("1 of 1 ")


def test_ids_outside_of_the_vocabulary_are_of_another_tokenizer(tmp_path, found, base):
    write_rows(tmp_path / "mine", [decision_row("ep", prompt_token_ids=[1, 99999])])
    wrong = found("prompts", store=tmp_path / "mine", llm_path=str(base))["other-tokenizer"]
    assert wrong.seen.startswith("token id 99999 was captured")


def test_other_weights_are_drift_in_nats(tmp_path, found, base):
    import torch

    policy = LocalPolicy.load(base, max_new_tokens=4)
    with torch.no_grad():
        policy.model.lm_head.weight.add_(torch.randn_like(policy.model.lm_head.weight) * 0.3)
    capture(tmp_path / "mine", policy)
    wrong = found("logprobs", store=tmp_path / "mine", llm_path=str(base))["logprob-drift"]
    assert "(tolerance 0.01 and 1)" in wrong.seen


def test_log_probabilities_before_the_temperature_are_recognised(tmp_path, found, base):
    root = tmp_path / "mine"
    policy = LocalPolicy.load(base, max_new_tokens=4, temperature=1.0)

    def untempered(messages):
        reply = policy(messages)
        return simtune.Reply(
            str(reply),
            prompt_token_ids=reply.prompt_token_ids,
            token_ids=reply.token_ids,
            logprobs=reply.logprobs,
            sampling={"temperature": 0.5},
        )

    capture(root, untempered)
    codes = found("logprobs", store=root, llm_path=str(base))
    assert list(codes) == ["untempered-logprobs"]


def test_an_adapter_is_found_by_its_hash_and_an_unknown_one_is_told(tmp_path, found, base):
    import torch
    from peft import LoraConfig, get_peft_model

    from simtune.policy.adapter_hash import adapter_sha256
    from simtune.policy.local import load_base, quiet

    model, tokenizer = load_base(base)
    with quiet():
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    known = adapter_sha256(model)
    registry = Registry(tmp_path / "models")
    with registry.staging() as staged:
        model.save_pretrained(staged)
        record = registry.register(staged, method="ppo", base_model=str(base), weights_sha256=known)
    root = tmp_path / "mine"
    capture(root, LocalPolicy(model, tokenizer, max_new_tokens=4, adapter=known))
    named = {"store": root, "llm_path": str(base), "models_dir": str(tmp_path / "models")}
    assert found("logprobs", **named)["logprobs"].seen.startswith(f"{record.id}: captured")
    capture(root, LocalPolicy(model, tokenizer, max_new_tokens=4, adapter="f" * 64))
    assert found("logprobs", **named)["unknown-adapter"].seen.startswith("3 of 6 (50 %) ")
