"""The whole loss of PPO, in parts that add up over micro-batches and processes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from simtune.train import losses
from simtune.train.actor_critic import Evaluated
from simtune.train.options import PPOOptions
from simtune.train.packing import MicroBatch
from simtune.train.round_data import RoundData
from simtune.train.step_metrics import StepMetrics


class Targets(msgspec.Struct, kw_only=True):
    """What the loss of a round is made of beside the model: flat, on the model's device.

    Attributes:
        old: log-probabilities that ratios are taken to, `[N]`.
        importance: weights of the decoupled form, `[N]`; None in the plain form.
        behaviour: log-probabilities of the policies that sampled, `[N]`.
        reference: of the base, `[N]`; None where leaving it costs nothing.
        advantages: `[N]`.
        weights: of each unit, `[N]`.
        returns: `[S]`.
        values: before the update, `[S]`.
    """

    old: torch.Tensor
    importance: torch.Tensor | None
    behaviour: torch.Tensor
    reference: torch.Tensor | None
    advantages: torch.Tensor
    weights: torch.Tensor
    returns: torch.Tensor
    values: torch.Tensor


class Objective:
    """The loss of one optimisation batch.

    Args:
        options: of the run.
        critic: whether there is a value loss.
        kl_coef: present coefficient of the KL to the base.
        targets: of the round.

    Attributes:
        names: of the sums that `loss` adds to.
    """

    def __init__(self, options: PPOOptions, critic: bool, kl_coef: float, targets: Targets) -> None:
        self.options = options
        self.critic = critic
        self.kl_coef = kl_coef
        self.targets = targets
        self.names = ["loss", "policy_loss", "entropy", "approx_kl", "clip_fraction"]
        self.names += ["sampler_mismatch"]
        self.names += ["value_loss"] if critic else []
        self.names += ["kl_to_base"] if targets.reference is not None else []
        self.names += ["importance_weight_mean"] if targets.importance is not None else []
        self._units = self._values = 1.0

    def normalise(self, data: RoundData, turns: Sequence[int]) -> None:
        """Divide by the counts of the whole optimisation batch: all of its turns, everywhere."""
        entries = [data.entries[turn] for turn in turns]
        tokens = self.options.normalise == "tokens"
        self._units = float(sum(entry.turn.units if tokens else 1 for entry in entries))
        self._values = float(sum(entry.values for entry in entries))

    def loss(self, batch: MicroBatch, out: Evaluated, sums: StepMetrics) -> torch.Tensor:
        """A micro-batch's part of the loss; its parts of the metrics are added to `sums`."""
        options, targets = self.options, self.targets
        at = batch.units
        weights = targets.weights[at] / self._units
        new, old = out.logprobs, targets.old[at]
        clip = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        surrogate = losses.policy_loss(
            new, old, targets.advantages[at], dual_clip=options.dual_clip, **clip
        )
        if targets.importance is not None:
            importance = targets.importance[at]
            surrogate = importance * surrogate
            sums.add("importance_weight_mean", (weights * importance).sum())
        policy = (weights * surrogate).sum()
        entropy = (weights * out.entropy).sum()
        loss = policy - options.entropy_coef * entropy if options.entropy_coef else policy
        loss = loss + self._kl(batch, new, weights, sums) + self._value(batch, out, sums)
        ratio = (new.detach() - old).exp()
        sums.add("loss", loss)
        sums.add("policy_loss", policy)
        sums.add("entropy", entropy)
        sums.add("approx_kl", (weights * losses.kl_k3(old, new.detach())).sum())
        sums.add("clip_fraction", (weights * losses.outside_clip(ratio, **clip)).sum())
        sums.add("sampler_mismatch", (weights * (new.detach() - targets.behaviour[at]).abs()).sum())
        sums.greatest("ratio_max", ratio)
        return loss

    def _kl(
        self, batch: MicroBatch, new: torch.Tensor, weights: torch.Tensor, sums: StepMetrics
    ) -> torch.Tensor | float:
        """The KL to the base; it costs something here unless the reward has paid for it."""
        if self.targets.reference is None:
            return 0.0
        kl = (weights * losses.kl_k3(new, self.targets.reference[batch.units])).sum()
        sums.add("kl_to_base", kl)
        return self.kl_coef * kl if self.options.kl_form == "k3-loss" else 0.0

    def _value(self, batch: MicroBatch, out: Evaluated, sums: StepMetrics) -> torch.Tensor | float:
        if not self.critic:
            return 0.0
        at = batch.value_units
        value = losses.value_loss(
            out.values,
            self.targets.returns[at],
            self.targets.values[at],
            clip=self.options.value_clip,
        ).sum()
        sums.add("value_loss", value / self._values)
        return self.options.value_coef * value / self._values
