"""A decoder of about a million parameters with its own tokenizer, made on the spot.

It starts from random weights. `fit_to_play` then teaches it the texts of an environment as a
language model on uniformly random play: LoRA on a frozen random output matrix cannot lift a
probability far, so adapters need a base that has seen the words. No reward is involved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simtune.errors import DataError
from simtune.records import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
WIDTH = 128
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")


def build_tokenizer(texts: Iterable[str], *, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; any text can be encoded, known words become one token.

    Args:
        texts: what to learn merges from.
        vocab_size: upper bound, bytes and special tokens included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> PreTrainedModel:
    """A Llama with 4 layers of width 128 and random weights, about 0.9M parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        # The default of 0.02 suits wide models; here it would leave logits too flat for LoRA.
        initializer_range=WIDTH**-0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: PreTrainedModel = LlamaForCausalLM(config)
    return model


def fit_to_play(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Messages],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> float:
    """Fit the model to whole conversations with next-token cross-entropy; returns the last loss.

    Args:
        model: changed in place; all parameters are trained.
        tokenizer: the model's own.
        conversations: messages of random play, the random answers included.
        steps: optimizer steps (AdamW; a sixth of them warm up, then cosine decay to a tenth).
        batch_size: conversations per step.
        learning_rate: peak learning rate.
        seed: order of the conversations.
        on_step: called with (step, steps, loss in nats per token).

    Raises:
        DataError: there are no conversations.
    """
    import torch
    from torch.nn.functional import cross_entropy

    if not conversations:
        raise DataError("no conversations to fit the tiny model to", expected="random play")
    texts = tokenizer.apply_chat_template(conversations, tokenize=False)
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    model.train()
    last = math.nan
    for step in range(steps):
        picked = torch.randint(len(rows), (batch_size,), generator=generator).tolist()
        batch = tokenizer.pad({"input_ids": [rows[i] for i in picked]}, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        warm = min(1.0, (step + 1) / (steps / 6))
        decay = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm * decay
        logits = model(**batch).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = loss.item()
        if on_step is not None:
            on_step(step + 1, steps, last)
    model.eval()
    return last


def save_base(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Save in Hugging Face format, so that every loader takes it like any other model."""
    from simtune.policy.local import quiet

    with quiet():
        model.save_pretrained(output)
    tokenizer.save_pretrained(output)
