"""TRL's GRPO on the work; see `work`.

    python -m tests.benchmarks.peers.training.with_trl PART BASES SEED [OPTION=VALUE ...]

with PART `grid` or `reading` prints JSON. Episodes of several turns come in by `rollout_func`,
with what the environment said masked out of the loss. Each turn generates with the trainer's own
model, as TRL does without vLLM, for all episodes under way at once; TRL keeps no cache between
turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.training import work

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

GRID: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_generations": 8,
    "num_iterations": 1,
    "learning_rate": 6e-3,
}
"""Of 13 settings drawn from batches of 16, 32, 64; groups of 4, 8, 16; 1, 2, 4 iterations; learning
rates of 3e-3 and 6e-3; three seeds each: the fewest turns of those that reached the goal each time
(1,514, in 1.6 s of processor time). Batches of 64 were the fastest (1.1 s, with 2,560 turns)."""


class Rollouts:
    """Plays the games of a batch, each prompt's seed being what stands in the data set.

    Args:
        game: class of what is played.
        tally: counts.
        at_once: prompts that are generated for together.
    """

    def __init__(self, game: Any, tally: work.Tally, at_once: int = 64) -> None:
        self.game = game
        self.tally = tally
        self.at_once = at_once
        self.cpu = self.collected = 0.0
        self.sampled = self.tokens = 0

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode for each prompt; what TRL asks a `rollout_func` for."""
        started = time.process_time()
        chats = [_Chat(self.game(self.tally), slot, seed) for slot, seed in enumerate(prompts)]
        tokenizer = trainer.processing_class
        for chat in chats:
            chat.begin(tokenizer)
        going = chats
        while going:
            answers = self._generate(trainer, [chat.ids for chat in going])
            for chat, answer in zip(going, answers, strict=True):
                chat.take(answer, tokenizer)
            going = [chat for chat in going if not chat.ended]
        self.sampled += sum(sum(chat.own) for chat in chats)
        self.tokens += sum(len(chat.ids) for chat in chats)
        self.collected = time.process_time()
        self.cpu += self.collected - started
        return {
            "prompt_ids": [chat.ids[: chat.begun] for chat in chats],
            "completion_ids": [chat.ids[chat.begun :] for chat in chats],
            "logprobs": [[0.0] * (len(chat.ids) - chat.begun) for chat in chats],
            "env_mask": [chat.own for chat in chats],
            "reward": [chat.reward for chat in chats],
        }

    def _generate(self, trainer: Any, prompts: list[list[int]]) -> list[list[int]]:
        import torch

        tokenizer = trainer.processing_class
        ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
        answers: list[list[int]] = []
        for at in range(0, len(prompts), self.at_once):
            some = {"input_ids": prompts[at : at + self.at_once]}
            batch = tokenizer.pad(some, padding_side="left", return_tensors="pt")
            with torch.no_grad():
                out = trainer.model.generate(**batch, generation_config=trainer.generation_config)
            answers += out[:, batch["input_ids"].shape[1] :].tolist()
        return [_until(answer, ends) for answer in answers]


def _until(answer: list[int], ends: tuple[int, int]) -> list[int]:
    """The answer up to its end, which is part of it."""
    at = next((at for at, token in enumerate(answer) if token in ends), len(answer))
    return answer[: at + 1]


class _Chat:
    """One episode: its tokens, which of them are answers, its reward so far."""

    def __init__(self, game: Any, slot: int, seed: str) -> None:
        self.game = game
        self.slot = slot
        self.seed = int(seed)
        self.own: list[int] = []
        self.reward = 0.0
        self.ended = False

    def begin(self, tokenizer: Any) -> None:
        shown, _ = self.game.reset(seed=self.seed)
        self.ids = tokenizer(shown)["input_ids"]
        self.begun = len(self.ids)

    def take(self, answer: list[int], tokenizer: Any) -> None:
        said = tokenizer.decode(answer, skip_special_tokens=True)
        shown, reward, self.ended, _, _ = self.game.step(said)
        self.reward += reward
        self._add(answer, own=1)
        if not self.ended:
            self._add(tokenizer(shown)["input_ids"], own=0)

    def _add(self, ids: list[int], own: int) -> None:
        self.ids += ids
        self.own += [own] * len(ids)


def paid(prompts: list[str], reward: list[float], **_: Any) -> list[float]:
    """What the environment paid over the episode."""
    return reward


def trainer(base: Path, place: str, seed: int, rollouts: Rollouts, **options: Any) -> Any:
    """TRL's trainer; its data set is the seeds of episodes."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=place,
        seed=seed,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        lr_scheduler_type="constant",
        max_completion_length=rollouts.game.answer_tokens,
        temperature=1.0,
        beta=0.0,
        **options,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    lora = LoraConfig(
        r=work.LORA_R,
        lora_alpha=work.LORA_ALPHA,
        target_modules=work.LORA_TARGET,
        task_type="CAUSAL_LM",
    )
    first = seed * 1_000_000
    return GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=paid,
        train_dataset=Dataset.from_dict({"prompt": [str(first + i) for i in range(100_000)]}),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=lora,
        rollout_func=rollouts,
    )


def grid(base: Path, place: str, seed: int, **changed: Any) -> dict[str, Any]:
    """Steps until the goal is reached."""
    from transformers import TrainerCallback

    tally = work.Tally()
    found: dict[str, Any] = {}

    class Until(TrainerCallback):  # type: ignore[misc]
        """Stops where the goal is reached; a batch is committed once it was learned from."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not found and tally.commit():
                found.update(tally.found())
                control.should_training_stop = True

    options = GRID | changed
    made = trainer(base, place, seed, Rollouts(work.GridWalk, tally), max_steps=20_000, **options)
    made.add_callback(Until())
    tally.start()
    made.train()
    return found


def reading(
    base: Path, place: str, seed: int, *, rows: int = 4, at_once: int = 64, **changed: Any
) -> dict[str, Any]:
    """One batch of roll-outs, and one optimizer step on it.

    `rows` are trained on, and `at_once` prompts generated for, together.
    """
    from transformers import TrainerCallback

    rollouts = Rollouts(work.Reading, work.Tally(), at_once)
    ended: list[float] = []

    class Once(TrainerCallback):  # type: ignore[misc]
        """Stops after the first step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ended.append(time.process_time())
            control.should_training_stop = True

    made = trainer(
        base,
        place,
        seed,
        rollouts,
        max_steps=1,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=work.Reading.episodes // rows,
        num_generations=8,
        **changed,
    )
    made.add_callback(Once())
    memory = work.Memory()
    made.train()
    update = ended[0] - rollouts.collected
    measured = work.Throughput(rollouts.sampled, rollouts.cpu, rollouts.tokens, update)
    return measured.found() | memory.found()


def main(part: str, bases: Path, seed: int, **changed: Any) -> dict[str, Any]:
    """Measure one part."""
    work.single_thread()
    with tempfile.TemporaryDirectory() as place:
        if part == "grid":
            return grid(bases / "grid", place, seed, **changed)
        return reading(bases / "reading", place, seed, **changed)


if __name__ == "__main__":
    work.script(main)
