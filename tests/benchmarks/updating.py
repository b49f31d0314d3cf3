"""PPO's update next to a plain forward and backward pass over the same rows: the limit.

Growing chats: a 10M-parameter Llama, 64 episodes of 6 turns, 37 observation tokens (about 40
characters) and 8 answered tokens a turn. Markov prompts: the tiny model, 512 decisions on prompts
of their own. Both with all-linear LoRA of rank 8, one thread, CPU seconds of the process.

    python -m tests.benchmarks.updating
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.benchmarks.measure import Measured, of_rates, of_times

RUNS = 2
VOCABULARY = 2048
PLAIN_ROWS = (4, 8, 16, 32)
"""Rows of a plain batch; the fastest is the limit."""


def measure() -> Iterator[Measured]:
    """Tokens per second of CPU time: the limit, and updates of one and of three passes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for what, size, episodes in (
            ("10M, growing chats", (320, 864, 8, 8), _chats(64, 6)),
            ("0.9M, Markov prompts", (128, 384, 4, 4), _prompts(512)),
        ):
            # A model each: the update's own LoRA layers are faster than PEFT's.
            yield from _compare(what, _llama(*size), _llama(*size), episodes)
            yield from _layouts(what, _llama(*size), episodes)
            yield from _layers(what, _llama(*size))
    finally:
        torch.set_num_threads(threads)


def _compare(what: str, plain_model: Any, model: Any, episodes: list[Any]) -> Iterator[Measured]:
    from simtune.train.rows import chains

    rows = []
    for episode in episodes:
        prompts = [turn.prompt_ids for turn in episode.turns]
        for chain in chains(prompts, [turn.action_ids for turn in episode.turns]):
            rows.append([episode.turns[t] for t in chain])
    tokens = sum(len(row[-1].prompt_ids) + len(row[-1].action_ids) for row in rows)
    limit: list[float] = []
    some = {size: _plain(plain_model, rows[: max(PLAIN_ROWS)], size) for size in PLAIN_ROWS}
    best = min(some, key=lambda size: _seconds(some[size]))
    plain = _plain(plain_model, rows, best)
    updates = {epochs: _update(model, episodes, epochs) for epochs in (1, 3)}
    rates: dict[int, list[float]] = {1: [], 3: []}
    for _ in range(RUNS):
        limit.append(tokens / _seconds(plain))
        for epochs, update in updates.items():
            rates[epochs].append(epochs * tokens / _seconds(update))
    yield of_rates(f"{what}: plain forward and backward", "tokens/s", limit)
    for epochs, measured in rates.items():
        yield of_rates(f"{what}: update, {epochs} passes", "tokens/s", measured)
        share = [a / b for a, b in zip(measured, limit, strict=True)]
        yield Measured(
            f"{what}: update, {epochs} passes",
            "of plain",
            statistics.median(share),
            min(share),
            RUNS,
        )


def _layouts(what: str, model: Any, episodes: list[Any]) -> Iterator[Measured]:
    """Forward and backward of 4096 tokens in both layouts, by tokens computed at once."""
    import torch

    from simtune.train.actor_critic import ActorCritic
    from simtune.train.packing import Layout, pack, prepare

    actor_critic = ActorCritic(model)
    entries = prepare([turn for episode in episodes[:16] for turn in episode.turns])
    for packed in (False, True):
        for budget in (512, 1024, 4096):
            layout = Layout(budget=budget, packed=packed, pad_id=0, device=torch.device("cpu"))
            batches = list(pack(entries, layout))

            def run(batches: list[Any] = batches) -> None:
                for batch in batches:
                    out = actor_critic(batch)
                    torch.autograd.backward(out.logprobs.sum() + out.values.sum())

            tokens = sum(batch.tokens for batch in batches)
            name = f"{what}: {'packed' if packed else 'padded'}, {budget} at once"
            yield of_rates(name, "tokens/s", [tokens / _seconds(run) for _ in range(RUNS)])


