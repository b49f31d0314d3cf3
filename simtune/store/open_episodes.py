"""Episodes that are being written: their rows until the end comes, within a bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from simtune.records import Episode
from simtune.store.assembly import PlainRow, episode_of, plain_rows
from simtune.store.history import History, add_reward

OPEN_ROWS: Final = 20_000
_EARLY_REWARDS: Final = 10_000


class OpenEpisodes:
    """Takes rows, gives complete episodes.

    Rows of open episodes are held, up to `OPEN_ROWS` of them. What is beyond that, and what was
    open when the tail was begun, is looked up in the store when the end comes.

    Args:
        history: what was taken before.
    """

    def __init__(self, history: History) -> None:
        self._starter = history.started()
        self._elsewhere = set(self._starter)
        self._held: OrderedDict[str, list[PlainRow]] = OrderedDict()
        self._decisions: dict[str, PlainRow] = {}
        self._early: OrderedDict[str, float] = OrderedDict()
        self._rows = 0

    def absorb(self, rows: pa.Table, history: History) -> list[Episode]:
        """The episodes that end in these rows, in the order of their ends.

        Args:
            rows: rows that follow on those before, each writer's in its order.
            history: what was taken so far, these rows included.
        """
        ended: dict[str, None] = {}
        for row in plain_rows(rows):
            if row["kind"] == "reward":
                self._take_reward(row)
                continue
            self._hold(row)
            episode_id, writer = row["episode_id"], row["writer_id"]
            if row["kind"] == "episode_start":
                self._starter[episode_id] = writer
            elif row["kind"] == "episode_end" and self._starter.get(episode_id) == writer:
                ended[episode_id] = None
        complete = list(self._complete(list(ended), history))
        self._let_go()
        return complete

    def _hold(self, row: PlainRow) -> None:
        if row["episode_id"] in self._elsewhere:
            return
        self._held.setdefault(row["episode_id"], []).append(row)
        self._held.move_to_end(row["episode_id"])
        self._rows += 1
        if row["kind"] == "decision":
            self._decisions[row["decision_id"]] = row
            add_reward(row, self._early.pop(row["decision_id"], None))

    def _take_reward(self, row: PlainRow) -> None:
        decision = self._decisions.get(row["decision_id"])
        if decision is not None:
            add_reward(decision, row["reward"])
        elif row["reward"] is not None:
            # Mostly of an episode that is gone; else its decision is another writer's, yet unread.
            before = self._early.pop(row["decision_id"], 0.0)
            self._early[row["decision_id"]] = before + row["reward"]
            if len(self._early) > _EARLY_REWARDS:
                self._early.popitem(last=False)

    def _complete(self, ended: list[str], history: History) -> Iterator[Episode]:
        absent = [episode_id for episode_id in ended if episode_id in self._elsewhere]
        found = history.rows_of(absent) if absent else {}
        for episode_id in ended:
            del self._starter[episode_id]
            self._elsewhere.discard(episode_id)
            rows = found.get(episode_id)
            yield episode_of(episode_id, self._drop(episode_id) if rows is None else rows)

    def _drop(self, episode_id: str) -> list[PlainRow]:
        rows = self._held.pop(episode_id)
        self._rows -= len(rows)
        for row in rows:
            self._decisions.pop(row["decision_id"], None)
        return rows

    def _let_go(self) -> None:
        """Keep within the limit; rows of no episode that began are no episode's."""
        while self._rows > OPEN_ROWS:
            episode_id = next(iter(self._held))
            self._drop(episode_id)
            if episode_id in self._starter:
                self._elsewhere.add(episode_id)
