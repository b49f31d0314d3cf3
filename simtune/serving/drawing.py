"""Draws the next token of many answers at once, each in its own way."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from simtune.serving.asks import Ask


def draw(logits: torch.Tensor, asks: Sequence[Ask], ends: frozenset[int]) -> None:
    """Draw one token for each answer, from the full distribution.

    Args:
        logits: `[n, vocabulary]`, in the order of `asks`.
        asks: the answers; each takes its token.
        ends: ids that end an answer.
    """
    heat = [ask.wanted.temperature or 1.0 for ask in asks]
    scores = logits.float()
    if any(each != 1.0 for each in heat):
        scores = scores / torch.tensor(heat, device=scores.device)[:, None]
    scores = torch.log_softmax(scores, dim=-1)
    chosen = _chosen(scores, asks)
    logprobs = scores.gather(1, chosen[:, None])[:, 0].tolist()
    most = max(ask.wanted.alternatives for ask in asks)
    others = _most_probable(scores, most) if most else None
    for at, (ask, token, logprob) in enumerate(zip(asks, chosen.tolist(), logprobs, strict=True)):
        told = others[at][: ask.wanted.alternatives] if others else []
        ask.take(token, logprob, told, ends)


def _chosen(scores: torch.Tensor, asks: Sequence[Ask]) -> torch.Tensor:
    greedy = [ask.wanted.temperature == 0 for ask in asks]
    if all(greedy):
        return scores.argmax(-1)
    chances = scores.exp()
    chosen = torch.multinomial(chances, 1)[:, 0]
    for at, ask in enumerate(asks):
        if greedy[at]:
            chosen[at] = scores[at].argmax()
        elif ask.wanted.seed is not None:
            chosen[at] = seeded(chances[at], ask)
    return chosen


def seeded(chances: torch.Tensor, ask: Ask) -> torch.Tensor:
    """Draw with the answer's own source of randomness: the largest chance over exponential noise.

    On the CPU, so that a seed means the same on every device.
    """
    if ask.generator is None:
        ask.generator = torch.Generator().manual_seed(ask.wanted.seed or 0)
    noise = torch.empty(chances.shape).exponential_(generator=ask.generator)
    return (chances / noise.to(chances.device)).argmax()


def _most_probable(scores: torch.Tensor, count: int) -> list[list[tuple[int, float]]]:
    values, ids = scores.topk(min(count, scores.shape[-1]), dim=-1)
    return [
        list(zip(row_ids, row_values, strict=True))
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
    ]