def _layers(what: str, model: Any) -> Iterator[Measured]:
    """Forward, and forward with backward, of 4 rows of 270 tokens: PEFT's LoRA layers and ours."""
    import torch

    from simtune.train.lean_lora import make_lean

    ids = torch.randint(2, 500, (4, 270), generator=torch.Generator().manual_seed(0))
    decoder = model.get_base_model().model

    def forward() -> None:
        with torch.no_grad():
            decoder(input_ids=ids, use_cache=False)

    def both() -> None:
        states = decoder(input_ids=ids, use_cache=False).last_hidden_state
        torch.autograd.backward(states.pow(2).mean())

    for whose in ("PEFT's", "lean"):
        for name, work in (("forward", forward), ("forward and backward", both)):
            times = [_seconds(work) for _ in range(2 * RUNS + 1)]
            yield of_times(f"{what}: {name}, {whose} layers", "s", times)
        make_lean(model)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _llama(width: int, inner: int, layers: int, heads: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.local import quiet

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY if width > 200 else 512,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    with quiet():
        return get_peft_model(LlamaForCausalLM(config), lora).eval()


def _chats(count: int, turns: int) -> list[Any]:
    """Episodes whose prompts grow; as a sampler would leave them, but for the log-probabilities."""
    from simtune.train.episode_turns import EpisodeTurns
    from simtune.train.turns import Turn

    draw = random.Random(0)
    episodes = []
    for _ in range(count):
        made, ids = [], []
        for _ in range(turns):
            ids = ids + [draw.randrange(2, 512) for _ in range(draw.randrange(33, 42))]
            answer = [draw.randrange(2, 512) for _ in range(8)]
            made.append(Turn(prompt_ids=ids, action_ids=answer, behaviour_logprobs=[-6.0] * 8))
            ids = ids + answer
        rewards = [0.0] * (turns - 1) + [float(draw.random() < 0.5)]
        episodes.append(EpisodeTurns(turns=made, rewards=rewards))
    return episodes


def _prompts(count: int) -> list[Any]:
    """Episodes of 16 decisions that each have a prompt of their own and one answered token."""
    from simtune.train.episode_turns import EpisodeTurns
    from simtune.train.turns import Turn

    draw = random.Random(0)
    turns = [
        Turn(
            prompt_ids=[draw.randrange(2, 512) for _ in range(draw.randrange(50, 70))],
            action_ids=[draw.randrange(2, 512), 1],
            behaviour_logprobs=[-6.0] * 2,
        )
        for _ in range(count)
    ]
    rewards = [0.0] * 15 + [1.0]
    return [EpisodeTurns(turns=turns[i : i + 16], rewards=rewards) for i in range(0, count, 16)]


def _plain(model: Any, rows: Sequence[Sequence[Any]], size: int) -> Callable[[], None]:
    """Hugging Face's own loss on the sampled tokens, rows sorted by length."""
    import torch

    ordered = sorted(rows, key=lambda row: len(row[-1].prompt_ids))
    batches = []
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        width = max(len(row[-1].prompt_ids) + len(row[-1].action_ids) for row in some)
        ids = torch.zeros((len(some), width), dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for index, row in enumerate(some):
            whole = [*row[-1].prompt_ids, *row[-1].action_ids]
            ids[index, : len(whole)] = torch.tensor(whole)
            mask[index, : len(whole)] = 1
            for turn in row:
                begin = len(turn.prompt_ids)
                labels[index, begin : begin + len(turn.action_ids)] = torch.tensor(turn.action_ids)
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})

    def run() -> None:
        for batch in batches:
            torch.autograd.backward(model(**batch, use_cache=False).loss)
        model.zero_grad()

    return run


def _update(model: Any, episodes: list[Any], epochs: int) -> Callable[[], dict[str, float]]:
    """One round of PPO as it is by default, but for the warm-up."""
    from simtune.train.actor_critic import ActorCritic
    from simtune.train.options import PPOOptions
    from simtune.train.update import PPO

    options = PPOOptions(llm_path="-", critic_warmup=0, epochs=epochs, behaviour="stored")
    ppo = PPO(ActorCritic(model), options, pad_id=0)
    return lambda: ppo.round(0, episodes)


if __name__ == "__main__":
    for line in measure():
        sys.stdout.write(f"{line.what:50s} {line.median:10.3g} {line.unit}\n")
