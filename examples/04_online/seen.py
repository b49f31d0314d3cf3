"""What is to be seen of the example from outside: its store and its registry."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of
from simtune.store import tail


class Seen:
    """Follows the store, and looks at the registry."""

    def __init__(self, place: Path) -> None:
        self.registry = Registry(place / "models")
        self._new = tail(str(place / "store"))
        self.returns: dict[str | None, list[float]] = {None: []}

    def look(self) -> None:
        """Add complete episodes that are new to the returns of the adapter that played them."""
        for episode in self._new.episodes():
            made_by = {decision.adapter for decision in episode.decisions}
            if len(made_by) == 1:
                self.returns.setdefault(made_by.pop(), []).append(episode.total_reward)

    def learned(self) -> bool:
        """Whether the newest adapters let more than three cars of four through."""
        newest = [value for values in list(self.returns.values())[1:] for value in values][-100:]
        return len(newest) == 100 and fmean(newest) > 1.5

    def champion_played(self) -> bool:
        """Whether the champion has 40 episodes."""
        champion = champion_of(self.registry)
        return champion is not None and len(self.returns.get(champion.weights_sha256, [])) >= 40

    def rolled_back(self) -> bool:
        """Whether the last change of champion was that."""
        return history_of(self.registry)[-1].event == "rolled_back"

    def wait(self, until: Callable[[], bool]) -> None:
        """Look every second."""
        while not until():
            time.sleep(1)
            self.look()
