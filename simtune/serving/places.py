"""Which row of a lane's cache an answer gets, and what of other rows is copied into it first."""

from __future__ import annotations

from typing import NamedTuple

from simtune.policy.rows import WIDTH, common

WORTH_COPYING = 16
"""Tokens that two prompts share before one row's are copied into another's."""


class Copy(NamedTuple):
    """Copy the first `columns` of row `source` to row `target`."""

    source: int
    target: int
    columns: int


class Place(NamedTuple):
    """Where a prompt goes.

    Attributes:
        row: its row.
        kept: leading tokens that need not be computed.
        copies: what is copied first, in this order.
    """

    row: int
    kept: int
    copies: list[Copy]


class Places:
    """The rows of a cache: what each holds, and which are in use.

    Rows in use stay at the front, since a pass reads the front as a slice. What a row held goes
    on lying in it, or in a row behind, so that a chat that goes on finds itself.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._busy: list[bool] = []
        self._used: list[int] = []
        self._clock = 0

    @property
    def count(self) -> int:
        """Rows there are."""
        return len(self._held)

    @property
    def front(self) -> int:
        """One after the last row in use."""
        return max((row + 1 for row, busy in enumerate(self._busy) if busy), default=0)

    def shared(self, prompt: bytes) -> tuple[int, int]:
        """The row that holds most of a prompt, and how many tokens of it; at least one is left."""
        best, most = -1, 0
        for row, held in enumerate(self._held):
            if held[:WIDTH] == prompt[:WIDTH] and (found := common(held, prompt)) > most:
                best, most = row, found
        return best, min(most, len(prompt) // WIDTH - 1)

    def take(self, prompt: bytes, *, most: int) -> Place:
        """Give a prompt a row.

        Args:
            prompt: its ids, packed.
            most: rows there may be.
        """
        source, kept = self.shared(prompt)
        lowest = self._lowest_free()
        if self._goes_on(source, kept) and source <= max(lowest, self.front - 1):
            return self._given(source, kept, [], prompt)
        copies = []
        if kept < WORTH_COPYING:
            source, kept = lowest, min(common(self._held[lowest], prompt), kept)
        spare = self._spare(lowest, source, most)
        if spare is not None:
            copies.append(Copy(lowest, spare, len(self._held[lowest]) // WIDTH))
            self._held[spare], self._used[spare] = self._held[lowest], self._used[lowest]
        if source != lowest and kept:
            copies.append(Copy(source, lowest, kept))
            if not self._busy[source] and kept * WIDTH == len(self._held[source]):
                self._held[source] = b""
        return self._given(lowest, kept, copies, prompt)

    def hold(self, row: int, ids: bytes) -> None:
        """A row now holds these tokens."""
        self._held[row] = ids

    def free(self, row: int, ids: bytes) -> None:
        """A row is not in use any more; what it holds may be useful yet."""
        self._held[row] = ids
        self._busy[row] = False
        self._clock += 1
        self._used[row] = self._clock

    def closer(self) -> tuple[int, int] | None:
        """Where less than half of the front is in use: its last row, and where it should go."""
        front = self.front
        if front <= 2 * sum(self._busy) + 1:
            return None
        source, target = front - 1, self._lowest_free()
        self._held[target], self._used[target] = self._held[source], self._used[source]
        self._busy[target], self._busy[source] = True, False
        self._held[source] = b""
        return source, target

    def cut(self, count: int) -> None:
        """Forget the rows from `count` on; none of them is in use."""
        del self._held[count:], self._busy[count:], self._used[count:]

    def _goes_on(self, row: int, kept: int) -> bool:
        """Whether a prompt goes on from about all that a free row holds: nothing is lost there."""
        if row < 0 or self._busy[row]:
            return False
        held = len(self._held[row]) // WIDTH
        return held - kept <= max(WORTH_COPYING, held // 4)

    def _given(self, row: int, kept: int, copies: list[Copy], prompt: bytes) -> Place:
        self._busy[row] = True
        self._held[row] = prompt[: kept * WIDTH]
        return Place(row, kept, copies)

    def _lowest_free(self) -> int:
        for row, busy in enumerate(self._busy):
            if not busy:
                return row
        return self._new()

    def _new(self) -> int:
        self._held.append(b"")
        self._busy.append(False)
        self._used.append(0)
        return len(self._held) - 1

    def _spare(self, row: int, source: int, most: int) -> int | None:
        """A row for what `row` holds: an empty or new one, else the one least lately used."""
        if len(self._held[row]) < WORTH_COPYING * WIDTH:
            return None
        free = [
            other
            for other, busy in enumerate(self._busy)
            if not busy and other not in (row, source) and other > row
        ]
        empty = [other for other in free if not self._held[other]]
        if empty:
            return empty[0]
        if len(self._held) < most:
            return self._new()
        oldest = min(free, key=self._used.__getitem__, default=None)
        if oldest is None or self._used[oldest] >= self._used[row]:
            return None
        return oldest
