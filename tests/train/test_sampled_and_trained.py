"""What was sampled, captured, stored and read is what the update computes: the real path."""

from collections import Counter

import pytest
import torch

import simtune
from simtune.gym import rollout
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import LocalPolicy, load_base
from simtune.train.actor_critic import ActorCritic
from simtune.train.env_source import EnvSource
from simtune.train.lora import attach
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes
from simtune.train.reward_use import usable_episodes
from simtune.train.round_data import RoundData
from simtune.train.turns import Turn
from simtune.train.update import PPO
from tests.train.tiny_models import evaluate

LAKE = "simtune.gym.frozenlake:random_map"


@pytest.mark.parametrize("decision", ["generate", "choose"])
@pytest.mark.parametrize("history", [0, "full"])
def test_before_any_step_every_ratio_is_one(tmp_path, tiny_model_dir, decision, history):
    """Within 1e-4, with dropout configured and a temperature; a grown chat is one row."""
    options = PPOOptions(
        llm_path=str(tiny_model_dir), lora_dropout=0.1, critic_warmup=0, behaviour="stored"
    )
    base, tokenizer = load_base(tiny_model_dir)
    torch.manual_seed(0)
    model = ActorCritic(attach(base, options))
    for name, weights in model.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    policy = LocalPolicy(
        model.policy,
        tokenizer,
        temperature=0.6,
        max_new_tokens=3,
        decision=decision,
        adapter=adapter_sha256(model.policy),
    )
    root = str(tmp_path / "store")
    rollout(LAKE, policy, episodes=2, root=root, history=history)
    stored = [episode for episode in simtune.read(root).episodes() if episode.ended]
    episodes = usable_episodes(stored, [], policy, Counter())
    learner = PPO(model, options, pad_id=policy.pad_id)
    first = []
    step = learner._step
    learner._step = lambda *given: first.append(step(*given)[0]) or (first[-1], True)
    learner.round(0, episodes)
    assert first[0]["ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert first[0]["sampler_mismatch"] < 1e-4
    data = RoundData(episodes, learner.estimator)
    if history == "full":
        assert len(data.chains) < len(data.entries)
    if decision == "choose":
        assert all(len(entry.turn.options) == 4 for entry in data.entries)


def test_after_an_adapter_is_swapped_the_same_prompt_has_other_log_probabilities(tiny_model_dir):
    options = PPOOptions(llm_path=str(tiny_model_dir))
    base, _ = load_base(tiny_model_dir)
    model = ActorCritic(attach(base, options))
    turn = Turn(prompt_ids=[3, 4], action_ids=[5])
    before = evaluate(model, [turn])[0]
    for name, weights in model.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5)
    assert not torch.allclose(evaluate(model, [turn])[0], before)


def test_episodes_of_a_group_begin_alike_and_are_compared(tmp_path, tiny_model_dir):
    options = PPOOptions(
        llm_path=str(tiny_model_dir),
        env=LAKE,
        capture_root=str(tmp_path / "store"),
        episodes_per_iteration=6,
        group_size=3,
        estimator="rloo",
        max_new_tokens=2,
        seed=2,
    )
    base, tokenizer = load_base(tiny_model_dir)
    model = ActorCritic(attach(base, options))
    policy = LocalPolicy(model.policy, tokenizer, max_new_tokens=2)
    source = EnvSource(options, policy, "run", Processes())
    seeds = []
    for index in (0, 1):
        gathered = source.gather(index)
        seeds.append([episode.group.rpartition("|")[2] for episode in gathered.episodes])
        firsts = [tuple(episode.turns[0].prompt_ids) for episode in gathered.episodes]
        assert len(set(firsts[:3])) == len(set(firsts[3:])) == 1
    source.close()
    assert seeds == [
        ["2000000"] * 3 + ["2000001"] * 3,
        ["2000002"] * 3 + ["2000003"] * 3,
    ]
    metrics = PPO(model, options, pad_id=policy.pad_id).round(1, gathered.episodes)
    assert "value_loss" not in metrics
