import pytest
import torch
from peft import LoraConfig, get_peft_model

from simtune.errors import OptionError
from simtune.policy.adapter_hash import adapter_sha256, saved_sha256
from simtune.policy.bases import pull_base
from simtune.policy.local import LocalPolicy, load_base, quiet
from simtune.policy.random_play import conversations
from simtune.policy.tiny import build_model, build_tokenizer, save_base

ASK = [{"role": "user", "content": "go left or right"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tokenizer = build_tokenizer(["go left", "go right"] * 20, vocab_size=300)
    output = tmp_path_factory.mktemp("bases") / "base"
    save_base(build_model(tokenizer), tokenizer, output)
    return output


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    model, _ = load_base(base)
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    with quiet():
        tuned = get_peft_model(model, config)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    output = tmp_path_factory.mktemp("adapters") / "adapter"
    tuned.save_pretrained(output)
    return output


def test_a_reply_carries_what_training_needs(base):
    policy = LocalPolicy.load(base, temperature=0.7, max_new_tokens=5, seed=3)
    reply = policy(ASK)
    assert list(reply.prompt_token_ids) == policy.encode([ASK])[0]
    assert 1 <= len(reply.token_ids) <= 5
    assert len(reply.logprobs) == len(reply.token_ids)
    assert str(reply) == policy.tokenizer.decode(reply.token_ids, skip_special_tokens=True)
    assert reply.sampling == {"temperature": 0.7, "max_tokens": 5}
    assert reply.model == str(base)


def test_the_same_seed_gives_the_same_answers(base):
    one, same, other = (LocalPolicy.load(base, seed=seed).act([ASK] * 4) for seed in (1, 1, 2))
    assert [r.token_ids for r in one] == [r.token_ids for r in same]
    assert [r.token_ids for r in one] != [r.token_ids for r in other]


def test_an_adapter_changes_the_log_probabilities(base, adapter):
    plain = LocalPolicy.load(base, greedy=True)(ASK)
    tuned = LocalPolicy.load(base, adapter, greedy=True)(ASK)
    assert plain.prompt_token_ids == tuned.prompt_token_ids
    assert plain.logprobs[0] != pytest.approx(tuned.logprobs[0], abs=1e-3)


def test_every_decision_carries_the_hash_of_the_adapter_that_made_it(base, adapter):
    tuned = LocalPolicy.load(base, adapter)
    assert tuned(ASK).adapter == saved_sha256(adapter) == adapter_sha256(tuned.model)
    assert LocalPolicy.load(base)(ASK).adapter is None


def test_asking_leaves_the_models_mode_as_it_was(base):
    policy = LocalPolicy.load(base)
    policy.model.train()
    policy(ASK)
    assert policy.model.training


def test_what_is_no_model_or_no_adapter_is_said(base, tmp_path):
    with pytest.raises(OptionError, match=r"no config\.json in it"):
        LocalPolicy.load(tmp_path)
    with pytest.raises(OptionError, match="no such directory"):
        LocalPolicy.load(tmp_path / "gone")
    with pytest.raises(OptionError, match="no adapter in"):
        LocalPolicy.load(base, tmp_path)


def test_a_base_directory_is_never_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OptionError, match="exists already"):
        pull_base("tiny", tmp_path / "mine")


def test_random_play_is_uniform_and_repeatable():
    played = conversations("simtune.demo.lake:lake", count=800, seed=4)
    assert played == conversations("simtune.demo.lake:lake", count=800, seed=4)
    answers = [chat[-1]["content"] for chat in played]
    for move in ("left", "down", "right", "up"):
        assert 150 <= answers.count(move) <= 250
    assert [message["role"] for message in played[0]] == ["system", "user", "assistant"]
