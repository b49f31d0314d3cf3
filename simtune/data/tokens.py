"""Samples as token ids, with the loss on the answer's tokens only.

The prompt's ids are exactly those that serving gives the model; ids that were captured are used
as they are, never tokenised anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from simtune.data.samples import Sample
from simtune.errors import DataError
from simtune.records import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that the loss does not look at."""


class Encoded(msgspec.Struct, frozen=True):
    """One sample as ids.

    Attributes:
        prompt_ids: what the model is given, `[P]`.
        response_ids: what it is to answer, end-of-turn token included, `[R]`.
        captured: these are the ids that were sampled, not made from the text.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    captured: bool


class Tokenised(msgspec.Struct, kw_only=True):
    """Samples ready to be batched.

    Attributes:
        input_ids: prompt and answer, `[N][L]`.
        labels: the answer's ids at its positions, `IGNORED` elsewhere, `[N][L]`.
        captured: how many samples kept the ids they were sampled with.
        dropped: how many were longer than the limit and left out.
        truncated: how many were longer than the limit and cut.
    """

    input_ids: list[list[int]]
    labels: list[list[int]]
    captured: int = 0
    dropped: int = 0
    truncated: int = 0


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Ids of a prompt by the model's own chat template, up to where the assistant begins."""
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def encode(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> Encoded:
    """Ids of one sample.

    Captured ids are taken where they decode to the captured text, which shows that this tokenizer
    made them; another model's are replaced by ids of the text, ended by the end-of-turn token.
    """
    if sample.token_ids and sample.prompt_token_ids and _are_ours(tokenizer, sample):
        return Encoded(list(sample.prompt_token_ids), list(sample.token_ids), True)
    response: list[int] = tokenizer(sample.response, add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id is not None:
        response = [*response, tokenizer.eos_token_id]
    return Encoded(prompt_ids(tokenizer, sample.prompt), response, False)


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    *,
    max_length: int,
    excess_length: Literal["drop", "truncate", "raise"] = "drop",
) -> Tokenised:
    """Encode samples, with labels, within a length.

    Args:
        tokenizer: the model's own; needs a chat template.
        samples: what to encode.
        max_length: longest sample, tokens.
        excess_length: leave longer samples out, cut them (the beginning of the prompt goes first,
            the answer's end only where it alone is too long), or raise.

    Raises:
        DataError: a sample is too long and `excess_length` is `raise`, or none is left.
    """
    made = Tokenised(input_ids=[], labels=[])
    for sample in samples:
        encoded = encode(tokenizer, sample)
        length = len(encoded.prompt_ids) + len(encoded.response_ids)
        if length > max_length:
            if excess_length == "raise":
                raise DataError(
                    f"the sample {sample.origin!r} is too long",
                    expected=f"at most {max_length} tokens (--max-length)",
                    got=f"{length} tokens",
                    fix="--excess-length drop or truncate, or a larger --max-length",
                )
            if excess_length == "drop":
                made.dropped += 1
                continue
            encoded = _cut(encoded, max_length)
            made.truncated += 1
        made.captured += encoded.captured
        made.input_ids.append(encoded.prompt_ids + encoded.response_ids)
        made.labels.append([IGNORED] * len(encoded.prompt_ids) + encoded.response_ids)
    if not made.input_ids:
        raise DataError(
            "no sample is left to train on",
            got=f"all {made.dropped} are longer than {max_length} tokens",
            fix="--max-length N, or --excess-length truncate",
        )
    return made


def _cut(encoded: Encoded, max_length: int) -> Encoded:
    """Cut to a length; at least one token of the prompt stays."""
    response = encoded.response_ids[: max_length - 1]
    prompt = encoded.prompt_ids[-(max_length - len(response)) :]
    return Encoded(prompt, response, encoded.captured)


def _are_ours(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> bool:
    known = len(tokenizer)
    if max(*sample.token_ids, *sample.prompt_token_ids) >= known:
        return False
    text = tokenizer.decode(sample.token_ids, skip_special_tokens=True)
    return bool(text.strip() == sample.response.strip())
