"""The update of PPO: values and credit, then passes over the decisions in optimisation batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from simtune.errors import TrainingError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.train import losses, packing
from simtune.train.actor_critic import ActorCritic
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.estimators import select
from simtune.train.kl_control import KLControl
from simtune.train.objective import Objective, Targets
from simtune.train.options import PPOOptions
from simtune.train.packing import Layout
from simtune.train.parallel import Processes
from simtune.train.round_data import RoundData
from simtune.train.seen_states import SeenStates
from simtune.train.step_metrics import StepMetrics, mean_of
from simtune.train.survey import Survey, logprobs_of, survey

MAX_SKIPPED_STEPS = 5
"""Non-finite optimizer steps in a row after which training stops."""

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}
"""Tokens of a micro-batch where none are asked for: on a CPU, what stays in its caches."""


class PPO:
    """The update: advantages, optimisation batches, clipped loss.

    Every process is given the whole round, computes its share of each gradient, and takes the
    same step.

    Args:
        model: LoRA policy and critic.
        options: of the run.
        pad_id: fills the right of a row; never attended to.
        processes: of the run; None for one.

    Attributes:
        optimizer: AdamW; its first group is the adapter's, its second the value head's.
        mismatch: mean distance of the sampler's and the trainer's log-probabilities when last
            measured, nats per unit; None before that.
    """

    def __init__(
        self,
        model: ActorCritic,
        options: PPOOptions,
        *,
        pad_id: int,
        processes: Processes | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.processes = processes or Processes()
        self.device = model.value_head.weight.device
        self.estimator = select(options.estimator)
        self.layout = Layout(
            budget=options.tokens_per_batch or TOKENS_PER_BATCH.get(self.device.type, 16384),
            packed=model.packs,
            pad_id=pad_id,
            device=self.device,
        )
        self.actor = [p for p in model.policy.parameters() if p.requires_grad]
        self.critic = list(model.value_head.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.actor, "lr": options.learning_rate},
                {"params": self.critic, "lr": options.critic_learning_rate},
            ],
            weight_decay=0.0,
            fused=True,
        )
        self.kl = KLControl(options.kl_coef, options.kl_target)
        self.shuffle = torch.Generator().manual_seed(options.seed)
        self.mismatch: float | None = None
        self.skipped_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's weights that the next round depends on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "kl_coef": self.kl.coefficient,
            "mismatch": self.mismatch,
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.shuffle.set_state(state["shuffle"])
        self.kl.coefficient = state["kl_coef"]
        self.mismatch = state["mismatch"]
        self.skipped_steps = state["skipped_steps"]

    def round(
        self, index: int, episodes: Sequence[EpisodeTurns], *, seen: SeenStates | None = None
    ) -> dict[str, float]:
        """Learn from one batch of episodes; returns the round's metrics.

        Args:
            index: of the round, from 0; the first `critic_warmup` ones train the critic only.
            episodes: the global batch, the same in every process.
            seen: states that the model as it is computed when it played them in this process.

        Raises:
            TrainingError: the loss was not finite several times in a row.
            DataError: the estimator compares episodes, and none began alike.
            PluginError: an estimator of a plugin gave something else than advantages.
        """
        options = self.options
        started = time.perf_counter()
        self._schedule(index)
        data = RoundData(episodes, self.estimator, options.normalise, seen)
        if self.estimator.critic and index < options.critic_warmup:
            metrics, tokens = self._warm_up(data)
        else:
            metrics, tokens = self._learn(data)
        if "kl_to_base" in metrics:
            self.kl.observe(metrics["kl_to_base"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return metrics | {
            "learning_rate": rates[0],
            "critic_learning_rate": rates[1],
            "update_tokens_per_s": tokens / (time.perf_counter() - started),
            "skipped_steps": float(self.skipped_steps),
        }

    def _schedule(self, index: int) -> None:
        """Set the learning rates of a round."""
        options = self.options
        left = 1.0 if options.lr_schedule == "constant" else 1 - 0.9 * index / options.iterations
        rates = (options.learning_rate, options.critic_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * left

    def _warm_up(self, data: RoundData) -> tuple[dict[str, float], int]:
        """Train the value head alone, on hidden states that do not change meanwhile."""
        found = self._survey(data, logprobs=False, states=True)
        targets, fit = self._targets(data, found)
        steps = []
        for chains in self._passes(data):
            turns = [turn for chain in chains for turn in data.chains[chain]]
            places = torch.cat([data.values_of(turn) for turn in turns]).to(self.device)
            assert found.states is not None
            values = self.model.value(found.states[places])
            value = losses.value_loss(
                values, targets.returns[places], targets.values[places], clip=None
            ).mean()
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(self.options.value_coef * value)
            if self._take_step(loss=value.item(), parameters=[self.critic]) is not None:
                steps.append({"value_loss": value.item()})
        return mean_of(steps) | fit, sum(data.chain_tokens)

    def _learn(self, data: RoundData) -> tuple[dict[str, float], int]:
        """Train policy and critic."""
        found = self._survey(data, logprobs=self._needs_logprobs(data), states=False)
        targets, fit = self._targets(data, found)
        steps: list[dict[str, float]] = []
        tokens = 0
        for chains in self._passes(data):
            tokens += sum(data.chain_tokens[chain] for chain in chains)
            metrics, go_on = self._step(data, targets, chains)
            if metrics is not None:
                steps.append(metrics)
            if not go_on:
                break
        if steps and found.logprobs is None:
            self.mismatch = steps[0]["sampler_mismatch"]
        return mean_of(steps) | fit | {"sampler_mismatch": self.mismatch or 0.0}, tokens

    def _needs_logprobs(self, data: RoundData) -> bool:
        """Whether the trainer's own log-probabilities are needed before the first step."""
        mode = self.options.behaviour
        if mode != "auto":
            return mode == "decoupled"
        if self.mismatch is None or self.mismatch > self.options.mismatch_tolerance:
            return True
        return self._stale(data)

    def _stale(self, data: RoundData) -> bool:
        """Whether any decision was sampled by other weights than the present ones."""
        present = adapter_sha256(self.model.policy)
        return any(entry.turn.adapter != present for entry in data.entries)

    def _survey(self, data: RoundData, *, logprobs: bool, states: bool) -> Survey:
        return survey(
            self.model,
            data,
            self.layout,
            self.processes,
            critic=self.estimator.critic,
            logprobs=logprobs,
            states=states,
        )

    def _targets(self, data: RoundData, found: Survey) -> tuple[Targets, dict[str, float]]:
        """Assign credit, and choose what ratios are taken to."""
        options = self.options
        behaviour = data.behaviour.to(self.device)
        old, importance = behaviour, None
        if found.logprobs is not None:
            self.mismatch = (found.logprobs - behaviour).abs().mean().item()
            far = self.mismatch > options.mismatch_tolerance
            if options.behaviour == "decoupled" or far or self._stale(data):
                old = found.logprobs
                importance = losses.importance_weights(old, behaviour, cap=options.importance_cap)
        reference = penalties = None
        if self.kl.coefficient:
            reference = logprobs_of(
                self.model, data.entries, self.layout, self.processes, reference=True
            )
            if options.kl_form == "k1-reward":
                penalties = self.kl.coefficient * losses.kl_k1(old, reference)
        credit = data.credit(
            found.values,
            penalties,
            gamma=options.gamma,
            gae_lambda=options.gae_lambda,
            whitened=options.whiten,
        )
        values = found.values[: data.steps]
        targets = Targets(
            old=old,
            importance=importance,
            behaviour=behaviour,
            reference=reference,
            advantages=credit.advantages.to(self.device),
            weights=data.weights.to(self.device),
            returns=credit.returns.to(self.device),
            values=values,
        )
        if not self.estimator.critic:
            return targets, {}
        return targets, {"explained_variance": losses.explained_variance(values, targets.returns)}

    def _passes(self, data: RoundData) -> Iterator[list[int]]:
        """Chains of each optimisation batch: every pass in a new random order, evenly cut."""
        size, decisions = self.options.minibatch_size, len(data.entries)
        batches = math.ceil(decisions / size)
        for _ in range(self.options.epochs):
            cut: list[list[int]] = [[] for _ in range(batches)]
            before = 0
            for chain in torch.randperm(len(data.chains), generator=self.shuffle).tolist():
                cut[before * batches // decisions].append(chain)
                before += len(data.chains[chain])
            yield from (chains for chains in cut if chains)

    def _step(
        self, data: RoundData, targets: Targets, chains: Sequence[int]
    ) -> tuple[dict[str, float] | None, bool]:
        """One optimizer step; its metrics (None where it was skipped), and whether to go on."""
        objective = Objective(self.options, self.estimator.critic, self.kl.coefficient, targets)
        turns = [turn for chain in chains for turn in data.chains[chain]]
        objective.normalise(data, turns)
        share = [chains[i] for i in self.processes.share(len(chains))]
        entries = [data.entries[turn] for chain in share for turn in data.chains[chain]]
        sums = StepMetrics(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self.processes.together():
            for batch in packing.pack(entries, self.layout):
                out = self.model(
                    batch,
                    critic=self.estimator.critic,
                    entropy_gradient=self.options.entropy_coef > 0,
                )
                torch.autograd.backward(objective.loss(batch, out, sums))
        metrics = sums.read(objective.names, self.processes)
        limit = self.options.target_kl
        if limit is not None and metrics["approx_kl"] > limit:
            return metrics, False
        self._sum_gradients()
        parameters = [self.actor, self.critic] if self.estimator.critic else [self.actor]
        norm = self._take_step(loss=metrics["loss"], parameters=parameters)
        return None if norm is None else metrics | {"grad_norm": norm}, True

    def _sum_gradients(self) -> None:
        """Add up the processes' shares of the gradient; each then holds the whole."""
        if self.processes.world == 1:
            return
        parameters = [*self.actor, *(self.critic if self.estimator.critic else [])]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).float().flatten()
                for p in parameters
            ]
        )
        parts = torch.split(self.processes.sum(flat), [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def _take_step(
        self, *, loss: float, parameters: Sequence[Sequence[torch.nn.Parameter]]
    ) -> float | None:
        """Clip and step; the first gradient norm, or None where something was not finite."""
        norms = [
            torch.nn.utils.clip_grad_norm_(some, self.options.max_grad_norm) for some in parameters
        ]
        measured: list[float] = torch.stack(norms).tolist()
        if not math.isfinite(loss + sum(measured)):
            self._count_skip()
            return None
        self.optimizer.step()
        self.skipped_steps = 0
        return measured[0]

    def _count_skip(self) -> None:
        self.skipped_steps += 1
        if self.skipped_steps >= MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"the loss was not finite {self.skipped_steps} times in a row",
                fix="lower --learning-rate, or set --target-kl 0.02",
            )
