"""How long after its last decision an episode is learned from, and an adapter is answered with."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simtune.registry.following import FollowingPolicy
from simtune.store import read
from simtune.train.intake import Intake
from tests.benchmarks.measure import Measured, of_times

EPISODES = 200
ROUND = 20
SWAPS = 8
PAUSE_SECONDS = 0.03


def measure() -> Iterator[Measured]:
    """Of a trainer that waits, and of a policy that follows; the looking itself too."""
    with tempfile.TemporaryDirectory() as folder:
        yield of_times("episode's end to trainer, waiting", "ms", list(_arrivals(folder)))
    with tempfile.TemporaryDirectory() as folder:
        models, base = Path(folder) / "models", Path(folder) / "base"
        _base(base)
        policy = FollowingPolicy(models, base, greedy=True, max_new_tokens=1)
        yield of_times("swap and one token, CPU", "ms", list(_swaps(policy, models)))
        looks = []
        for _ in range(2000):
            started = time.perf_counter()
            policy.look()
            looks.append(1e6 * (time.perf_counter() - started))
        yield of_times("look at an unchanged registry", "us", looks)


def _arrivals(root: str) -> Iterator[float]:
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.train.simulating", root, str(EPISODES), str(PAUSE_SECONDS)]
    )
    intake = Intake(root, timeout=60, stop=threading.Event(), on_wait=None)
    for _ in range(EPISODES // ROUND):
        for taken in intake.take(ROUND, lambda _: None) or ():
            yield 1000 * taken.delay
    writer.wait()
    assert sum(1 for _ in read(root).episodes(ended=True)) == EPISODES


def _base(output: Path) -> None:
    from simtune.policy.tiny import build_model, build_tokenizer, save_base

    tokenizer = build_tokenizer(["go left", "go right"] * 20)
    save_base(build_model(tokenizer), tokenizer, output)


def _swaps(policy: FollowingPolicy, models: Path) -> Iterator[float]:
    """CPU time from `register` to the first reply that carries the hash, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in range(SWAPS):
        adapter = _register(policy, models, seed)
        started = time.process_time()
        (reply,) = policy.act([[{"role": "user", "content": "go left"}]])
        assert reply.adapter == adapter
        if seed:  # The first one makes the layers.
            yield 1000 * (time.process_time() - started)
    torch.set_num_threads(threads)


def _register(policy: FollowingPolicy, models: Path, seed: int) -> str:
    import torch
    from peft import LoraConfig, get_peft_model

    from simtune.policy.adapter_hash import adapter_sha256
    from simtune.policy.local import load_base, quiet
    from simtune.registry import Registry

    torch.manual_seed(seed)
    config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        model: Any = get_peft_model(load_base(str(policy.name))[0], config)
    registry = Registry(models)
    with registry.staging() as staged:
        model.save_pretrained(str(staged))
        record = registry.register(
            staged,
            method="ppo",
            base_model=str(policy.name),
            weights_sha256=adapter_sha256(model),
        )
    return record.weights_sha256
