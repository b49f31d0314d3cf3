"""The update of PPO: advantages, minibatches, clipped loss, and the guards around a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch

from simtune.errors import TrainingError
from simtune.train import losses
from simtune.train.actor_critic import ActorCritic, Evaluated
from simtune.train.episode_turns import EpisodeTurns, assign_credit
from simtune.train.options import PPOOptions
from simtune.train.turns import Turn, TurnBatch, collate

MAX_SKIPPED_STEPS = 5
"""Non-finite optimizer steps in a row after which training stops."""

VALUE_BATCH = 512
"""States per critic pass without gradients."""


class PPO:
    """The update: advantages, minibatches, clipped loss.

    Args:
        model: LoRA policy and critic.
        options: of the run.
        pad_id: fills the right of a batch; never attended to.
    """

    def __init__(self, model: ActorCritic, options: PPOOptions, *, pad_id: int) -> None:
        self.model = model
        self.options = options
        self.pad_id = pad_id
        self.device = model.value_head.weight.device
        self.actor = [p for p in model.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.actor, "lr": options.learning_rate},
                {"params": model.value_head.parameters(), "lr": options.critic_learning_rate},
            ],
            weight_decay=0.0,
        )
        self.shuffle = torch.Generator().manual_seed(options.seed)
        self.skipped_steps = 0

    def round(self, index: int, episodes: Sequence[EpisodeTurns]) -> dict[str, float]:
        """Learn from one batch of episodes; returns the round's metrics.

        Args:
            index: of the round, from 0; the first `critic_warmup` ones train the critic only.
            episodes: the global batch.

        Raises:
            TrainingError: the loss was not finite several times in a row.
        """
        options = self.options
        started = time.perf_counter()
        self._schedule(index)
        values = assign_credit(
            episodes, self.estimate, gamma=options.gamma, gae_lambda=options.gae_lambda
        )
        turns = [turn for episode in episodes for turn in episode.turns]
        fit = losses.explained_variance(
            torch.tensor(values), torch.tensor([turn.return_ for turn in turns])
        )
        metrics = self._passes(turns, actor=index >= options.critic_warmup)
        tokens = sum(len(turn.prompt_ids) + len(turn.action_ids) for turn in turns)
        seconds = time.perf_counter() - started
        return metrics | {
            "explained_variance": fit,
            "update_tokens_per_s": options.epochs * tokens / seconds,
            "skipped_steps": float(self.skipped_steps),
        }

    def _schedule(self, index: int) -> None:
        """Set the learning rates of a round."""
        options = self.options
        left = 1.0 if options.lr_schedule == "constant" else 1 - 0.9 * index / options.iterations
        rates = (options.learning_rate, options.critic_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * left

    @torch.no_grad()
    def estimate(self, turns: Sequence[Turn]) -> torch.Tensor:
        """The critic's value of each turn's prompt, `[D]`, without gradient."""
        states = [Turn(prompt_ids=turn.prompt_ids) for turn in turns]
        return torch.cat(
            [
                self.model(self._batch(states[i : i + VALUE_BATCH]), actor=False).values
                for i in range(0, len(states), VALUE_BATCH)
            ]
        ).cpu()

    def _passes(self, turns: Sequence[Turn], *, actor: bool) -> dict[str, float]:
        """Several passes over the turns in random order; stops early above `target_kl`."""
        seen: list[dict[str, float]] = []
        for _ in range(self.options.epochs):
            for minibatch in self._minibatches(turns):
                metrics = self._step(self._batch(minibatch), actor=actor)
                if metrics is None:
                    continue
                seen.append(metrics)
                limit = self.options.target_kl
                if limit is not None and metrics.get("approx_kl", 0.0) > limit:
                    return _mean(seen)
        return _mean(seen)

    def _minibatches(self, turns: Sequence[Turn]) -> Iterator[list[Turn]]:
        order = torch.randperm(len(turns), generator=self.shuffle).tolist()
        size = self.options.minibatch_size
        for start in range(0, len(order), size):
            yield [turns[i] for i in order[start : start + size]]

    def _step(self, batch: TurnBatch, *, actor: bool) -> dict[str, float] | None:
        """One optimizer step; None where it was skipped because something was not finite."""
        out = self.model(batch, actor=actor)
        loss, metrics = self._loss(batch, out, actor=actor)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.actor, self.options.max_grad_norm)
        head = torch.nn.utils.clip_grad_norm_(
            self.model.value_head.parameters(), self.options.max_grad_norm
        )
        if not math.isfinite(loss.item() + norm.item() + head.item()):
            self._count_skip()
            return None
        self.optimizer.step()
        self.skipped_steps = 0
        return metrics | {"loss": loss.item(), "grad_norm": norm.item()}

    def _loss(
        self, batch: TurnBatch, out: Evaluated, *, actor: bool
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The whole loss of a minibatch, and what it was made of."""
        options = self.options
        value = losses.value_loss(out.values, batch.returns, normalizer=len(batch.returns))
        metrics = {"value_loss": value.item()}
        if not actor:
            return options.value_coef * value, metrics
        tokens = len(batch.action_rows)
        clip = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        policy = losses.policy_loss(
            out.logprobs,
            batch.behaviour_logprobs,
            batch.advantages,
            dual_clip=options.dual_clip,
            normalizer=tokens,
            **clip,
        )
        entropy = out.entropy.sum() / tokens
        loss = policy + options.value_coef * value - options.entropy_coef * entropy
        if options.kl_coef:
            kl = losses.kl_k3(out.logprobs, self._reference(batch)).sum() / tokens
            loss = loss + options.kl_coef * kl
            metrics["kl_to_base"] = kl.item()
        new, old = out.logprobs.detach(), batch.behaviour_logprobs
        metrics |= {
            "policy_loss": policy.item(),
            "entropy": entropy.item(),
            "approx_kl": losses.kl_k3(old, new).mean().item(),
            "clip_fraction": losses.clip_fraction(new, old, **clip).item(),
            "ratio_max": (new - old).exp().max().item(),
        }
        return loss, metrics

    @torch.no_grad()
    def _reference(self, batch: TurnBatch) -> torch.Tensor:
        """Log-probabilities of the base model, adapter off, `[N]`."""
        with self.model.reference():
            evaluated: Evaluated = self.model(batch)
        return evaluated.logprobs

    def _batch(self, turns: Sequence[Turn]) -> TurnBatch:
        return collate(turns, pad_id=self.pad_id, device=self.device)

    def _count_skip(self) -> None:
        self.skipped_steps += 1
        if self.skipped_steps >= MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"the loss was not finite {self.skipped_steps} times in a row",
                fix="lower --learning-rate, or set --target-kl 0.02",
            )


def _mean(seen: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the steps that have it; of a maximum, the maximum."""
    names = {name: None for metrics in seen for name in metrics}
    columns = {name: [m[name] for m in seen if name in m] for name in names}
    return {
        name: max(column) if name.endswith("_max") else sum(column) / len(column)
        for name, column in columns.items()
    }
