"""PPO's update of the tiny model on what roll-outs on random lakes gave."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Measured, of_rates
from tests.benchmarks.rolling import LAKE, make_base

EPISODES = 64
RUNS = 3


def measure() -> Iterator[Measured]:
    """Prompt and answer tokens per second of updates."""
    from simtune.gym import rollout
    from simtune.policy.local import LocalPolicy

    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "base"
        make_base(base)
        policy = LocalPolicy.load(base, max_new_tokens=4)
        episodes = rollout(LAKE, policy, episodes=EPISODES, num_envs=EPISODES, capture=False)
        yield of_rates("PPO update", "tokens/s", _updates(base, episodes))


def _updates(base: Path, episodes: list) -> list[float]:
    """Prompt and answer tokens per second of forward, backward and step, all epochs counted."""
    from simtune.policy.local import LocalPolicy, load_base
    from simtune.train.actor_critic import ActorCritic
    from simtune.train.lora import attach
    from simtune.train.options import PPOOptions
    from simtune.train.reward_use import usable_episodes
    from simtune.train.update import PPO

    options = PPOOptions(llm_path=str(base), minibatch_size=128, lora_dropout=0.0)
    model, tokenizer = load_base(base)
    policy = LocalPolicy(model, tokenizer)
    turns = usable_episodes(episodes, [], policy, Counter())
    ppo = PPO(ActorCritic(attach(model, options)), options, pad_id=policy.pad_id)
    trained = range(options.critic_warmup, options.critic_warmup + RUNS)
    return [ppo.round(index, turns)["update_tokens_per_s"] for index in trained]
