"""Confidence bounds of a mean that hold at every moment at once: stop as soon as they suffice.

Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", JRSS B
86, 1-27. Scores X in [0, 1]. Against "the mean is at most m" one bets on every score that it is
above m, with a fixed share g of one's wealth; the bets of several shares are made side by side:

    K_t(m) = average over g of  prod_{i <= t} (1 + g · (X_i / m - 1)),    0 < g < 1.

If the mean, whatever came before, is at most m, K_t(m) is a nonnegative supermartingale that
begins at 1, so the chance that it ever reaches 1/alpha is at most alpha (Ville's inequality;
theorem 1 and the diversified bets of section 5 there). No distribution is assumed, only the
range, and n may depend on what was seen. K_t(m) falls in m: the lower bound is the m at which it
is 1/alpha, and the largest of the lower bounds so far holds as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from simtune.errors import OptionError
from simtune.eval.intervals import Interval

SHARES: Final = np.array([0.5**k for k in range(1, 9)] + [0.75, 0.9])
"""Bets on small and on large differences, between 0.4 % and 90 % of the wealth."""

_HALVINGS = 50
"""Of the interval in which a bound is looked for: to 1e-15 of the range."""


class Betting:
    """Bounds of the mean of bounded scores, renewed with every score.

    Args:
        low: least value a score can have.
        high: largest value.
        confidence: the lower bound is below the true mean at all times with this probability; so
            is the upper above it.

    Attributes:
        n: how many scores there were.
        mean: of them.

    Raises:
        OptionError: no range, or no confidence.
    """

    def __init__(self, low: float, high: float, *, confidence: float) -> None:
        if not low < high or not math.isfinite(high - low):
            raise OptionError("bets need a finite range of scores", got=f"{low:g} to {high:g}")
        if not 0 < confidence < 1:
            raise OptionError("a confidence lies between 0 and 1", got=confidence)
        self.low, self.high = low, high
        self.n = 0
        self.mean = math.nan
        self._needed = -math.log1p(-confidence)
        self._bounds = [0.0, 0.0]
        self._seen: list[float] = []

    def add(self, values: Iterable[float]) -> None:
        """Take scores.

        Raises:
            OptionError: one lies outside of the range.
        """
        for value in values:
            if not self.low <= value <= self.high:
                raise OptionError(
                    "a score lies outside of the stated range",
                    expected=f"from {self.low:g} to {self.high:g}",
                    got=f"{value:g}",
                )
            self._seen.append((value - self.low) / (self.high - self.low))
        self.n = len(self._seen)
        self.mean = self.low + (self.high - self.low) * math.fsum(self._seen) / max(1, self.n)

    def interval(self) -> Interval:
        """The mean so far and the bounds; what was excluded before stays excluded."""
        seen = np.asarray(self._seen)
        for side, scores in enumerate((seen, 1 - seen)):
            self._bounds[side] = max(self._bounds[side], _lower_bound(scores, self._needed))
        span = self.high - self.low
        return Interval(
            self.mean, self.low + span * self._bounds[0], self.high - span * self._bounds[1]
        )


def log_wealth(scores: np.ndarray, mean: float) -> float:
    """Log K_t(m) of scores in [0, 1], `[t]`, against "the mean is at most `mean`" > 0."""
    with np.errstate(divide="ignore"):
        by_share = np.log1p(SHARES[:, None] * (scores / mean - 1)).sum(axis=1)
    top = by_share.max()
    return float(top + np.log(np.exp(by_share - top).mean()))


def _lower_bound(scores: np.ndarray, needed: float) -> float:
    """The largest m whose wealth reached `needed`, by bisection; 0 where there is none."""
    low, high = 0.0, 1.0
    if not scores.size or log_wealth(scores, 1e-12) < needed:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_wealth(scores, middle) >= needed else (low, middle)
    return low
