"""Sampling that returns exactly what training needs: ids and their log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import torch


class Sampled(msgspec.Struct):
    """One sampled answer.

    Attributes:
        token_ids: sampled ids, `[n]`, end-of-turn token included where it was sampled, and not
            invented where the length limit cut.
        logprobs: log-probability of each id under softmax(logits / temperature), `[n]`.
        ended: no further token is wanted.
    """

    token_ids: list[int] = []
    logprobs: list[float] = []
    ended: bool = False


class Settings(msgspec.Struct, kw_only=True):
    """How answers are drawn: from the full distribution, no top-k, no top-p.

    PPO needs the policy's own probability of what was drawn.

    Attributes:
        eos_ids: ids that end an answer.
        max_new_tokens: longest answer.
        temperature: divides the logits; log-probabilities are those of the tempered policy.
        greedy: take the most probable token instead of sampling.
        generator: source of randomness, on the model's device.
        stopped: whether the tokens so far end the answer, asked after each; None: never.
    """

    eos_ids: frozenset[int]
    max_new_tokens: int
    temperature: float = 1.0
    greedy: bool = False
    generator: Any = None
    stopped: Callable[[list[int]], bool] | None = None

    def draw(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One token for each row of logits `[b, vocabulary]`, with its log-probability, `[b]`."""
        import torch

        scores = torch.log_softmax(logits.float() / self.temperature, dim=-1)
        if self.greedy:
            chosen = scores.argmax(-1)
        else:
            chosen = torch.multinomial(scores.exp(), 1, generator=self.generator)[:, 0]
        return chosen, scores.gather(1, chosen[:, None])[:, 0]

    def take(self, answer: Sampled, token: int, logprob: float) -> None:
        """Add a drawn token to an answer, and note where that ends it."""
        answer.token_ids.append(token)
        answer.logprobs.append(logprob)
        answer.ended = (
            token in self.eos_ids
            or len(answer.token_ids) >= self.max_new_tokens
            or (self.stopped is not None and self.stopped(answer.token_ids))
        )


def sample(
    model: Any, prompts: Sequence[Sequence[int]], settings: Settings, *, pad_id: int
) -> list[Sampled]:
    """Sample one answer to each prompt over a cache of the model's own kind, made for this call.

    For models whose layers are not all full attention; `Sampler` answers for the others. Prompts
    are padded on the left with positions that ignore the padding, so an answer does not depend on
    its neighbours (beyond floating-point rounding).

    Args:
        model: a causal language model in eval mode.
        prompts: token ids of each prompt, `[batch][prompt_len]`.
        settings: of the sampling.
        pad_id: id that fills the left; never attended to.
    """
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width + settings.max_new_tokens), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    mask[:, width:] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    answers = [Sampled() for _ in prompts]
    cache, seen = None, 0
    with torch.inference_mode():
        while not all(answer.ended for answer in answers):
            ahead = seen + ids.shape[1]
            out = model(
                input_ids=ids,
                attention_mask=mask[:, :ahead],
                position_ids=positions[:, seen:ahead],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, seen = out.past_key_values, ahead
            chosen, logprobs = settings.draw(out.logits[:, -1])
            for answer, token, logprob in zip(
                answers, chosen.tolist(), logprobs.tolist(), strict=True
            ):
                if not answer.ended:
                    settings.take(answer, token, logprob)
            ids = chosen[:, None]
    return answers
