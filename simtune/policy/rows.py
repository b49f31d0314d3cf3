"""Which row of the cache answers which prompt: the one that holds most of it already."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH = array("i").itemsize


class Row(NamedTuple):
    """A prompt's place in the cache.

    Attributes:
        at: the row.
        kept: leading tokens of the prompt whose keys and values it holds already.
    """

    at: int
    kept: int


class RowIds:
    """The token ids that each row of a cache holds, as bytes so that prefixes compare fast."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def hold(self, index: int, ids: Sequence[int]) -> None:
        """Row `index` now holds these tokens."""
        self._held[index] = packed(ids)

    def move(self, source: int, target: int) -> None:
        """What row `source` held now lies in row `target`."""
        self._held[target], self._held[source] = self._held[source], b""

    def place(self, prompts: Sequence[Sequence[int]]) -> list[Row]:
        """Give each prompt a row of its own among the first `len(prompts)` or more rows.

        A row that a prompt goes on from is taken first, the longest one; other prompts take what
        is left, and keep what their row happens to share with them, such as the system message.
        At least the last token of a prompt is computed, since its logits are wanted.
        """
        wanted = [packed(prompt) for prompt in prompts]
        while len(self._held) < len(wanted):
            self._held.append(b"")
        free = sorted(range(len(self._held)), key=lambda row: -len(self._held[row]))
        taken: dict[int, int] = {}
        for place, ids in enumerate(wanted):
            for row in free:
                if self._held[row] and ids.startswith(self._held[row]):
                    taken[place] = row
                    free.remove(row)
                    break
        free.sort()
        for place in range(len(wanted)):
            if place not in taken:
                taken[place] = free.pop(0)
        return [
            Row(taken[place], min(common(self._held[taken[place]], ids), len(ids) // WIDTH - 1))
            for place, ids in enumerate(wanted)
        ]


def packed(ids: Sequence[int]) -> bytes:
    """Token ids as bytes."""
    return array("i", ids).tobytes()


def common(first: bytes, second: bytes) -> int:
    """How many leading tokens two packed rows share."""
    count = min(len(first), len(second)) // WIDTH
    if first[: count * WIDTH] == second[: count * WIDTH]:
        return count
    ours = np.frombuffer(first, np.int32, count)
    theirs = np.frombuffer(second, np.int32, count)
    return int(np.argmax(ours != theirs))
