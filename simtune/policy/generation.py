"""Batched sampling that returns exactly what training needs: ids and their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Sampled(msgspec.Struct):
    """One sampled answer.

    Attributes:
        token_ids: sampled ids, `[n]`, end-of-turn token included where it was sampled.
        logprobs: log-probability of each id under softmax(logits / temperature), `[n]`.
    """

    token_ids: list[int]
    logprobs: list[float]


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    eos_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    greedy: bool = False,
    generator: torch.Generator | None = None,
) -> list[Sampled]:
    """Sample one answer to each prompt, all in one batch over one key-value cache.

    Prompts are padded on the left with positions that ignore the padding, so an answer does not
    depend on its neighbours (beyond floating-point rounding). Sampling is from the full
    distribution: no top-k, no top-p, because PPO needs the policy's own probability.

    Args:
        model: a causal language model in eval mode.
        prompts: token ids of each prompt, `[batch][prompt_len]`.
        eos_ids: ids that end an answer.
        pad_id: id that fills the left; never attended to.
        max_new_tokens: longest answer.
        temperature: divides the logits; log-probabilities are those of the tempered policy.
        greedy: take the most probable token instead of sampling.
        generator: source of randomness, on the model's device.
    """
    import torch

    device = model.device
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width + max_new_tokens), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ends = torch.tensor(list(eos_ids), device=device)

    step_ids, step_positions, cache = ids, positions[:, :width], None
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    tokens, logprobs, taken = [], [], []
    with torch.inference_mode():
        for step in range(max_new_tokens):
            out = model(
                input_ids=step_ids,
                attention_mask=mask[:, : width + step],
                position_ids=step_positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            scores = torch.log_softmax(out.logits[:, -1].float() / temperature, dim=-1)
            chosen = (
                scores.argmax(-1)
                if greedy
                else torch.multinomial(scores.exp(), 1, generator=generator).squeeze(1)
            )
            tokens.append(chosen)
            logprobs.append(scores.gather(1, chosen[:, None]).squeeze(1))
            taken.append(alive)
            alive = alive & ~torch.isin(chosen, ends)
            if not alive.any():
                break
            step_ids = chosen[:, None]
            step_positions = positions[:, width + step : width + step + 1]
    lengths = torch.stack(taken).sum(0).tolist()
    all_tokens = torch.stack(tokens, 1).tolist()
    all_logprobs = torch.stack(logprobs, 1).tolist()
    return [
        Sampled(token_ids=ids_[:length], logprobs=logprobs_[:length])
        for ids_, logprobs_, length in zip(all_tokens, all_logprobs, lengths, strict=True)
    ]
