"""The two base models, made once and read by every trainer as Hugging Face directories.

    python -m tests.benchmarks.peers.training.bases DIRECTORY

in simtune's environment. Characters are the tokens; the chat template puts what users and
assistants said one after another, as it is. The models are fitted as language models to play that
answers at random, because LoRA on a frozen random output matrix cannot lift a probability far;
rewards are not part of it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.training.work import GridWalk, Reading, Tally, single_thread

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] != 'system' -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
)
GAMES: dict[str, Any] = {"grid": GridWalk, "reading": Reading}
SIZES = {
    "grid": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
    "reading": {"hidden_size": 320, "num_hidden_layers": 8, "intermediate_size": 896},
}
HEADS = {"grid": 4, "reading": 5}
PLAYED = {"grid": 2_000, "reading": 40}
FITTED = {"grid": 400, "reading": 12}
"""Optimizer steps; on the larger model only until it no longer ends its answers early."""


def play(game: Any, episodes: int, seed: int) -> list[list[dict[str, str]]]:
    """Whole chats of episodes whose answers are drawn at random."""
    draw = random.Random(seed)
    chats = []
    for index in range(episodes):
        shown, _ = game.reset(seed=10_000_000 + index)
        chat = [{"role": "user", "content": shown}]
        ended = False
        while not ended:
            said = "".join(draw.choices(game.answers, k=game.answer_tokens))
            shown, _, ended, _, _ = game.step(said)
            chat += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": shown},
            ]
        chats.append(chat)
    return chats


def tokenizer(characters: str) -> Any:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "<unk>", *characters]
    core = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make(name: str, output: Path) -> int:
    """Make one base model; returns how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.tiny import fit_to_play, save_base

    game = GAMES[name]
    made = tokenizer(game.characters)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made),
        num_attention_heads=HEADS[name],
        num_key_value_heads=HEADS[name],
        max_position_embeddings=1024,
        initializer_range=SIZES[name]["hidden_size"] ** -0.5,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
        **SIZES[name],
    )
    model = LlamaForCausalLM(config)
    chats = play(game(Tally()), PLAYED[name], seed=0)
    size = 64 if name == "grid" else 4
    fit_to_play(model, made, chats, steps=FITTED[name], batch_size=size)
    save_base(model, made, output)
    return sum(parameter.numel() for parameter in model.parameters())


def main(place: Path) -> None:
    """Make both."""
    single_thread()
    for name in GAMES:
        parameters = make(name, place / name)
        sys.stderr.write(f"{name}: {parameters:,} parameters\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
