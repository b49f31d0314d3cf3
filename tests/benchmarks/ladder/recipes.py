"""How each rung is climbed: every option that differs from its default, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from simtune.demo import lake
from simtune.demo.sizes import LAKE, DemoOptions, sizes
from tests.benchmarks.ladder.bounds import TableOracle, toward_goal
from tests.benchmarks.ladder.rungs import frozen_lake, taxi

RUNGS = "tests.benchmarks.ladder.rungs"


_TINY_DEMO = sizes(DemoOptions())


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
    # One pass over the model for all of them.
    "num_envs": 64,
    # A LoRA of rank 16 on 0.9M parameters is small, and is trained from scratch.
    "learning_rate": 5e-4,
    "critic_learning_rate": 3e-3,
    # Where nearly all episodes succeed, whitening turns the few odd ones into large steps: on the
    # fixed lake one round in twenty threw success from 1 to .17, and the next had to mend it.
    "target_kl": 0.05,
    # Dropout is off in PPO's passes anyway.
    "lora_dropout": 0.0,
    # Nobody resumes a benchmark.
    "save_every": 0,
}
"""Of every rung."""

EVALUATED = PPO | {
    # The update of the last round may be a bad one (a grid ended at .88 after rounds at .99):
    # the best of the evaluated rounds is kept. Their seeds are neither training's nor the table's.
    "eval_every": 5,
    "eval_episodes": 200,
}
"""Of rungs with more than one decision."""

GUESS = {
    # One decision an episode, written and not chosen: the base has learned the letters.
    "decision": "generate",
    "max_new_tokens": 2,
    "minibatch_size": 64,
}

GRID = {
    "iterations": 35,
    "minibatch_size": 128,
    # At most eight turns: nearer rewards are better known.
    "gamma": 0.95,
    # Large steps to find the way, small ones to end with it.
    "lr_schedule": "linear",
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
        ppo=EVALUATED | GRID,
    ),
    "grid-shaped": Recipe(
        env=f"{RUNGS}:grid_walk",
        env_arg={"shaped": True},
        oracle=lambda: toward_goal,
        goal=0.95,
        # Every step has its reward, so credit need not come from far.
        ppo=EVALUATED | GRID | {"gamma": 0.5, "gae_lambda": 0.9},
    ),
    "lake": Recipe(
        env=f"{RUNGS}:frozen_lake",
        oracle=lambda: TableOracle(frozen_lake(), discount=0.99),
        goal=0.95,
        # One episode in seventy finds the goal at first: rounds have to be large enough for one.
        ppo=EVALUATED | {"iterations": 20, "episodes_per_iteration": 128, "num_envs": 128},
    ),
    "lake-maps": Recipe(
        env=LAKE,
        oracle=lambda: lake.oracle,
        goal=0.95,
        # After 300 steps one base in three does not read its map yet, and PPO stays at .72.
        base_steps=600,
        # SFT and PPO are the demo's but for `choose`.
        expert=lambda: lake.heuristic,
        expert_episodes=600,
        sft=_TINY_DEMO.sft | {"min_score": 1.0},
        ppo=EVALUATED | _TINY_DEMO.ppo | {"iterations": 60},
    ),
    "lake-slippery": Recipe(
        env=f"{RUNGS}:slippery_lake",
        base_env=f"{RUNGS}:frozen_lake",
        oracle=lambda: TableOracle(frozen_lake(True), discount=0.999),
        goal=0.9,
        of_oracle=True,
        ppo=EVALUATED
        | {
            "iterations": 80,
            # What an action is worth drowns in what the ice does: only many episodes show it.
            "episodes_per_iteration": 256,
            "num_envs": 256,
            # The map never changes, so a pass computes its few states once, however many
            # decisions there are: a step over all of them costs what a step over some does.
            "minibatch_size": 100_000,
            "epochs": 10,
            "learning_rate": 1e-3,
            "gae_lambda": 0.9,
            "eval_every": 10,
        },
    ),
    "taxi": Recipe(
        env=f"{RUNGS}:taxi",
        oracle=lambda: TableOracle(taxi(), discount=0.99),
        goal=7.0,
        measure="return",
        # Few enough that imitation alone is not the end of it.
        expert=lambda: TableOracle(taxi(), discount=0.99),
        expert_episodes=200,
        sft={"batch_size": 64, "learning_rate": 2e-3, "lora_dropout": 0.0},
        ppo=EVALUATED
        | {
            # Drawn actions leave a circle sooner or later; only many rounds unlearn the few states
            # in which the most probable one does not. After 20, greedy was at -11, -2 and 5.
            "iterations": 60,
            # The value's error goes through the adapter too. With returns of -200 to 20 it was
            # all of the gradient (norm 35), and ten rounds took the expert's 8 to -200.
            "reward": ["environment=0.05"],
            "critic_warmup": 3,
            # The expert's way is nearly deterministic, and is to stay so.
            "entropy_coef": 0.0,
            "learning_rate": 2e-4,
            "lr_schedule": "linear",
            # Of 404 starts one that ends in a circle costs the mean half a point; 100 miss it.
            "eval_episodes": 500,
        },
    ),
}
