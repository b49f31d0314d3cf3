"""Takes complete episodes out of a store that is being written, and waits for them, visibly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from simtune.records import Episode
from simtune.store import Cursor, tail
from simtune.train.options import OnWait

_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1
_SECONDS_BETWEEN_WORDS = 1.0


class Taken(msgspec.Struct, frozen=True):
    """An episode that was taken.

    Attributes:
        episode: as captured.
        reason: why it is not learned from; None where it is.
        delay: seconds from its last decision to this moment, by the wall clock.
    """

    episode: Episode
    reason: str | None
    delay: float


class Intake:
    """Episodes of a store, each once; where to go on is the caller's to keep.

    Args:
        root: of the store; it need not be there yet.
        timeout: seconds without a new row after which there is nothing more to wait for.
        stop: set by whoever wants the waiting to end.
        on_wait: told what is waited for.
    """

    def __init__(
        self, root: str, *, timeout: float | None, stop: threading.Event, on_wait: OnWait | None
    ) -> None:
        self.root = root
        self.timeout = timeout
        self.stop = stop
        self.on_wait = on_wait
        self.have = 0
        self._tail = tail(root)
        self._noticed = time.monotonic()
        self._said = 0.0

    @property
    def cursor(self) -> Cursor:
        """Where to go on after everything taken so far."""
        return self._tail.cursor

    def go_on_from(self, cursor: Cursor) -> None:
        """Take what lies behind a cursor."""
        self._tail = tail(self.root, cursor)

    def take(self, wanted: int, unfit: Callable[[Episode], str | None]) -> list[Taken] | None:
        """The next episodes, until so many of them can be learned from.

        Nothing more is read than that, so `cursor` stands right behind them.

        Args:
            wanted: how many episodes to learn from.
            unfit: why an episode cannot be learned from, or None.

        Returns:
            None where it was ended before so many came; what was taken until then is not used,
            and is taken again by whoever goes on from the cursor before.
        """
        taken: list[Taken] = []
        self.have = 0
        began, pause = time.monotonic(), _SHORTEST_PAUSE
        while True:
            before = self.cursor
            for episode in self._tail.episodes():
                reason = unfit(episode)
                taken.append(Taken(episode, reason, _delay(episode)))
                self.have += reason is None
                if self.have == wanted:
                    return taken
                if self.stop.is_set():
                    return None
            now = time.monotonic()
            if self.cursor != before:
                self._noticed, pause = now, _SHORTEST_PAUSE
            over = self.timeout is not None and now - max(self._noticed, began) >= self.timeout
            if over or self.stop.is_set():
                return None
            self._say(wanted, now)
            self.stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _say(self, wanted: int, now: float) -> None:
        if self.on_wait is None or now - self._said < _SECONDS_BETWEEN_WORDS:
            return
        self._said = now
        self.on_wait(
            f"waiting: {self.have} of {wanted} episodes, last row {now - self._noticed:.0f} s ago"
        )


def _delay(episode: Episode) -> float:
    last = max((decision.ts for decision in episode.decisions), default=0)
    return max(0.0, time.time() - last / 1e6) if last else 0.0
