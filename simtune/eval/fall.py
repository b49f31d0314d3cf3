"""Whether scores fell, asked after every score, with a bound on ever crying wolf.

Both tests bet against "no fall". A factor f_t(x) has mean at most 1 while there is no fall,
whatever came before, and grows wealth when scores are low. When a fall begins is not known, so
wealth is spread over the moments at which betting may begin, moment s with the share 1/(s(s+1)):

    M_t = sum_{s <= t} 1/(s(s+1)) · prod_{i=s..t} f_i  +  1/(t+1)

M is a nonnegative supermartingale that begins at 1, and an alarm is raised where M >= 1/alpha. By
Ville's inequality the chance of an alarm, ever, is at most alpha while there is no fall: it is a
bound for the whole watch, not for each look. (Mixtures over the moment of a change: Shiryaev;
as e-processes: Shin, Ramdas and Rinaldo 2024, "E-detectors", NEJSDS 2, 229-260, §2; betting on
bounded means: Waudby-Smith and Ramdas 2024, see `simtune.eval.betting`.)
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from statistics import fmean
from typing import Final, TypeAlias

import msgspec

from simtune.errors import OptionError
from simtune.eval.betting import Betting

SHARES: Final = (0.1, 0.25, 0.5, 0.9)
"""Of the wealth that is bet, side by side."""


class _Watched(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Wealth, and what it was won against.

    Attributes:
        alpha: chance of ever raising an alarm while there is no fall.
        n: scores so far.
        total: their sum.
        alarm: whether one was raised; it stays.
        highest: largest wealth so far.
        wealth: of each share, over all moments at which betting may have begun.
    """

    alpha: float
    n: int = 0
    total: float = 0.0
    alarm: bool = False
    highest: float = 1.0
    wealth: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(SHARES))

    def _bet(self, value: float, gain: float) -> bool:
        """Multiply by 1 + share · gain; `gain` has mean at most 0 while there is no fall."""
        self.n += 1
        self.total += value
        begun = 1 / (self.n * (self.n + 1) * len(SHARES))
        self.wealth = [
            (held + begun) * (1 + share * gain)
            for held, share in zip(self.wealth, SHARES, strict=True)
        ]
        self.highest = max(self.highest, sum(self.wealth) + 1 / (self.n + 1))
        self.alarm = self.alarm or self.highest >= 1 / self.alpha
        return self.alarm


class MeanFall(_Watched, tag="mean"):
    """Whether the mean of bounded scores fell below that of a baseline.

    What is tested is "the mean is at least `level`". The level is a lower bound of the baseline's
    mean, missed with probability alpha/2; the wealth has to reach 2/alpha.

    Attributes:
        low: least value of a score.
        high: largest.
        level: lower bound of the baseline's mean.
    """

    low: float
    high: float
    level: float

    @classmethod
    def after(cls, baseline: Sequence[float], *, low: float, high: float, alpha: float) -> MeanFall:
        """A test against the scores of a baseline.

        Raises:
            OptionError: a score outside of the range, or no false-alarm rate.
        """
        _check(baseline, alpha)
        bounds = Betting(low, high, confidence=1 - alpha / 2)
        bounds.add(baseline)
        return cls(alpha=alpha / 2, low=low, high=high, level=bounds.interval().low)

    def add(self, value: float, _: str) -> bool:
        """Take one score; whether there is an alarm."""
        if not self.low <= value <= self.high:
            raise OptionError(
                "a score lies outside of the stated range",
                expected=f"from {self.low:g} to {self.high:g}",
                got=f"{value:g}",
            )
        lost = (self.high - value) / (self.high - self.level)
        return self._bet(value, lost - 1)


class RankFall(_Watched, tag="rank"):
    """Whether scores rank lower than those before them, of a baseline and of their own.

    No range is needed. While scores of baseline and watch are exchangeable, the rank of each new
    one among all before it is uniform and independent of the others, however few the baseline
    has (Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world", §7.1):

        p_t = (scores before that are lower + u · (equal ones, itself counted)) / t

    and 1 + share · (1 - 2 p) has mean 1. Ties are broken by u, a hash of the episode's id.

    Attributes:
        pool: the scores before, ascending.
    """

    pool: list[float]

    @classmethod
    def after(cls, baseline: Sequence[float], *, alpha: float) -> RankFall:
        """A test against the scores of a baseline.

        Raises:
            OptionError: no baseline, or no false-alarm rate.
        """
        _check(baseline, alpha)
        return cls(alpha=alpha, pool=sorted(baseline))

    def add(self, value: float, episode_id: str) -> bool:
        """Take one score; whether there is an alarm."""
        lower = bisect.bisect_left(self.pool, value)
        equal = bisect.bisect_right(self.pool, value) - lower + 1
        p = (lower + _uniform(episode_id) * equal) / (len(self.pool) + 1)
        bisect.insort(self.pool, value)
        return self._bet(value, 1 - 2 * p)


Fall: TypeAlias = MeanFall | RankFall


def _uniform(text: str) -> float:
    """A number in [0, 1) that is the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _check(baseline: Sequence[float], alpha: float) -> None:
    if not 0 < alpha < 1:
        raise OptionError("a false-alarm rate lies between 0 and 1", got=alpha)
    if not baseline or not fmean(baseline) - fmean(baseline) == 0:
        raise OptionError("a baseline needs finite scores", got=list(baseline)[:3])
