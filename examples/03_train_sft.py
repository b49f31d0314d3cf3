"""From captured decisions to a LoRA adapter: `python examples/03_train_sft.py [DIRECTORY]`.

A rule controls the junction and is captured; a tiny model then learns it from the store.
"""

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from junction import ROADS, STEPS, Junction, Messages, parse, rule

import simtune
from simtune.policy.local import LocalPolicy
from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base


def play(policy: Callable[[Messages], str], seed: int) -> Iterator[int]:
    """Play one episode; gives the number of waiting cars after each decision."""
    junction = Junction(seed)
    for _ in range(STEPS):
        answer = policy([{"role": "user", "content": junction.describe()}])
        yield junction.step(answer if answer in ROADS else None)


def base_model(output: Path) -> None:
    """Make a tiny base that has seen the junction's words, and uniformly random answers."""
    chance = random.Random(0)
    played = [
        [
            {"role": "user", "content": Junction(seed).describe()},
            {"role": "assistant", "content": chance.choice(ROADS)},
        ]
        for seed in range(1000)
    ]
    tokenizer = build_tokenizer(message["content"] for chat in played for message in chat)
    model = build_model(tokenizer)
    fit_to_play(model, tokenizer, played, steps=60)
    save_base(model, tokenizer, output)


def main(directory: Path) -> None:
    """Capture, train, compare."""
    simtune.configure(root=directory / "store")
    captured_rule = simtune.capture(parse=parse)(rule)
    for seed in range(50):
        with simtune.episode(env="junction", seed=seed) as episode:
            for waiting in play(captured_rule, seed):
                simtune.reward(-waiting)
            episode.finish(truncated=True)
    base_model(directory / "base")
    record = simtune.run_tuning(
        tuning_mode="sft",
        llm_path=str(directory / "base"),
        store=str(directory / "store"),
        top_fraction=0.8,
        epochs=4,
        learning_rate=2e-3,
        models_dir=str(directory / "models"),
        tracking_uri=str(directory / "mlruns"),
    )
    print(f"{record.id} learned from {record.data.episodes} episodes, all in {directory}")
    base, adapter = directory / "base", directory / "models" / record.path
    policies = {
        "rule": rule,
        "before": LocalPolicy.load(base, max_new_tokens=4, greedy=True),
        "after": LocalPolicy.load(base, adapter, max_new_tokens=4, greedy=True),
    }
    for name, policy in policies.items():
        waits = [waiting for seed in range(1000, 1010) for waiting in play(policy, seed)]
        print(f"{name}: {sum(waits) / len(waits):.1f} cars wait")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="simtune-example-")))
