"""The demo's adapters without simtune: plain PEFT and transformers give the same answers."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from simtune.demo.lake import lake
from simtune.policy.local import LocalPolicy

LONGEST = 4

# Raised inside peft, which still asks transformers for the property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def prompts():
    """The first observation of twenty lakes that nobody trained on."""
    env = lake()
    return [[{"role": "user", "content": env.reset(seed=1_800_000_000 + i)[0]}] for i in range(20)]


@pytest.fixture(scope="module", params=["sft", "ppo"])
def adapter(request, demo):
    registry = json.loads((demo.directory / "models" / "registry.json").read_bytes())
    found = next(record for record in registry["models"] if record["method"] == request.param)
    return demo.directory / "models" / found["path"]


def load(base, adapter):
    """As anyone would who has never heard of simtune."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval(), AutoTokenizer.from_pretrained(adapter)


@torch.no_grad()
def greedy(model, tokenizer, messages):
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, do_sample=False, max_new_tokens=LONGEST)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_greedy_answers_are_the_same(base, adapter, prompts):
    model, tokenizer = load(base, adapter)
    plain = [greedy(model, tokenizer, messages) for messages in prompts]
    policy = LocalPolicy.load(base, adapter, max_new_tokens=LONGEST, greedy=True)
    assert [str(reply) for reply in policy.act(prompts)] == plain


@torch.no_grad()
def test_the_adapter_changes_what_the_base_says(base, adapter, prompts):
    model, tokenizer = load(base, adapter)
    ids = tokenizer.apply_chat_template(
        prompts[0], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    tuned = model(ids).logits[0, -1].log_softmax(-1)
    with model.disable_adapter():
        untuned = model(ids).logits[0, -1].log_softmax(-1)
    assert (tuned - untuned).abs().max() > 0.1


def test_the_adapter_names_its_base_and_brings_its_chat_template(base, adapter):
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == str(base)
    tuned, untuned = (AutoTokenizer.from_pretrained(place) for place in (adapter, base))
    assert tuned.chat_template == untuned.chat_template
