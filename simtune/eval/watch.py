"""Watch the champion's scores as they are captured, and roll it back where they fall."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any, Final

from simtune.eval.fall import Fall, MeanFall, RankFall
from simtune.eval.metrics import Metric
from simtune.eval.watch_state import WatchState, load_state, only_watch, save_state, state_path
from simtune.records import Episode
from simtune.registry import Change, ModelRecord, Registry
from simtune.registry.files import REGISTRY_FILE
from simtune.registry.history import lineage
from simtune.registry.promotion import (
    BASE,
    ChampionChangedError,
    champion_of,
    history_of,
    roll_back,
)
from simtune.store import tail
from simtune.store.cursor import Cursor

logger = logging.getLogger(__name__)

KEPT: Final = 200
"""Newest scores of each adapter that are kept as a possible baseline."""

_LOOK_SECONDS = 1.0
_SAVE_SECONDS = 2.0


class Watch:
    """Tails a store, and tests the champion's scores against those of the champion before it.

    Where that one has too few, the champion's own first scores are the baseline. An episode
    belongs to the adapter whose hash all its decisions carry. Every episode counts once, also
    when the watch is killed and begun again.

    Args:
        registry: whose champion is watched; a new champion begins a new test.
        store: root of captured episodes.
        metric: what an episode is worth; with bounds the test is of the mean, without of ranks.
        alpha: chance of ever rolling back a champion whose scores did not fall.
        min_baseline: scores that a baseline needs.
        on_rollback: called after each rollback.
    """

    def __init__(
        self,
        registry: Registry,
        store: str,
        metric: Metric,
        *,
        alpha: float = 0.01,
        min_baseline: int = 50,
        ranks: bool = True,
        on_rollback: Callable[[Change], None] | None = None,
    ) -> None:
        self.registry = registry
        self.store = store
        self.metric = metric
        self.alpha = alpha
        self.min_baseline = min_baseline
        self._ranks = ranks
        self._on_rollback = on_rollback
        self._path = state_path(registry.models_dir, store, metric.name)
        self._read_at = -1
        self._champion: ModelRecord | None = None
        self._previous = BASE
        self._known: set[str] = {BASE}
        self.state = WatchState()

    def run(self, *, once: bool = False) -> list[Change]:
        """Look at what is new; go on until interrupted, unless `once`.

        Returns:
            The rollbacks.

        Raises:
            RegistryError: the registry is empty or broken, or another process keeps this watch.
            DataError: the store cannot be read, or a score lies outside of the stated range.
        """
        self.registry.get("latest")
        made: list[Change] = []
        with only_watch(self._path):
            self.state = load_state(self._path)
            cursor = Cursor.from_json(self.state.cursor) if self.state.cursor else None
            following = tail(
                self.store, cursor, follow=not once, timeout=None if once else _LOOK_SECONDS
            )
            while True:
                saved = time.monotonic()
                for episode in following.episodes():
                    change = self.take(episode)
                    if change is not None:
                        made.append(change)
                    if change is not None or time.monotonic() - saved > _SAVE_SECONDS:
                        self._save(following.cursor)
                        saved = time.monotonic()
                self._save(following.cursor)
                if once:
                    return made

    def take(self, episode: Episode) -> Change | None:
        """Count one episode; the rollback that it led to, or None."""
        self._look_at_registry()
        made_by = self._adapter(episode)
        if made_by is None:
            return None
        value = self.metric.score(episode)
        if value is None:
            self._skip(f"no {self.metric.name}")
            return None
        change = None
        if self._champion is not None and made_by == self._champion.weights_sha256:
            change = self._test(value, episode)
        kept = self.state.recent.setdefault(made_by, [])
        kept.append(value)
        del kept[:-KEPT]
        return change

    def summary(self) -> dict[str, Any]:
        """Where the test of the present champion stands."""
        state, test = self.state, self.state.test
        return {
            "champion": state.champion or BASE,
            "metric": self.metric.name,
            "test": None if test is None else type(test).__name__,
            "alpha": self.alpha,
            "baseline": state.baseline or None,
            "baseline_mean": state.baseline_mean if test is not None else None,
            "episodes": 0 if test is None else test.n,
            "mean": test.total / test.n if test is not None and test.n else None,
            "wealth": None if test is None else test.highest,
            "skipped": state.skipped,
        }

    def _test(self, value: float, episode: Episode) -> Change | None:
        state = self.state
        if state.test is None:
            previous = state.recent.get(self._previous, [])
            if len(previous) >= self.min_baseline:
                state.test, state.baseline = self._against(previous), "previous"
            else:
                state.own.append(value)
                if len(state.own) >= self.min_baseline:
                    state.test, state.baseline = self._against(state.own), "own"
                return None
        if not state.test.add(value, episode.episode_id):
            return None
        return self._roll_back()

    def _against(self, baseline: list[float]) -> Fall:
        self.state.baseline_mean = fmean(baseline)
        if self._ranks or self.metric.bounds is None:
            return RankFall.after(baseline, alpha=self.alpha)
        low, high = self.metric.bounds
        return MeanFall.after(baseline, low=low, high=high, alpha=self.alpha)

    def _roll_back(self) -> Change | None:
        found = self.summary()
        reason = (
            f"{found['metric']} fell from {found['baseline_mean']:.4g} "
            f"({'the champion before' if found['baseline'] == 'previous' else 'its first ones'}) "
            f"to {found['mean']:.4g} over {found['episodes']} episodes; "
            f"chance of a false alarm at most {self.alpha:g}"
        )
        evidence = found | {"store": str(self.store)}
        try:
            change = roll_back(
                self.registry, by="watch", reason=reason, evidence=evidence, fallen=self._champion
            )
        except ChampionChangedError:
            return None
        self._look_at_registry()
        if self._on_rollback is not None:
            self._on_rollback(change)
        return change

    def _adapter(self, episode: Episode) -> str | None:
        """Hash of the adapter that made all decisions, where it is one that matters."""
        if not episode.ended or episode.aborted or not episode.decisions:
            self._skip("unfinished, aborted or empty")
            return None
        hashes = {decision.adapter or BASE for decision in episode.decisions}
        if len(hashes) > 1:
            self._skip("decided by several adapters")
            return None
        (made_by,) = hashes
        if made_by not in self._known:
            self._skip("decided by an adapter that is not registered")
            return None
        return made_by

    def _skip(self, reason: str) -> None:
        self.state.skipped[reason] = self.state.skipped.get(reason, 0) + 1

    def _look_at_registry(self) -> None:
        """See which model is champion; of a new one the test begins anew."""
        changed = (self.registry.models_dir / REGISTRY_FILE).stat().st_mtime_ns
        if changed == self._read_at:
            return
        self._read_at = changed
        history = history_of(self.registry)
        by_id = {record.id: record for record in self.registry.list()}
        self._known = {BASE, *(record.weights_sha256 for record in by_id.values())}
        self._champion = champion_of(self.registry)
        before = lineage(history)[-2:-1]
        self._previous = by_id[before[0]].weights_sha256 if before and before[0] else BASE
        changes = sum(one.event != "refused" for one in history)
        champion = None if self._champion is None else self._champion.id
        if (champion, changes) != (self.state.champion, self.state.changes):
            self.state = WatchState(
                champion=champion,
                changes=changes,
                recent=self.state.recent,
                skipped=self.state.skipped,
                cursor=self.state.cursor,
            )
            logger.info("watching %s on %s of %s", champion or BASE, self.metric.name, self.store)

    def _save(self, cursor: Cursor) -> None:
        self.state.cursor = cursor.to_json()
        save_state(self._path, self.state)
