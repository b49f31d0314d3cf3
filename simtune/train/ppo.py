"""PPO over simulated decisions, from top to bottom.

Each round: gather episodes (roll-outs of the policy as it is, or logged data), give every
decision its advantage, and take a few passes over them with the clipped loss. The token ids and
log-probabilities that the loss sees are the captured ones; nothing is tokenised again.

Around the rounds: an evaluation on held-out seeds now and then, a checkpoint now and then, and at
the end the adapter of the best round in the registry. In several processes every one of them runs
this file; the first alone logs, saves and registers.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import msgspec
import torch

from simtune.errors import TrainingError
from simtune.registry import ModelRecord
from simtune.train import checkpoints
from simtune.train.checkpoints import RunState
from simtune.train.checks import check_inputs
from simtune.train.finish import finish, finished_before
from simtune.train.kept import Kept
from simtune.train.learner import Learner
from simtune.train.online import Online
from simtune.train.options import OnStep, OnWait, PPOOptions
from simtune.train.parallel import Processes, join
from simtune.train.periodic_eval import HeldOut
from simtune.train.precision import out_of_memory
from simtune.train.resume import warn_of_changes
from simtune.train.run import Run, opened

METHOD = "ppo"


def train_ppo(
    options: PPOOptions, *, on_step: OnStep | None = None, on_wait: OnWait | None = None
) -> ModelRecord:
    """Train an adapter with PPO and register it.

    Args:
        options: of the run; exactly one of env, store and dataset_path is set.
        on_step: called with (round, rounds, metrics) after each round, in the main process.
        on_wait: told what a run waits for that follows a store.

    Returns:
        The record that was written to the registry, of a followed store the last one.

    Raises:
        OptionError: an option cannot be used.
        DataError: there is nothing to learn from, or no whole checkpoint to go on from.
        TrainingError: memory does not suffice; or the loss stopped being finite: then the adapter
            as it was before that is registered with the tag `stopped`, and the error names it.
    """
    check_inputs(options)
    processes = join()
    try:
        with opened(options, processes, METHOD) as run:
            before = finished_before(options, run)
            if before is not None:
                return before
            return _train(Loop(options, run, processes, on_wait), on_step)
    finally:
        processes.close()


def _train(loop: Loop, on_step: OnStep | None) -> ModelRecord:
    run, processes = loop.run, loop.processes
    try:
        with nullcontext() if loop.online is None else loop.online.beside():
            failure = loop.rounds(on_step if processes.main else None)
    finally:
        loop.learner.source.close()
    record = None
    if loop.online is not None:
        record = loop.online.finish(loop.done, loop.kept, failure)
    elif run.tracker is not None:
        record = finish(loop.options, run, loop.learner, loop.kept, failure)
    record = processes.broadcast(record)
    assert record is not None
    if run.announcement is not None:
        run.announcement.model_id = record.id
    if failure is not None:
        raise TrainingError(
            str(failure).splitlines()[0],
            fix=f"the adapter as it was before is registered as {record.id}; "
            "lower --learning-rate, or set --target-kl 0.02",
        ) from failure
    return record


class Loop:
    """Round after round, from the first or from a checkpoint.

    Args:
        options: of the run.
        run: where it reports to, and what it goes on from.
        processes: of the run.
        on_wait: told what is waited for where a store is followed.
    """

    def __init__(
        self, options: PPOOptions, run: Run, processes: Processes, on_wait: OnWait | None = None
    ) -> None:
        self.options = options
        self.run = run
        self.processes = processes
        self.learner = Learner(
            options, run.run_id, processes, directory=run.directory, on_wait=on_wait
        )
        following = self.learner.following
        self.online = None if following is None else Online(run, self.learner, following)
        self.held_out = HeldOut(options, self.learner.policy, processes)
        self.done = 0
        run.hold()
        run.params(msgspec.to_builtins(options))
        run.params(self.learner.choices | self._made_with())
        if run.resumed is not None:
            self._go_on(run.resumed)
        self.kept = Kept(self.learner.snapshot(), run.resumed)

    def rounds(self, on_step: OnStep | None) -> TrainingError | None:
        """Train until all rounds are done; gives the reason where the run stops early."""
        if self.done == 0:
            self._begin()
        if self.online is not None:
            self.online.catch_up(self.done)
        total = self.options.iterations or None
        while total is None or self.done < total:
            try:
                metrics = self._round(self.done)
            except TrainingError as error:
                return error
            except torch.OutOfMemoryError as error:
                raise out_of_memory(error, self.options) from error
            if metrics is None:
                return None
            self.run.log(self.done, metrics)
            self._save()
            if self.online is not None:
                self.online.publish(self.done)
            if on_step is not None:
                on_step(self.done, total, metrics)
        return None

    def _begin(self) -> None:
        """What later evaluations are compared with, and a checkpoint to begin again from."""
        if self.held_out.due(0):
            self.run.log(0, self.held_out.metrics(self.held_out.measure()))
        self._save()

    def _round(self, index: int) -> dict[str, float] | None:
        started = time.perf_counter()
        metrics = self.learner.round(index)
        if metrics is None:
            return None
        self.done = index + 1
        weights = self.learner.snapshot()
        self.kept.trained(self.done, weights, skipped_steps=metrics["skipped_steps"])
        if self.held_out.due(self.done):
            evaluation = self.held_out.measure()
            self.kept.evaluated(self.done, weights, evaluation)
            metrics |= self.held_out.metrics(evaluation)
        return metrics | {"seconds": time.perf_counter() - started}

    def _save(self) -> None:
        """Write a checkpoint where one is due: at first, every so many rounds, and at the end.

        Of a followed store every round is due: what was taken from it is not taken again.
        """
        every, directory = self.options.save_every, self.run.directory
        last = self.done == self.options.iterations
        if directory is None or not (last or self.options.follow or self.done % every == 0):
            return
        if self.online is not None:
            self.online.announce(self.done)
        update = self.learner.state_dict()
        if self.processes.main:
            checkpoints.save(
                directory,
                self._state(),
                weights=self.learner.snapshot(),
                best=self.kept.best,
                update=update,
                keep=self.options.keep_checkpoints,
            )

    def _state(self) -> RunState:
        return RunState(
            method=METHOD,
            run_id=self.run.run_id,
            round=self.done,
            options=msgspec.to_builtins(self.options),
            history=self.run.history,
            best_round=self.kept.best_round,
            best_score=self.kept.best_score,
            first_returns=self.held_out.first_returns,
            source=self.learner.source.state_dict(),
            made_with=self.learner.made_with(),
        )

    def _go_on(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Put everything where it was."""
        state = checkpoint.state
        self.learner.source.load_state_dict(state.source)
        self.learner.restore(checkpoint.weights())
        self.learner.load_state_dict(checkpoint.update())
        self.held_out.first_returns = state.first_returns
        self.done = state.round
        warn_of_changes(state.made_with, self.learner.made_with())

    def _made_with(self) -> dict[str, Any]:
        return {f"made_with.{name}": value for name, value in self.learner.made_with().items()}
