"""Everything of a PPO run that has a state: model, update, data, random generators."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import simtune
from simtune.errors import OptionError, TrainingError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import LocalPolicy
from simtune.train import precision
from simtune.train.actor_critic import ActorCritic
from simtune.train.lora import attach
from simtune.train.options import OnWait, PPOOptions
from simtune.train.parallel import Processes
from simtune.train.seen_states import SeenStates
from simtune.train.sharding import Sharding
from simtune.train.sources import Source
from simtune.train.update import PPO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from simtune.train.following import Following

RANK_SEEDS = 1_000_003
"""Distance of the sampling seeds of two processes, which play different episodes."""

EXACT = ("torch", "transformers", "peft", "numpy")
"""Libraries whose release can move the last bits of a result."""


class Learner:
    """A policy that learns round by round, and can be stopped and set up again between rounds.

    Args:
        options: of the run.
        run_id: recorded with every episode it plays.
        processes: of the run.
        directory: of its checkpoints; a store that is followed needs one.
        on_wait: told what such a run waits for.

    Attributes:
        choices: what the device made of the options, and where behaviour log-probabilities are
            from; for the run's parameters.
    """

    def __init__(
        self,
        options: PPOOptions,
        run_id: str,
        processes: Processes,
        *,
        directory: Path | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        sharding = Sharding.configured(options, processes)
        loaded = precision.load(options, placed=sharding is None)
        self.processes = processes
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        adapted = attach(loaded.model, options)
        self.choices = dict(loaded.choices)
        if sharding is not None:
            self.choices |= sharding.apply(adapted)
        self.model = ActorCritic(adapted)
        self.choices |= precision.compiled(self.model, options)
        self.policy = LocalPolicy(
            self.model.policy,
            loaded.tokenizer,
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            decision=options.decision,
            length_normalised=options.length_normalised,
            stop=options.stop,
            seed=options.seed + RANK_SEEDS * processes.rank,
            name=options.llm_path,
        )
        self.following: Following | None = None
        if options.follow:
            from simtune.train.following import Following

            assert directory is not None
            present = adapter_sha256(self.model.policy)
            self.following = Following(options, present, directory, on_wait)
        self.source = self._source(options, run_id)
        self.ppo = PPO(self.model, options, pad_id=self.policy.pad_id, processes=processes)

    def round(self, index: int) -> dict[str, float] | None:
        """Gather episodes and learn from them.

        Returns:
            The round's metrics; None where there are no more episodes.

        Raises:
            TrainingError: the loss was not finite several times in a row, or a weight is not.
        """
        # What is left of another round's prompts would move the last bits, and a resumed run has
        # nothing left.
        self.policy.forget()
        self.policy.adapter = adapter_sha256(self.model.policy)
        seen = SeenStates()
        with self.policy.watched(seen.add):
            gathered = self.source.gather(index)
        # What is kept for further answers would lie in the update's way.
        self.policy.forget()
        if gathered is None:
            return None
        metrics = gathered.metrics | self.ppo.round(index, gathered.episodes, seen=seen)
        for name, weights in self.trainable().items():
            if not torch.isfinite(weights).all():
                raise TrainingError(f"round {index + 1} left {name} with NaN or infinity")
        return metrics

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """What training changes: the adapter and the value head."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def snapshot(self) -> dict[str, torch.Tensor]:
        """A copy of what training changes, on the CPU."""
        return {name: p.detach().to("cpu", copy=True) for name, p in self.trainable().items()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put a snapshot back.

        Raises:
            TrainingError: it is of another adapter.
        """
        own = self.trainable()
        if own.keys() != weights.keys():
            raise TrainingError(
                "the checkpoint is of another adapter",
                expected=f"{len(own)} tensors such as {min(own)}",
                got=f"{len(weights)} such as {min(weights, default='none')}",
            )
        for name, parameter in own.items():
            parameter.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, shuffle and counters, and the random generators of every process."""
        generators = {
            "torch": torch.get_rng_state(),
            "policy": self.policy.generator.get_state(),
        }
        return {"ppo": self.ppo.state_dict(), "generators": self.processes.gather([generators])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`.

        Raises:
            OptionError: it is of another number of processes.
        """
        if len(state["generators"]) != self.processes.world:
            raise OptionError(
                "a run is resumed in as many processes as it began in",
                expected=len(state["generators"]),
                got=self.processes.world,
                fix=f"--processes {len(state['generators'])}, or torchrun with as many",
            )
        self.ppo.load_state_dict(state["ppo"])
        own = state["generators"][self.processes.rank]
        torch.set_rng_state(own["torch"])
        self.policy.generator.set_state(own["policy"])

    def made_with(self) -> dict[str, str]:
        """What the last bits of a result depend on, beside the options."""
        return {
            "simtune": simtune.__version__,
            "python": platform.python_version(),
            "threads": str(torch.get_num_threads()),
            "device": str(self.ppo.device),
            "processes": str(self.processes.world),
            "sharding": self.choices.get("chosen_sharding", "none"),
        } | {name: version(name) for name in EXACT}

    def _source(self, options: PPOOptions, run_id: str) -> Source:
        # Whoever plays does not read a store: that would be 70 MB of libraries.
        if options.env is not None:
            from simtune.train.env_source import EnvSource

            return EnvSource(options, self.policy, run_id, self.processes)
        if self.following is not None:
            from simtune.train.followed_source import FollowedSource

            return FollowedSource(options, self.following, self.policy, self.model)
        from simtune.train.logged_source import ratings_source, store_source

        source = store_source if options.store is not None else ratings_source
        logged = source(options, self.policy, self.model)
        self.choices["behaviour_policy"] = logged.behaviour
        return logged
