"""The policy with a value head: log-probabilities of actions and values of states, one pass."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import nn

from simtune.train.turns import TurnBatch

if TYPE_CHECKING:
    from peft import PeftModel


class Evaluated(msgspec.Struct):
    """What one pass over a `TurnBatch` of D decisions with N action tokens gives.

    Attributes:
        logprobs: of each action token at its decision's temperature, `[N]`.
        entropy: of the policy at each action token, nats, `[N]`.
        values: at the last prompt token of each decision, `[D]`.
    """

    logprobs: torch.Tensor
    entropy: torch.Tensor
    values: torch.Tensor


class ActorCritic(nn.Module):
    """A LoRA policy and a linear critic on its last hidden state.

    The critic starts at zero. Dropout is off in every pass: a log-probability under dropout is
    not the sampling policy's.

    Args:
        policy: a PEFT model; its base with the adapter off is the reference policy.
    """

    def __init__(self, policy: PeftModel) -> None:
        super().__init__()
        self.policy = policy
        causal = policy.get_base_model()
        self.decoder = getattr(causal, causal.base_model_prefix)
        self.lm_head = causal.get_output_embeddings()
        self.value_head = nn.Linear(causal.config.get_text_config().hidden_size, 1).to(
            causal.device
        )
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.eval()

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context the adapter is off; it is on again afterwards, come what may."""
        context: AbstractContextManager[None] = self.policy.disable_adapter()
        return context

    def forward(self, batch: TurnBatch, *, actor: bool = True) -> Evaluated:
        """Evaluate a batch.

        Only hidden states that predict an action token meet the vocabulary, so `[tokens, vocab]`
        never exists.

        Args:
            batch: padded rows; see `TurnBatch`.
            actor: False leaves out logprobs and entropy (both empty) and lets no gradient into
                the policy: what critic warm-up and value estimates need.
        """
        with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
            hidden = self.decoder(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).last_hidden_state
        states = hidden[torch.arange(len(hidden), device=hidden.device), batch.prompt_ends]
        values = self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1).float()
        if not actor:
            empty = values.new_zeros(0)
            return Evaluated(logprobs=empty, entropy=empty, values=values)
        logits = self.lm_head(hidden[batch.action_rows, batch.action_positions - 1]).float()
        scores = torch.log_softmax(logits / batch.temperatures[batch.action_rows, None], dim=-1)
        actions = batch.input_ids[batch.action_rows, batch.action_positions]
        return Evaluated(
            logprobs=scores.gather(1, actions[:, None]).squeeze(1),
            entropy=-(scores.exp() * scores).sum(-1),
            values=values,
        )
