"""From hidden states to log-probabilities, without a `[tokens, vocabulary]` matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 2**24
"""Logits that exist at once, 64 MiB in float32; more are computed piece by piece, twice."""


class Vocabulary:
    """The model's way from a hidden state to logits: output matrix, scale and soft cap.

    Args:
        model: the causal language model, without PEFT around it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.project = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.soft_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale: float = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None)
        if divisor:
            self.scale /= divisor
        self.size: int = config.vocab_size

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states `[R, H]` to logits, float32 `[R, V]`."""
        logits: torch.Tensor = self.project(hidden).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits

    def ask(
        self,
        hidden: torch.Tensor,
        temperatures: torch.Tensor | None,
        asked_reads: torch.Tensor,
        asked_ids: torch.Tensor,
        *,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of tokens under softmax(logits / temperature).

        Above `CHUNK` logits, reads are taken a piece at a time, and a piece's logits are computed
        again in the backward pass.

        Args:
            hidden: states that predict, `[R, H]`.
            temperatures: of each, `[R]`; None where all are 1.
            asked_reads: the predicting state of each asked token, `[A]`.
            asked_ids: the asked tokens, `[A]`.
            entropy_gradient: whether the entropy carries gradient.

        Returns:
            Log-probability of each asked token `[A]`, and the entropy of each read in nats `[R]`.
        """
        step = max(1, CHUNK // self.size)
        if len(hidden) <= step:
            return self._some(hidden, temperatures, asked_reads, asked_ids, entropy_gradient)
        logprobs = hidden.new_zeros(len(asked_ids), dtype=torch.float32)
        entropies = []
        for start in range(0, len(hidden), step):
            inside = ((asked_reads >= start) & (asked_reads < start + step)).nonzero().squeeze(1)
            heat = None if temperatures is None else temperatures[start : start + step]
            some, entropy = checkpoint(
                self._some,
                hidden[start : start + step],
                heat,
                asked_reads[inside] - start,
                asked_ids[inside],
                entropy_gradient,
                use_reentrant=False,
            )
            logprobs = logprobs.index_put((inside,), some)
            entropies.append(entropy)
        return logprobs, torch.cat(entropies)

    def _some(
        self,
        hidden: torch.Tensor,
        temperatures: torch.Tensor | None,
        asked_reads: torch.Tensor,
        asked_ids: torch.Tensor,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits(hidden)
        if temperatures is not None:
            logits = logits / temperatures[:, None]
        scores = torch.log_softmax(logits, dim=-1)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(scores.exp() * scores).sum(-1)
        return scores[asked_reads, asked_ids], entropy
