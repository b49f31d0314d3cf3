"""Episodes that are kept to be learned from again: the newest and the best, within a bound."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from simtune.data.samples import Sample


class Replayed(msgspec.Struct, kw_only=True):
    """An episode in the buffer.

    Attributes:
        episode_id: as captured.
        env: scores are compared within one environment.
        score: sum over its decisions.
        samples: its valid decisions.
    """

    episode_id: str
    env: str | None
    score: float
    samples: list[Sample]


class ReplayBuffer:
    """Up to so many episodes, drawn by score.

    When it is full, the newer half stays whatever it scored; of the older half the worst goes. So
    there is always what the policy does now, beside the best that it ever did.

    Args:
        capacity: episodes.
        temperature: of the draw. Scores count in standard deviations of their environment: one
            deviation more is drawn exp(1 / temperature) times as often.

    Attributes:
        episodes: oldest first.
    """

    def __init__(self, capacity: int, temperature: float) -> None:
        self.capacity = capacity
        self.temperature = temperature
        self.episodes: list[Replayed] = []

    def add(self, episodes: Sequence[Replayed]) -> None:
        """Put in newer episodes, and let go of those beyond the capacity."""
        self.episodes += episodes
        surplus = len(self.episodes) - self.capacity
        if surplus <= 0:
            return
        older = len(self.episodes) - math.ceil(self.capacity / 2)
        standing = self._standings()
        worst = sorted(range(older), key=lambda at: (standing[at], at))[:surplus]
        gone = set(worst)
        self.episodes = [one for at, one in enumerate(self.episodes) if at not in gone]

    def draw(self, count: int, seed: str) -> list[Replayed]:
        """Different episodes, the better ones more likely; the same for the same seed.

        Gumbel's trick: the largest of log-weight plus Gumbel noise are a draw without replacement
        ([1903.06059](https://arxiv.org/abs/1903.06059)).

        Args:
            count: how many; all, where there are fewer.
            seed: of this draw.
        """
        chance = random.Random(seed)
        keys = [
            standing / self.temperature - math.log(chance.expovariate(1.0))
            for standing in self._standings()
        ]
        best = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)[:count]
        return [self.episodes[at] for at in sorted(best)]

    def dump(self) -> bytes:
        """The episodes, for a checkpoint."""
        return msgspec.msgpack.encode(self.episodes)

    def load(self, dumped: bytes) -> None:
        """Go on with the episodes of `dump()`."""
        self.episodes = msgspec.msgpack.decode(dumped, type=list[Replayed])

    def _standings(self) -> list[float]:
        """Deviations of each score from the mean of its environment; 0 where all are alike."""
        scores: dict[str | None, list[float]] = defaultdict(list)
        for one in self.episodes:
            scores[one.env].append(one.score)
        mean = {env: statistics.fmean(found) for env, found in scores.items()}
        spread = {env: statistics.pstdev(found) for env, found in scores.items()}
        return [
            (one.score - mean[one.env]) / spread[one.env] if spread[one.env] else 0.0
            for one in self.episodes
        ]
