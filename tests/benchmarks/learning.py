"""Roll-outs of the tiny model on random lakes, and PPO's update on what they gave."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Measured, of_rates

LAKE = "simtune.demo.lake:lake"
EPISODES = 64
RUNS = 3
FIT_STEPS = 30
"""Enough for answers that are moves; how good they are does not change how long they take."""


def measure() -> Iterator[Measured]:
    """Decisions and sampled tokens per second of roll-outs, then tokens per second of updates."""
    from simtune.gym import rollout
    from simtune.policy.local import LocalPolicy

    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "base"
        _make_base(base)
        policy = LocalPolicy.load(base, max_new_tokens=4)
        decisions, tokens = [], []
        for run in range(RUNS):
            started = time.perf_counter()
            episodes = rollout(
                LAKE,
                policy,
                episodes=EPISODES,
                seed=run * EPISODES,
                num_envs=EPISODES,
                root=str(Path(place) / "store"),
            )
            seconds = time.perf_counter() - started
            made = [decision for episode in episodes for decision in episode.decisions]
            decisions.append(len(made) / seconds)
            tokens.append(sum(len(decision.token_ids) for decision in made) / seconds)
        yield of_rates("roll-outs, 64 at a time", "decisions/s", decisions)
        yield of_rates("roll-outs, 64 at a time", "sampled tokens/s", tokens)
        yield of_rates("PPO update", "tokens/s", _updates(base, episodes))


def _make_base(output: Path) -> None:
    from simtune.policy.random_play import conversations
    from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base

    played = conversations(LAKE, count=500, seed=0)
    tokenizer = build_tokenizer(message["content"] for one in played for message in one)
    model = build_model(tokenizer)
    fit_to_play(model, tokenizer, played, steps=FIT_STEPS)
    save_base(model, tokenizer, output)


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
