"""SFT on a store that is being written: rounds of TRL's trainer over a replay buffer."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import Counter
from typing import Any

import msgspec
import torch
import transformers
from transformers import TrainerCallback

from simtune.data.samples import Sample
from simtune.data.selection import episode_samples
from simtune.data.tokens import encode, tokenise
from simtune.errors import DataError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import load_base
from simtune.records import Episode
from simtune.registry import ModelRecord
from simtune.rewards.combining import combine
from simtune.train import checkpoints
from simtune.train.checkpoints import Checkpoint, RunState
from simtune.train.checks import check_inputs
from simtune.train.following import Following
from simtune.train.interruption import asked_to_end
from simtune.train.lora import attach
from simtune.train.options import OnStep, OnWait, SFTOptions
from simtune.train.parallel import Processes
from simtune.train.publishing import Publisher
from simtune.train.replay import ReplayBuffer, Replayed
from simtune.train.run import Run, opened
from simtune.train.server_beside import server_beside
from simtune.train.sft import METHOD, check_loss, fit
from simtune.train.sft_arguments import sft_config


def follow_sft(
    options: SFTOptions, *, on_step: OnStep | None = None, on_wait: OnWait | None = None
) -> ModelRecord:
    """Imitate the better episodes of a store as they arrive, and publish the adapter as it goes.

    Args:
        options: of the run.
        on_step: called with (round, rounds, metrics) after each round.
        on_wait: told what is waited for.

    Returns:
        The record of the last published adapter.

    Raises:
        OptionError: an option or a training argument cannot be used.
        DataError: the following ended before a round was complete.
        TrainingError: the loss is not finite, or memory does not suffice; what was published
            before stays.
    """
    check_inputs(options)
    with opened(options, Processes(), METHOD) as run:
        loop = ReplayLoop(options, run, on_wait)
        with asked_to_end(loop.following.stop), server_beside(options):
            loop.rounds(on_step)
        record = loop.finish()
        assert run.announcement is not None
        run.announcement.model_id = record.id
        return record


class ReplayLoop:
    """Round after round: new episodes into the buffer, a draw from it, a few passes.

    Args:
        options: of the run.
        run: where it reports to, and what it goes on from.
        on_wait: told what is waited for.
    """

    def __init__(self, options: SFTOptions, run: Run, on_wait: OnWait | None) -> None:
        assert run.directory is not None
        self.options = options
        self.run = run
        self.directory = run.directory
        base, self.tokenizer = load_base(options.llm_path)
        transformers.set_seed(options.seed)
        self.model = attach(base, options)
        self.buffer = ReplayBuffer(options.buffer_episodes, options.buffer_temperature)
        adapter = adapter_sha256(self.model)
        self.following = Following(options, adapter, self.directory, on_wait)
        self.publisher = Publisher(options, METHOD, run.run_id, self.following)
        self.done = 0
        self._optimizer: dict[str, Any] | None = None
        self._new: list[Replayed] = []
        run.hold()
        run.params(msgspec.to_builtins(options))
        if run.resumed is not None:
            self._go_on(run.resumed)

    def rounds(self, on_step: OnStep | None) -> None:
        """Learn until all rounds are done, or nothing more is to come."""
        if self.done == 0:
            self._save()
        self.publisher.recall()
        self._publish()
        total = self.options.iterations or None
        while total is None or self.done < total:
            metrics = self._round()
            if metrics is None:
                return
            self.run.log(self.done, metrics)
            if self.publisher.due(self.done):
                self.following.versions.publish(adapter_sha256(self.model))
            self._save()
            self._publish()
            if on_step is not None:
                on_step(self.done, total, metrics)

    def finish(self) -> ModelRecord:
        """Publish the adapter as it is, and put it into MLflow.

        Raises:
            DataError: nothing has been learned.
        """
        if self.done == 0:
            raise DataError(
                "the following ended before its first round was complete",
                got=f"{self.following.waiting} in {self.options.store}",
                fix="the same command goes on; --episodes-per-iteration makes rounds smaller",
            )
        self.following.versions.publish(adapter_sha256(self.model))
        record = self._register()
        assert self.run.tracker is not None
        self.publisher.to_mlflow(self.run.tracker, record)
        return record

    def _round(self) -> dict[str, float] | None:
        self._new = []
        found = self.following.round(self.done, self._unfit)
        if found is None:
            return None
        started = time.perf_counter()
        self.buffer.add(self._new)
        options = self.options
        drawn = self.buffer.draw(options.episodes_per_iteration, seed=f"{options.seed}/{self.done}")
        losses = self._fit([sample for one in drawn for sample in one.samples])
        self.done += 1
        return (
            found[1]
            | losses.last
            | {
                "buffer_episodes": float(len(self.buffer.episodes)),
                "buffer_score": statistics.fmean(one.score for one in self.buffer.episodes),
                "drawn_score": statistics.fmean(one.score for one in drawn),
                "drawn_samples": float(sum(len(one.samples) for one in drawn)),
                "seconds": time.perf_counter() - started,
            }
        )

    def _fit(self, samples: list[Sample]) -> Losses:
        options = self.options
        tokens = tokenise(
            self.tokenizer,
            samples,
            max_length=options.max_length,
            excess_length=options.excess_length,
        )
        losses = Losses(options)
        seeded = msgspec.structs.replace(options, seed=options.seed + self.done)
        with tempfile.TemporaryDirectory(prefix="simtune-sft-") as scratch:
            config = sft_config(seeded, scratch)
            self._optimizer = fit(
                self.model, self.tokenizer, tokens, config, losses, optimizer=self._optimizer
            )
        return losses

    def _unfit(self, episode: Episode) -> str | None:
        """Why an episode is not kept for replay; one that is goes into the buffer later."""
        options = self.options
        per_decision = combine(options.reward, episode)
        if per_decision is None:
            return "a reward failed"
        score = math.fsum(per_decision)
        if options.min_score is not None and score < options.min_score:
            return f"scored below {options.min_score:g}"
        samples = episode_samples(episode, score, Counter())
        if options.excess_length == "drop":
            samples = [one for one in samples if self._length(one) <= options.max_length]
        if not samples:
            return "no valid decision within the length"
        self._new.append(
            Replayed(episode_id=episode.episode_id, env=episode.env, score=score, samples=samples)
        )
        return None

    def _length(self, sample: Sample) -> int:
        encoded = encode(self.tokenizer, sample)
        return len(encoded.prompt_ids) + len(encoded.response_ids)

    def _publish(self) -> None:
        if self.publisher.due(self.done):
            self._register()

    def _register(self) -> ModelRecord:
        return self.publisher.publish(
            self.model,
            self.tokenizer,
            round_=self.done,
            metrics=dict(self.run.history).get(self.done, {}),
        )

    def _save(self) -> None:
        buffer = torch.frombuffer(bytearray(self.buffer.dump()), dtype=torch.uint8)
        checkpoints.save(
            self.directory,
            RunState(
                method=METHOD,
                run_id=self.run.run_id,
                round=self.done,
                options=msgspec.to_builtins(self.options),
                history=self.run.history,
                source=self.following.state_dict(),
            ),
            weights={name: p.detach().cpu() for name, p in self._trained().items()},
            best=None,
            update={"optimizer": self._optimizer, "buffer": buffer},
            keep=self.options.keep_checkpoints,
        )

    @torch.no_grad()
    def _go_on(self, checkpoint: Checkpoint) -> None:
        """Put everything where it was."""
        weights = checkpoint.weights()
        for name, parameter in self._trained().items():
            parameter.copy_(weights[name])
        update = checkpoint.update()
        self._optimizer = update["optimizer"]
        self.buffer.load(update["buffer"].numpy().tobytes())
        self.following.load_state_dict(checkpoint.state.source)
        self.done = checkpoint.state.round

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


class Losses(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Keeps the losses of a round.

    Args:
        options: of the run, for advice.

    Attributes:
        last: `loss` of the last logged step, `train_loss` over all steps.
    """

    def __init__(self, options: SFTOptions) -> None:
        """Start with none."""
        self.last: dict[str, float] = {}
        self._options = options

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Called by the trainer after each logged step, and once at the end.

        Raises:
            TrainingError: the loss is not finite.
        """
        for name in ("loss", "train_loss"):
            if logs and name in logs:
                check_loss(float(logs[name]), state.global_step, self._options)
                self.last[name] = float(logs[name])
