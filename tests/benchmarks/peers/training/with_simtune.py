"""Simtune's PPO on the work; see `work`.

    python -m tests.benchmarks.peers.training.with_simtune PART BASES SEED [OPTION=VALUE ...]

with PART `grid-choose`, `grid-generate` or `reading` prints JSON. Every decision is captured into
a store on disk, as in any run of simtune; models are loaded before the clock starts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.training import environments, work

GRID: dict[str, Any] = {
    "episodes_per_iteration": 32,
    "num_envs": 32,
    "max_new_tokens": 1,
    "epochs": 3,
    "minibatch_size": 128,
    "gae_lambda": 0.9,
    "learning_rate": 3e-3,
    "critic_learning_rate": 3e-2,
    "critic_warmup": 0,
    "entropy_coef": 0.0,
}
"""Of 46 settings drawn from rounds of 16, 32, 48 episodes; 3, 5, 8 epochs; lambda of .8, .9, .95;
optimizer steps of 32 to 256 decisions; learning rates of 2e-3 to 1e-2, of the critic 3e-3 to
3e-2; entropy bonus of 0 and .01; value weights of .1 and .5; three or four seeds each. This one
reached the goal each time, in 843 turns and 0.87 s of processor time."""

READING: dict[str, Any] = {
    "episodes_per_iteration": work.Reading.episodes,
    "num_envs": 32,
    "max_new_tokens": work.Reading.answer_tokens,
    "epochs": 1,
    "minibatch_size": work.Reading.episodes * work.Reading.max_turns,
    "critic_warmup": 0,
    # What `auto` comes to after a run's first round, in which it measures the sampler.
    "behaviour": "stored",
}
PLAIN_ROWS = (4, 16)
"""Rows of a plain batch; the faster is the limit."""


def learner(base: Path, store: str, env: str, seed: int, **options: Any) -> Any:
    """A learner of simtune's, as `simtune train ppo` makes it."""
    from simtune.train.learner import Learner
    from simtune.train.options import PPOOptions
    from simtune.train.parallel import Processes

    made = PPOOptions(
        llm_path=str(base),
        env=f"{environments.__name__}:{env}",
        capture_root=store,
        seed=seed,
        lora_r=work.LORA_R,
        lora_alpha=work.LORA_ALPHA,
        lora_dropout=0.0,
        lora_target=work.LORA_TARGET,
        **options,
    )
    return Learner(made, "benchmark", Processes())


def grid(base: Path, store: str, seed: int, decision: str, **changed: Any) -> dict[str, Any]:
    """Rounds of roll-outs and updates until the goal is reached."""
    trained = learner(base, store, "grid_walk", seed, decision=decision, **(GRID | changed))
    environments.TALLY.start()
    index = 0
    while True:
        trained.round(index)
        index += 1
        if environments.TALLY.commit():
            return environments.TALLY.found()


def reading(base: Path, store: str, seed: int, **changed: Any) -> dict[str, Any]:
    """One round: a batch of roll-outs and one pass over them; then the limit on the same rows."""
    trained = learner(base, store, "reading", seed, **(READING | changed))
    gather, collected, episodes = trained.source.gather, [], []

    def timed(index: int) -> Any:
        gathered = gather(index)
        collected.append(time.process_time())
        episodes.extend(gathered.episodes)
        return gathered

    trained.source.gather = timed
    memory = work.Memory()
    started = time.process_time()
    trained.round(0)
    learned = time.process_time()
    last = [episode.turns[-1] for episode in episodes]
    rows = [[*turn.prompt_ids, *turn.action_ids] for turn in last]
    sampled = sum(len(turn.action_ids) for one in episodes for turn in one.turns)
    tokens = sum(map(len, rows))
    measured = work.Throughput(sampled, collected[0] - started, tokens, learned - collected[0])
    found = measured.found() | memory.found()
    trained.source.close()
    return found | {"limit": max(plain(trained.model.policy, rows, n) for n in PLAIN_ROWS)}


def plain(model: Any, rows: list[list[int]], size: int) -> float:
    """Tokens a CPU second of Hugging Face's own forward and backward, `size` rows at a time."""
    import torch

    started = time.process_time()
    for at in range(0, len(rows), size):
        some = rows[at : at + size]
        width = max(map(len, some))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in some])
        labels = torch.tensor([[*row, *[-100] * (width - len(row))] for row in some])
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        torch.autograd.backward(loss)
    model.zero_grad()
    return sum(map(len, rows)) / (time.process_time() - started)


def main(part: str, bases: Path, seed: int, **changed: Any) -> dict[str, Any]:
    """Measure one part."""
    work.single_thread()
    with tempfile.TemporaryDirectory() as store:
        if part.startswith("grid-"):
            return grid(bases / "grid", store, seed, part.removeprefix("grid-"), **changed)
        return reading(bases / "reading", store, seed, **changed)


if __name__ == "__main__":
    work.script(main)
