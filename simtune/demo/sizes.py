"""How much work the demo does."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from simtune.errors import OptionError

LAKE = "simtune.demo.lake:lake"
HELD_OUT_SEED = 1_900_000_000
"""First seed of the maps for evaluation; no part of the demo trains on seeds near it."""


class DemoOptions(msgspec.Struct, kw_only=True, frozen=True):
    """What the demo is asked to do.

    Attributes:
        dir: where everything goes.
        seed: of the model, the play and the training; the held-out maps stay the same.
        model: `tiny` (built on the spot) or `smollm2-135m` (a real instruct model).
        quick: a small fraction of the work, to see that everything runs.
    """

    dir: str = "./simtune-demo"
    seed: int = 0
    model: Literal["tiny", "smollm2-135m"] = "tiny"
    quick: bool = False


class Sizes(msgspec.Struct, kw_only=True, frozen=True):
    """Sizes of one run of the loop.

    Attributes:
        heuristic_episodes: captured episodes of the heuristic.
        held_out: maps of each evaluation.
        sft: options of the SFT run, besides paths and seed.
        ppo: options of the PPO run, besides paths and seed.
    """

    heuristic_episodes: int
    held_out: int
    sft: dict[str, Any]
    ppo: dict[str, Any]


_TINY = Sizes(
    heuristic_episodes=600,
    held_out=200,
    sft={"epochs": 1.2, "batch_size": 64, "learning_rate": 1e-3, "lora_dropout": 0.0},
    ppo={
        "iterations": 50,
        "episodes_per_iteration": 64,
        "num_envs": 64,
        "max_new_tokens": 4,
        "gamma": 0.95,
        "epochs": 3,
        "minibatch_size": 128,
        "learning_rate": 5e-4,
        "lr_schedule": "linear",
        "critic_learning_rate": 3e-3,
        "critic_warmup": 3,
        "value_coef": 1.0,
        "entropy_coef": 0.0,
        "target_kl": 0.05,
        "lora_dropout": 0.0,
    },
)
_SMOLLM2 = Sizes(
    heuristic_episodes=150,
    held_out=200,
    sft={"epochs": 1, "batch_size": 16, "learning_rate": 3e-4, "lora_dropout": 0.0},
    ppo={
        "iterations": 30,
        "episodes_per_iteration": 32,
        "num_envs": 32,
        "max_new_tokens": 4,
        "epochs": 2,
        "minibatch_size": 64,
        "learning_rate": 1e-4,
        "critic_learning_rate": 1e-3,
    },
)


def sizes(options: DemoOptions) -> Sizes:
    """The sizes that the options ask for.

    Raises:
        OptionError: an unknown model.
    """
    known = {"tiny": _TINY, "smollm2-135m": _SMOLLM2}
    if options.model not in known:
        raise OptionError(f"the demo has no model {options.model!r}", expected=" | ".join(known))
    full = known[options.model]
    if not options.quick:
        return full
    return msgspec.structs.replace(
        full,
        heuristic_episodes=40,
        held_out=20,
        sft=full.sft | {"epochs": 1},
        ppo=full.ppo | {"iterations": 2, "critic_warmup": 1, "episodes_per_iteration": 16},
    )
