"""Roll-outs next to what else could sample them, and to the model's own passes: the limit.

Growing chats: a 10M-parameter Llama with LoRA of rank 8, 64 episodes of 6 turns, 40 observation
characters and 8 answered tokens a turn, captured. Markov prompts: the tiny model on random lakes,
answers generated and chosen. One thread, CPU seconds of the process.

    python -m tests.benchmarks.rolling
"""

from __future__ import annotations

import random
import string
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from simtune.recording import seal
from tests.benchmarks.measure import Measured, of_rates

LAKE = "simtune.demo.lake:lake"
EPISODES, TURNS, SHOWN, ANSWERED = 64, 6, 40, 8
RUNS = 3
FIT_STEPS = 30
"""Enough for answers that are moves; how good they are does not change how long they take."""


def measure() -> Iterator[Measured]:
    """Sampled tokens per second of growing chats, then decisions per second of Markov prompts."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as place:
            yield from _growing(f"{place}/store")
            yield from _markov(Path(place))
            # Nothing is left to be written where nothing will be.
            seal(f"{place}/store")
    finally:
        torch.set_num_threads(threads)


def talk() -> Any:
    """An environment that shows random characters, whatever is answered, in a growing chat."""
    import gymnasium

    class Talk(gymnasium.Env[str, str]):
        observation_space = gymnasium.spaces.Text(SHOWN)
        action_space = gymnasium.spaces.Text(4096)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict]:
            self.chance = random.Random(seed)
            self.chat: list[dict[str, str]] = []
            return self._show(), {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
            self.chat.append({"role": "assistant", "content": action})
            shown = self._show()
            return shown, 0.0, False, len(self.chat) > 2 * TURNS, {}

        def messages(self, observation: str) -> list[dict[str, str]]:
            return list(self.chat)

        def _show(self) -> str:
            shown = "".join(self.chance.choices(string.ascii_lowercase, k=SHOWN))
            self.chat.append({"role": "user", "content": shown})
            return shown

    return Talk()


def _growing(root: str) -> Iterator[Measured]:
    from simtune.gym import rollout
    from simtune.policy.local import LocalPolicy

    model, tokenizer = _llama()
    policy = LocalPolicy(model, tokenizer, max_new_tokens=ANSWERED)

    def play() -> int:
        played = rollout(talk, policy, episodes=EPISODES, num_envs=EPISODES, root=root)
        return sum(len(decision.token_ids) for one in played for decision in one.decisions)

    rates = [_rate(play) for _ in range(RUNS)]
    yield of_rates("growing chats: simtune roll-out", "tokens/s", rates)
    for what, sample, runs in (
        ("growing chats: passes over a kept cache", _passes, RUNS),
        ("growing chats: generate, a cache for each turn", _generate, 1),
        ("first turns only: generate_batch, paged", _generate_batch, 1),
    ):
        rates = [_rate(lambda sample=sample: sample(model)) for _ in range(runs)]
        yield of_rates(what, "tokens/s", rates)


def _rate(work: Callable[[], int]) -> float:
    started = time.process_time()
    return work() / (time.process_time() - started)


def _llama() -> tuple[Any, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.local import quiet
    from simtune.policy.tiny import build_tokenizer

    tokenizer = build_tokenizer(["x"], vocab_size=270)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear")
    with quiet():
        return get_peft_model(LlamaForCausalLM(config).eval(), lora).eval(), tokenizer


def _shown(turns: int) -> Any:
    import torch

    # Three tokens of the template a turn: its end, and the two roles.
    return torch.randint(6, 200, (EPISODES, turns * (SHOWN + 3)))


def _passes(model: Any) -> int:
    """What the work costs at least with the model as it is: every token passes once."""
    import torch

    cache, ids = None, _shown(1)
    with torch.inference_mode():
        for _ in range(TURNS):
            for _ in range(ANSWERED):
                out = model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
                cache, ids = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, _shown(1)], 1)
    return EPISODES * TURNS * ANSWERED


def _generate(model: Any) -> int:
    """Transformers' batched generation, which begins anew each turn."""
    import torch

    ids = _shown(1)
    for _ in range(TURNS):
        ids = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=ANSWERED,
            do_sample=True,
            top_k=0,
        )
        ids = torch.cat([ids, _shown(1)], 1)
    return EPISODES * TURNS * ANSWERED


def _generate_batch(model: Any) -> int:
    """Transformers' continuous batching, log-probabilities returned: one turn, the cheapest."""
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    drawn = GenerationConfig(max_new_tokens=ANSWERED, do_sample=True, top_k=0, eos_token_id=-1)
    paged = ContinuousBatchingConfig(
        return_logprobs=True, num_blocks=3 * EPISODES, max_batch_tokens=4096
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = model.get_base_model().generate_batch(
            inputs=_shown(1).tolist(), generation_config=drawn, continuous_batching_config=paged
        )
    return sum(len(one.generated_tokens) for one in found.values())


def _markov(place: Path) -> Iterator[Measured]:
    from simtune.gym import Player
    from simtune.policy.local import LocalPolicy

    base = place / "base"
    make_base(base)
    for decision in ("generate", "choose"):
        policy = LocalPolicy.load(base, max_new_tokens=4, decision=decision)
        with Player(LAKE, policy, num_envs=EPISODES, root=f"{place}/store") as player:

            def play(run: int, player: Player = player) -> int:
                return sum(map(len, player.play(episodes=EPISODES, seeds=run * EPISODES)))

            play(RUNS)
            rates = [_rate(lambda run=run: play(run)) for run in range(RUNS)]
        yield of_rates(f"lakes, tiny model: {decision}", "decisions/s", rates)


def make_base(output: Path) -> None:
    """The tiny base model, fitted as long as it takes to answer with moves."""
    from simtune.policy.random_play import conversations
    from simtune.policy.tiny import build_model, build_tokenizer, fit_to_play, save_base

    played = conversations(LAKE, count=500, seed=0)
    tokenizer = build_tokenizer(message["content"] for one in played for message in one)
    model = build_model(tokenizer)
    fit_to_play(model, tokenizer, played, steps=FIT_STEPS)
    save_base(model, tokenizer, output)


if __name__ == "__main__":
    for line in measure():
        sys.stdout.write(f"{line.what}: {line.median:.4g} {line.unit} (worst {line.worst:.4g})\n")
