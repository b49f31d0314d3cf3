"""How old a decision is, counted in adapters that were published since the one that made it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simtune.records import Episode
from simtune.registry import ModelRecord

STALE = "stale: decided by an adapter too many versions old"
FOREIGN = "of a policy that this run neither published nor started from"


class Versions:
    """Numbers of the adapters that decisions may carry.

    Version 0 is what training started from: a registered adapter, or a new one that answers as the
    base model does. What that adapter was itself trained from has numbers below 0, down to the
    base model. Every adapter that the run publishes is one more.

    Args:
        ancestry: content hashes from the start backwards; None stands for the base model.
    """

    def __init__(self, ancestry: Sequence[str | None]) -> None:
        self.current = 0
        self._numbers: dict[str | None, int] = {}
        for back, adapter in enumerate(ancestry):
            self._numbers.setdefault(adapter, -back)

    def alias(self, adapter: str | None, number: int) -> None:
        """Give a further adapter a number, such as that of the version it equals in function."""
        self._numbers[adapter] = number
        self.current = max(self.current, number)

    def publish(self, adapter: str) -> bool:
        """An adapter is about to be published; False where it is the current version already."""
        if self._numbers.get(adapter) == self.current:
            return False
        self.current += 1
        self._numbers[adapter] = self.current
        return True

    def behind(self, adapter: str | None) -> int | None:
        """Versions between an adapter and the current one; None where it is not known."""
        number = self._numbers.get(adapter)
        return None if number is None else self.current - number

    def state_dict(self) -> list[tuple[str | None, int]]:
        """Every adapter with its number."""
        return list(self._numbers.items())

    def load_state_dict(self, state: Iterable[Sequence[str | int | None]]) -> None:
        """Go on from `state_dict()`."""
        self._numbers = {
            None if adapter is None else str(adapter): int(number or 0) for adapter, number in state
        }
        self.current = max(self._numbers.values())


def ancestry(start: ModelRecord | None, records: Iterable[ModelRecord]) -> list[str | None]:
    """Content hashes of an adapter and of what it was trained from, one after the other.

    Args:
        start: what training starts from; None for the base model.
        records: of the registry.
    """
    by_id = {record.id: record for record in records}
    found: list[str | None] = []
    while start is not None and start.weights_sha256 not in found:
        found.append(start.weights_sha256)
        start = by_id.get(start.parent or "")
    return [*found, None]


def staleness(episode: Episode, versions: Versions, limit: int) -> tuple[list[int], str | None]:
    """How old the decisions of an episode are, and why it cannot be learned from, if it cannot.

    An episode is taken or left whole. Credit flows through every decision: without a stale one
    the decisions before it would be credited with a future that nobody measured.

    Args:
        episode: a captured episode.
        versions: known adapters.
        limit: the largest age that is learned from.
    """
    ages = [versions.behind(decision.adapter) for decision in episode.decisions]
    known = [age for age in ages if age is not None]
    if len(known) < len(ages):
        return known, FOREIGN
    return known, STALE if max(known, default=0) > limit else None
