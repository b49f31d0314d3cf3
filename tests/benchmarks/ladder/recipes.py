"""How each rung is climbed: every option that differs from its default, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from simtune.demo import lake
from simtune.demo.sizes import LAKE
from tests.benchmarks.ladder.bounds import TableOracle, toward_goal
from tests.benchmarks.ladder.rungs import frozen_lake, taxi

RUNGS = "tests.benchmarks.ladder.rungs"


class Recipe(msgspec.Struct, kw_only=True, frozen=True):
    """How one rung is climbed.

    Attributes:
        env: what is played.
        oracle: makes the best policy known.
        goal: what the mean over the seeds should reach.
        ppo: options of PPO.
        env_arg: of the environment in training; evaluation is without them.
        measure: what is measured on held-out seeds.
        of_oracle: the goal is a share of the oracle's, measured on the same seeds.
        base_env: whose random play the tiny base is fitted to, where not `env`: of equal texts.
        base_steps: steps of that fit.
        expert: plays the episodes that SFT imitates first; None: no SFT.
        expert_episodes: how many.
        sft: options of SFT.
        held_out: episodes of an evaluation.
    """

    env: str
    oracle: Callable[[], Any]
    goal: float
    ppo: dict[str, Any]
    env_arg: dict[str, Any] = {}
    measure: Literal["success", "return"] = "success"
    of_oracle: bool = False
    base_env: str | None = None
    base_steps: int = 300
    expert: Callable[[], Any] | None = None
    expert_episodes: int = 0
    sft: dict[str, Any] = {}
    held_out: int = 500


PPO: dict[str, Any] = {
    # The actions have names, and the tiny model has seen no other words.
    "decision": "choose",
    # 64 parallel episodes cost little more than 32: one pass over the model for all.
    "num_envs": 64,
    # A LoRA of rank 16 on 0.9M parameters is small, and is trained from scratch.
    "learning_rate": 5e-4,
    "critic_learning_rate": 3e-3,
    # Where nearly all episodes succeed, whitening turns the few odd ones into large steps: one
    # round in twenty destroyed the policy, and it took the next to mend it.
    "target_kl": 0.05,
    # Dropout is off in PPO's passes anyway.
    "lora_dropout": 0.0,
    # Nobody resumes a benchmark.
    "save_every": 0,
}
"""Of every rung."""

GUESS = {
    "decision": "generate",
    "max_new_tokens": 2,
    "minibatch_size": 64,
}
"""One decision an episode, written and not chosen: the base has learned the letters."""

GRID = {
    "iterations": 40,
    "minibatch_size": 128,
    "gamma": 0.95,
}

RECIPES: dict[str, Recipe] = {
    "one-turn": Recipe(
        env=f"{RUNGS}:one_turn",
        oracle=lambda: lambda messages: "c",
        goal=0.99,
        # The prompt is always the same: what has to be learned of it is little.
        base_steps=60,
        ppo=PPO | GUESS | {"iterations": 10},
    ),
    "shown-target": Recipe(
        env=f"{RUNGS}:shown_target",
        oracle=lambda: lambda messages: messages[-1]["content"],
        goal=0.99,
        base_steps=60,
        ppo=PPO | GUESS | {"iterations": 30},
    ),
    "grid": Recipe(
        env=f"{RUNGS}:grid_walk",
        oracle=lambda: toward_goal,
        goal=0.95,
        ppo=PPO | GRID,
    ),
    "grid-shaped": Recipe(
        env=f"{RUNGS}:grid_walk",
        env_arg={"shaped": True},
        oracle=lambda: toward_goal,
        goal=0.95,
        ppo=PPO | GRID,
    ),
    "lake": Recipe(
        env=f"{RUNGS}:frozen_lake",
        oracle=lambda: TableOracle(frozen_lake(), discount=0.99),
        goal=0.95,
        ppo=PPO | {"iterations": 20, "episodes_per_iteration": 128, "num_envs": 128},
    ),
    "lake-maps": Recipe(
        env=LAKE,
        oracle=lambda: lake.oracle,
        goal=0.95,
        expert=lambda: lake.heuristic,
        expert_episodes=600,
        sft={
            "min_score": 1.0,
            "epochs": 1.2,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "lora_dropout": 0.0,
        },
        ppo=PPO
        | {
            "iterations": 50,
            "gamma": 0.95,
            "minibatch_size": 128,
            "lr_schedule": "linear",
            "critic_warmup": 3,
            "value_coef": 1.0,
            "entropy_coef": 0.0,
        },
    ),
    "lake-slippery": Recipe(
        env=f"{RUNGS}:slippery_lake",
        base_env=f"{RUNGS}:frozen_lake",
        oracle=lambda: TableOracle(frozen_lake(True), discount=0.999),
        goal=0.9,
        of_oracle=True,
        ppo=PPO | {"iterations": 40, "episodes_per_iteration": 128, "num_envs": 128},
    ),
    "taxi": Recipe(
        env=f"{RUNGS}:taxi",
        oracle=lambda: TableOracle(taxi(), discount=0.99),
        goal=7.0,
        measure="return",
        expert=lambda: TableOracle(taxi(), discount=0.99),
        expert_episodes=600,
        sft={"epochs": 3, "batch_size": 64, "learning_rate": 2e-3, "lora_dropout": 0.0},
        ppo=PPO | {"iterations": 20},
    ),
}
