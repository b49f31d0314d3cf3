"""A policy in the simulation swaps to what the registry says, between two decisions."""

import multiprocessing
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from simtune.errors import OptionError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import LocalPolicy, load_base, quiet
from simtune.registry import Registry
from simtune.registry.following import FollowingPolicy
from simtune.registry.promotion import promote, roll_back
from simtune.registry.superseded import retire_superseded

CHAT = [[{"role": "user", "content": "go left"}]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from simtune.policy.tiny import build_model, build_tokenizer, save_base

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["go left", "go right"] * 20)
    output = tmp_path_factory.mktemp("following") / "base"
    save_base(build_model(tokenizer), tokenizer, output)
    return output


def adapter(base, seed, r=2):
    with quiet():
        model = get_peft_model(
            load_base(base)[0], LoraConfig(r=r, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    return model


def publish(models, base, seed, r=2, run="run"):
    registry = Registry(models)
    model = adapter(base, seed, r)
    with registry.staging() as staged:
        model.save_pretrained(str(staged))
        return registry.register(
            staged,
            method="ppo",
            base_model=str(base),
            weights_sha256=adapter_sha256(model),
            mlflow_run_id=run,
        )


def answer(policy):
    (reply,) = policy.act(CHAT)
    return reply.adapter, list(reply.token_ids), [round(value, 3) for value in reply.logprobs]


def expected(base, models, record):
    path = None if record is None else models / record.path
    return answer(LocalPolicy.load(base, path, greedy=True, max_new_tokens=4))


def test_each_decision_is_of_the_newest_adapter_and_says_so(tmp_path, base):
    policy = FollowingPolicy(tmp_path, base, greedy=True, max_new_tokens=4)
    assert answer(policy) == expected(base, tmp_path, None)
    seen = set()
    # The first is put on the base, the second loaded over it, the third has other layers.
    for seed, r in ((1, 2), (2, 2), (3, 4), (4, 4)):
        record = publish(tmp_path, base, seed, r)
        found = answer(policy)
        assert found == expected(base, tmp_path, record)
        assert (found[0], policy.model_id) == (record.weights_sha256, record.id)
        seen.add(str(found))
    assert len(seen) == 4


def test_the_champion_alone_is_followed_and_rolled_back_to_the_base(tmp_path, base):
    policy = FollowingPolicy(tmp_path, base, "champion", greedy=True, max_new_tokens=4)
    first, second = publish(tmp_path, base, 1), publish(tmp_path, base, 2)
    registry = Registry(tmp_path)
    assert answer(policy)[0] is None
    for step in (
        lambda: promote(registry, first.id),
        lambda: promote(registry, second.id),
        lambda: roll_back(registry),
        lambda: roll_back(registry),
        lambda: promote(registry, second.id),
    ):
        change = step()
        champion = None if change.after is None else registry.get(change.after)
        assert answer(policy) == expected(base, tmp_path, champion)


def test_nothing_is_read_while_the_registry_is_the_same(tmp_path, base, monkeypatch):
    publish(tmp_path, base, 1)
    policy = FollowingPolicy(tmp_path, base)
    monkeypatch.setattr(Registry, "list", None)
    assert not policy.look()


def test_an_adapter_that_is_not_what_was_registered_is_passed_over(tmp_path, base):
    good = publish(tmp_path, base, 1)
    policy = FollowingPolicy(tmp_path, base, greedy=True, max_new_tokens=4)
    bad = publish(tmp_path, base, 2)
    name = "adapter_model.safetensors"
    shutil.copy(tmp_path / good.path / name, tmp_path / bad.path / name)
    with pytest.warns(RuntimeWarning, match="not those that were registered"):
        found = answer(policy)
    assert found == expected(base, tmp_path, good)


def test_retired_files_are_not_asked_for(tmp_path, base):
    records = [publish(tmp_path, base, seed) for seed in (1, 2, 3, 4)]
    other = publish(tmp_path, base, 5, run="another")
    registry = Registry(tmp_path)
    promote(registry, records[0].id)
    assert retire_superseded(registry, "run", 2) == [records[1].id]
    assert [one.status for one in registry.list()] == [
        "champion",
        "retired",
        "candidate",
        "candidate",
        "candidate",
    ]
    assert not (tmp_path / records[1].path).exists()
    assert retire_superseded(registry, "run", 2) == []
    policy = FollowingPolicy(tmp_path, base)
    assert policy.model_id == other.id


def test_another_base_and_another_word_are_refused(tmp_path, base):
    publish(tmp_path, base, 1)
    shutil.copytree(base, tmp_path / "other")
    assert FollowingPolicy(tmp_path, tmp_path / "other").model_id is None
    with pytest.raises(OptionError, match=r"latest \| champion"):
        FollowingPolicy(tmp_path, base, "best")


def _publish_many(models, base, count):
    torch.set_num_threads(1)
    for seed in range(count):
        publish(models, base, seed)
        retire_superseded(Registry(models), "run", 2)


def test_every_reply_is_by_the_adapter_whose_hash_it_carries_while_another_process_publishes(
    tmp_path, base
):
    """Weights are recognised by their answers: each hash always goes with the same numbers."""
    torch.set_num_threads(1)
    policy = FollowingPolicy(tmp_path, base, greedy=True, max_new_tokens=2)
    process = multiprocessing.get_context("fork").Process(
        target=_publish_many, args=(tmp_path, base, 12)
    )
    process.start()
    found = {}
    while process.is_alive():
        adapter_hash, *numbers = answer(policy)
        assert found.setdefault(adapter_hash, numbers) == numbers
    process.join()
    answer(policy)
    assert process.exitcode == 0
    assert len(found) >= 3
    known = {one.weights_sha256 for one in Registry(tmp_path).list()}
    assert found.keys() <= known | {None}
