"""AgileRL's PPO on the work; see `work`.

    python -m tests.benchmarks.peers.training.with_agilerl PART BASES SEED [OPTION=VALUE ...]

with PART `grid` or `reading` prints JSON, in the environment of `agilerl.txt`. The loop is that of
its `training/llm/rollout.py`: collect, collate, learn.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.training import work

warnings.filterwarnings("ignore")

GRID: dict[str, Any] = {
    "batch_size": 16,
    "mini_batch_size": 16,
    "micro_batch_size_per_gpu": 16,
    "lr_actor": 3e-3,
    "lr_critic": 3e-3,
    "update_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
}
"""Of 12 settings drawn from batches of 16, 32, 64; optimizer steps of 16 and 32 episodes; 2 and 4
epochs; learning rates of 1e-3, 3e-3, 6e-3, of the critic 3e-3 and 1e-2; three seeds each: the
fewest turns (766, in 4.5 s of processor time). Two epochs were the fastest (4.4 s, 861 turns)."""


class Loop:
    """An agent, and the environments it plays in.

    Args:
        base: directory of the base model.
        game: class of what is played.
        tally: counts.
        seed: of the run.
        options: of AgileRL's PPO.
    """

    def __init__(self, base: Path, game: Any, tally: work.Tally, seed: int, **options: Any) -> None:
        import agilerl
        import torch

        # Its kernels need a GPU; where they are installed, AgileRL uses them on a CPU too.
        agilerl.HAS_LIGER_KERNEL = False
        from agilerl.algorithms import LLMPPO
        from agilerl.llm_envs import RolloutCollector, RolloutHarness
        from peft import LoraConfig
        from transformers import AutoTokenizer

        torch.manual_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(base)
        self.turns = game.max_turns
        self.agent = LLMPPO(
            pad_token_id=tokenizer.pad_token_id,
            pad_token=tokenizer.pad_token,
            model_name=str(base),
            model_config={"dtype": torch.float32, "attn_implementation": "sdpa"},
            lora_config=LoraConfig(
                r=work.LORA_R,
                lora_alpha=work.LORA_ALPHA,
                target_modules=work.LORA_TARGET,
                task_type="CAUSAL_LM",
            ),
            max_output_tokens=game.answer_tokens,
            max_model_len=1024,
            temperature=1.0,
            top_k=0,
            beta=0.0,
            use_separate_reference_adapter=False,
            gradient_checkpointing=False,
            use_liger_loss=False,
            device="cpu",
            seed=seed,
            **options,
        )
        self.collector = RolloutCollector(
            lambda: RolloutHarness.local(
                game(tally), tokenizer, max_turns=game.max_turns, apply_chat_template=False
            ),
            options["batch_size"],
            1,
        )
        self.group_seed = seed * 1_000_000
        self.sampled = self.tokens = 0

    def collect(self) -> Any:
        """Play a batch of episodes."""
        from agilerl.rollouts.on_policy import collate_llm_rollouts, collect_rollouts_llm

        self.agent.set_reference_policy(self.collector.num_epochs)
        self.agent.init_training_step()
        ids, masks, turns, rewards, steps, self.group_seed, logps, _ = collect_rollouts_llm(
            agent=self.agent,
            env=self.collector,
            n_steps=self.turns,
            batch_size=self.collector.batch_size,
            group_seed=self.group_seed,
        )
        self.steps = steps
        self.sampled = sum(int(mask.sum()) for mask in masks)
        self.tokens = sum(row.numel() for row in ids)
        return collate_llm_rollouts(ids, masks, turns, rewards, logps, group_size=1)

    def learn(self, batch: Any) -> None:
        """Learn from it."""
        self.agent.learn(
            batch.experiences(), turn_ids=batch.turn_ids, sampling_logps=batch.sampling_logps
        )
        self.agent.finalize_training_step(self.steps)


def grid(base: Path, seed: int, **changed: Any) -> dict[str, Any]:
    """Batches until the goal is reached."""
    tally = work.Tally()
    loop = Loop(base, work.GridWalk, tally, seed, **(GRID | changed))
    tally.start()
    while True:
        loop.learn(loop.collect())
        if tally.commit():
            return tally.found()


def reading(base: Path, seed: int, *, rows: int = 4, **changed: Any) -> dict[str, Any]:
    """One batch of roll-outs and one pass over it; `rows` are computed at once."""
    loop = Loop(
        base,
        work.Reading,
        work.Tally(),
        seed,
        batch_size=work.Reading.episodes,
        mini_batch_size=work.Reading.episodes,
        micro_batch_size_per_gpu=rows,
        update_epochs=1,
        lr_actor=1e-4,
        **changed,
    )
    memory = work.Memory()
    started = time.process_time()
    batch = loop.collect()
    collected = time.process_time()
    loop.learn(batch)
    update = time.process_time() - collected
    measured = work.Throughput(loop.sampled, collected - started, loop.tokens, update)
    return measured.found() | memory.found()


def main(part: str, bases: Path, seed: int, **changed: Any) -> dict[str, Any]:
    """Measure one part."""
    work.single_thread()
    if part == "grid":
        return grid(bases / "grid", seed, **changed)
    return reading(bases / "reading", seed, **changed)


if __name__ == "__main__":
    work.script(main)
