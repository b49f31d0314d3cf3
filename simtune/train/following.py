"""A run's place in a store that is being written: each episode once, over any restarts."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simtune.data.selection import episodes_digest
from simtune.records import Episode
from simtune.registry import DataSeen, Registry
from simtune.store import Cursor
from simtune.train.intake import Intake, Taken
from simtune.train.journal import LEARNED, Journal
from simtune.train.lora import parent_record
from simtune.train.options import OnWait, PPOOptions, SFTOptions
from simtune.train.reward_use import rewards_used
from simtune.train.sources import summary
from simtune.train.staleness import FOREIGN, STALE, Versions, ancestry

ABORTED = "aborted by an exception"


class Following:
    """Takes rounds of episodes, and counts them.

    `state_dict()` is part of the checkpoint of the weights that learned from what was taken, so
    that both are committed by one rename. Going on from it takes exactly what lies behind.

    Args:
        options: of the run; `store` is followed.
        adapter: content hash of the adapter as training starts.
        directory: of the run's checkpoints; the journal is there.
        on_wait: told what is waited for.

    Attributes:
        stop: once set, no further round is waited for.
        cursor: behind the last round.
        journal: every episode that was taken.
        versions: of adapters; whoever publishes one says so here, before the checkpoint.
        parent: id of the registered adapter that training started from, or None.
    """

    def __init__(
        self,
        options: PPOOptions | SFTOptions,
        adapter: str,
        directory: Path,
        on_wait: OnWait | None,
    ) -> None:
        self.options = options
        self.stop = threading.Event()
        start = parent_record(options)
        self.parent = None if start is None else start.id
        self.versions = Versions(ancestry(start, Registry(options.models_dir).list()))
        self.versions.alias(adapter, 0)
        self.cursor = Cursor()
        self.journal = Journal(directory)
        self._intake = Intake(
            str(options.store), timeout=options.follow_timeout, stop=self.stop, on_wait=on_wait
        )
        self._episodes = self._decisions = 0
        self._skipped: Counter[str] = Counter()

    @property
    def waiting(self) -> str:
        """How far the round is that was last waited for."""
        return f"{self._intake.have} of {self.options.episodes_per_iteration} episodes"

    def round(
        self, index: int, unfit: Callable[[Episode], str | None]
    ) -> tuple[list[Taken], dict[str, float]] | None:
        """Wait for a round of episodes.

        Args:
            index: of the round.
            unfit: why an episode cannot be learned from, or None; not asked for aborted ones.

        Returns:
            Everything that was taken, and the round's metrics; None where the following ends
            before there is a round.
        """
        began = time.perf_counter()
        taken = self._intake.take(
            self.options.episodes_per_iteration,
            lambda episode: ABORTED if episode.aborted else unfit(episode),
        )
        if taken is None:
            return None
        waited = time.perf_counter() - began
        self.cursor = self._intake.cursor
        self.journal.add(index, ((one.episode.episode_id, one.reason or LEARNED) for one in taken))
        learned = [one for one in taken if one.reason is None]
        self._episodes += len(learned)
        self._decisions += sum(len(one.episode) for one in learned)
        dropped = Counter(one.reason for one in taken if one.reason is not None)
        self._skipped += dropped
        return taken, summary([one.episode for one in learned]) | {
            "version": float(self.versions.current),
            "dropped_stale": float(dropped.pop(STALE, 0)),
            "dropped_foreign": float(dropped.pop(FOREIGN, 0)),
            "dropped_other": float(dropped.total()),
            "waited_s": waited,
            "delay_s": statistics.median(one.delay for one in learned),
            "episodes_seen": float(self._episodes),
            "decisions_seen": float(self._decisions),
        }

    def seen(self) -> DataSeen:
        """What was learned from since the run began."""
        return DataSeen(
            source="store",
            root=str(self.options.store),
            digest=episodes_digest(self.journal.learned()),
            episodes=self._episodes,
            decisions=self._decisions,
            rewards=rewards_used(self.options.reward),
            skipped=dict(self._skipped),
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands in its store, and which adapters it knows."""
        return {
            "cursor": self.cursor.to_json(),
            "journal": self.journal.length,
            "episodes": self._episodes,
            "decisions": self._decisions,
            "skipped": dict(self._skipped),
            "versions": self.versions.state_dict(),
            "parent": self.parent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: what was taken after it is taken again."""
        self.cursor = Cursor.from_json(state["cursor"])
        self._intake.go_on_from(self.cursor)
        self.journal.rewind(state["journal"])
        self._episodes, self._decisions = state["episodes"], state["decisions"]
        self._skipped = Counter(state["skipped"])
        self.versions.load_state_dict(state["versions"])
        self.parent = state["parent"]
