"""One run as the world sees it: MLflow, plugins, checkpoints, and where it goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from simtune.train import checkpoints
from simtune.train.announcement import Announcement
from simtune.train.checkpoints import Checkpoint
from simtune.train.options import PPOOptions, SFTOptions
from simtune.train.parallel import Processes
from simtune.train.resume import NEVER, checkpoint_of, checkpoint_root, run_of_same_command
from simtune.train.tracking import Tracker

LONGEST_HISTORY = 4000
"""Points of a run's own curves: beyond that every second of the older half goes. MLflow has all."""


class Run:
    """The main process holds a tracker and an announcement; on the others nothing is reported.

    Attributes:
        run_id: of the MLflow run; names the episodes and the checkpoints too.
        history: (round, metrics) of every point so far, those before a resume included.
        resumed: the checkpoint it goes on from, or None.
        directory: of its checkpoints, or None where none are written.
    """

    def __init__(
        self,
        run_id: str,
        resumed: Checkpoint | None,
        directory: Path | None,
        tracker: Tracker | None,
        announcement: Announcement | None,
        stack: ExitStack,
    ) -> None:
        self.run_id = run_id
        self.resumed = resumed
        self.directory = directory
        self.tracker = tracker
        self.announcement = announcement
        self._stack = stack
        self.history: list[tuple[int, dict[str, float]]] = []
        if resumed is not None:
            self.history = [
                (step, {name: _number(value) for name, value in metrics.items()})
                for step, metrics in resumed.state.history
            ]
        if tracker is not None:
            # What a killed process had not flushed; the tracker leaves out what is there.
            for step, metrics in self.history:
                tracker.metrics(metrics, step)

    def hold(self) -> None:
        """Let no other process train this run until it ends.

        Raises:
            TrainingError: another process does.
        """
        if self.tracker is not None and self.directory is not None:
            self._stack.enter_context(checkpoints.locked(self.directory))

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters; a resumed run has its own already."""
        if self.tracker is not None and self.resumed is None:
            self.tracker.params(values)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """One point of each curve."""
        self.history.append((step, metrics))
        if len(self.history) > LONGEST_HISTORY:
            del self.history[1 : LONGEST_HISTORY // 2 : 2]
        if self.tracker is not None:
            self.tracker.metrics(metrics, step)
        if self.announcement is not None:
            self.announcement.metrics(step, metrics)


@contextmanager
def opened(options: PPOOptions | SFTOptions, processes: Processes, method: str) -> Iterator[Run]:
    """Begin a run, or go on with the one that `options.resume` names.

    A store that is followed is gone on with by the same command, without being named.

    Raises:
        OptionError: an option differs from the run to go on with.
        CorruptError: no checkpoint of it is whole.
        TrainingError: MLflow cannot be used.
    """
    resume = options.resume
    if options.follow and resume is None:
        resume = run_of_same_command(options, method)
    resumed = checkpoint_of(resume, options, method) if resume not in (None, NEVER) else None
    run_id = "" if resumed is None else resumed.state.run_id
    tracker = announcement = None
    with ExitStack() as stack:
        if processes.main:
            tags = {"method": method, "base_model": options.llm_path}
            tracker = stack.enter_context(
                Tracker(options.experiment_name, options.tracking_uri, tags=tags, run_id=run_id)
            )
            announcement = stack.enter_context(
                Announcement(method, msgspec.to_builtins(options), tracker.run_id)
            )
        run_id = processes.broadcast(run_id if tracker is None else tracker.run_id)
        directory = _directory(options, resumed, run_id)
        yield Run(run_id, resumed, directory, tracker, announcement, stack)


def _directory(
    options: PPOOptions | SFTOptions, resumed: Checkpoint | None, run_id: str
) -> Path | None:
    if isinstance(options, PPOOptions) and options.save_every == 0:
        return None
    if resumed is not None:
        return resumed.path.parent
    return checkpoint_root(options.models_dir, options.checkpoint_dir) / run_id


def _number(value: float | None) -> float:
    """JSON has no NaN; it is written as null."""
    return float("nan") if value is None else value
