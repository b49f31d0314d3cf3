"""The policy with a value head: log-probabilities of actions and values of states, one pass."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import nn

from simtune.errors import TrainingError
from simtune.train.lean_lora import make_lean
from simtune.train.packing import MicroBatch
from simtune.train.vocabulary import Vocabulary

if TYPE_CHECKING:
    from peft import PeftModel


class Evaluated(msgspec.Struct):
    """What one pass over a `MicroBatch` of N units and K values gives.

    Attributes:
        logprobs: of each unit at its decision's temperature, `[N]`.
        entropy: of the policy at each unit, nats, `[N]`.
        values: of the critic, `[K]`.
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

    Raises:
        TrainingError: the model's logits are not made of its last hidden states in a known way.
    """

    def __init__(self, policy: PeftModel) -> None:
        super().__init__()
        self.policy = policy
        make_lean(policy)
        causal = policy.get_base_model()
        self.decoder = getattr(causal, causal.base_model_prefix)
        self.vocabulary = Vocabulary(causal)
        self.value_head = nn.Linear(causal.config.get_text_config().hidden_size, 1).to(
            causal.device
        )
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.eval()
        self._check_logits()

    @property
    def packs(self) -> bool:
        """Whether the attention in use keeps packed rows apart without a quadratic mask."""
        name = self.policy.get_base_model().config._attn_implementation or ""
        return "flash" in name

    def reference(self) -> AbstractContextManager[None]:
        """Inside this context the adapter is off; it is on again afterwards, come what may."""
        context: AbstractContextManager[None] = self.policy.disable_adapter()
        return context

    def hidden(self, batch: MicroBatch) -> torch.Tensor:
        """The last hidden state at every place, `[B * L, H]`."""
        mask = batch.attention_mask
        if mask is not None:
            dtype = self.policy.get_base_model().dtype
            least = torch.finfo(dtype).min
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least)
        states: torch.Tensor = self.decoder(
            input_ids=batch.input_ids,
            attention_mask=mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        return states.flatten(0, 1)

    def forward(
        self, batch: MicroBatch, *, critic: bool = True, entropy_gradient: bool = True
    ) -> Evaluated:
        """Evaluate a batch; only states that predict an action meet the vocabulary.

        Args:
            batch: rows, and where to read them.
            critic: False leaves the values out (empty).
            entropy_gradient: False keeps the entropy out of the graph.
        """
        hidden = self.hidden(batch)
        logprobs, entropy = self.actions(hidden, batch, entropy_gradient=entropy_gradient)
        values = self.value(hidden.index_select(0, batch.value_places[: None if critic else 0]))
        return Evaluated(logprobs=logprobs, entropy=entropy, values=values)

    def actions(
        self, hidden: torch.Tensor, batch: MicroBatch, *, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each unit, and the policy's entropy there, both `[N]`."""
        logprobs, entropy = self.vocabulary.ask(
            hidden.index_select(0, batch.reads),
            batch.temperatures,
            batch.asked_reads,
            batch.asked_ids,
            entropy_gradient=entropy_gradient,
        )
        sampled = batch.sampled
        entropy = entropy[batch.asked_reads[:sampled]]
        if batch.options is None:
            return logprobs, entropy
        chosen, of_options = batch.options.decide(logprobs[sampled:])
        return torch.cat([logprobs[:sampled], chosen]), torch.cat([entropy, of_options])

    def value(self, states: torch.Tensor) -> torch.Tensor:
        """The critic's values of hidden states `[K, H]`, float32 `[K]`."""
        values: torch.Tensor = self.value_head(states.to(self.value_head.weight.dtype))
        return values.squeeze(-1).float()

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Compare the logits made here with the model's own, on a few tokens."""
        causal = self.policy.get_base_model()
        ids = torch.arange(min(8, self.vocabulary.size), device=causal.device)[None]
        own = causal(input_ids=ids, use_cache=False).logits[0].float()
        states = self.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        made = self.vocabulary.logits(states)
        if not torch.allclose(made, own, atol=1e-2, rtol=1e-2):
            raise TrainingError(
                f"{type(causal).__name__} makes its logits in a way that PPO does not know",
                expected="output embeddings, with logit_scale, logits_scaling or soft cap",
                got=f"logits that differ by {(made - own).abs().max().item():.3g}",
            )
