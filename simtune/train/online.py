"""What PPO does between its rounds while it follows a store: publish, and end when asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simtune.errors import DataError, TrainingError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.registry import ModelRecord
from simtune.train import curves
from simtune.train.finish import CURVES
from simtune.train.following import Following
from simtune.train.interruption import asked_to_end
from simtune.train.kept import Kept
from simtune.train.learner import Learner
from simtune.train.publishing import Publisher
from simtune.train.run import Run
from simtune.train.server_beside import server_beside


class Online:
    """Publishes a learner's adapter after its rounds.

    Args:
        run: of the main and only process.
        learner: whose adapter it is.
        following: what it learns from.
    """

    def __init__(self, run: Run, learner: Learner, following: Following) -> None:
        self.run = run
        self.learner = learner
        self.following = following
        self.publisher = Publisher(following.options, "ppo", run.run_id, following)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """While rounds are made: signals end them at a resting point; the server, if any, runs."""
        with asked_to_end(self.following.stop), server_beside(self.following.options):
            yield

    def announce(self, done: int) -> None:
        """Number the version that is published after these rounds; before the checkpoint."""
        if self.publisher.due(done):
            self.following.versions.publish(adapter_sha256(self.learner.model.policy))

    def catch_up(self, done: int) -> None:
        """Going on: know every version that is registered, and register one that is not yet."""
        self.publisher.recall()
        self.publish(done)

    def publish(self, done: int) -> None:
        """Register the adapter as it is, where that is due; after the checkpoint.

        What training started from is none of its versions, and critic warm-up leaves it as it is.
        """
        if self.publisher.due(done) and self.following.versions.current > 0:
            self._register(done)

    def finish(self, done: int, kept: Kept, failure: TrainingError | None) -> ModelRecord:
        """Publish the last good adapter, and put it into MLflow.

        Raises:
            DataError: nothing has been learned.
            RegistryError: the registry cannot be written.
        """
        if failure is not None:
            self.learner.restore(kept.last)
            done = kept.last_round
        if done == 0:
            raise DataError(
                "the following ended before its first round was complete",
                got=f"{self.following.waiting} in {self.following.options.store}",
                fix="the same command goes on; --episodes-per-iteration makes rounds smaller",
            )
        self.following.versions.publish(adapter_sha256(self.learner.model.policy))
        tags = {} if failure is None else {"stopped": str(failure).splitlines()[0]}
        record = self._register(done, tags)
        assert self.run.tracker is not None
        self.publisher.to_mlflow(self.run.tracker, record)
        with tempfile.TemporaryDirectory(prefix="simtune-ppo-") as folder:
            drawn = Path(folder) / CURVES
            title = self.following.options.description or f"PPO {self.run.run_id}"
            if curves.draw(self.run.history, drawn, title=title, best_round=kept.best_round):
                self.run.tracker.artifact(drawn)
        return record

    def _register(self, done: int, tags: dict[str, str] | None = None) -> ModelRecord:
        return self.publisher.publish(
            self.learner.model.policy,
            self.learner.tokenizer,
            round_=done,
            metrics=dict(self.run.history).get(done, {}),
            tags=tags,
        )
