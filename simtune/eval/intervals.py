"""Confidence intervals of rates, of means, and of differences on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np

from simtune.errors import OptionError

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CHUNK = 1_000_000
"""Resampled values held at once, so that memory does not grow with the number of resamples."""


class Interval(msgspec.Struct, frozen=True):
    """A point estimate between its confidence limits."""

    estimate: float
    low: float
    high: float

    def apart(self, other: Interval) -> bool:
        """Whether the two intervals share no value."""
        return self.high < other.low or other.high < self.low


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a rate; unlike the textbook interval it holds near 0 and 1.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    JASA 22, 209-212; Brown, Cai and DasGupta (2001), "Interval estimation for a binomial
    proportion", Statistical Science 16, eq. (4). With z the normal quantile of
    (1 + confidence) / 2 and p = successes / trials:

        centre = (p + z²/2n) / (1 + z²/n)
        half   = z / (1 + z²/n) · sqrt(p(1-p)/n + z²/4n²)

    Raises:
        OptionError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise OptionError(
            "a rate needs at least one trial, and no more successes than trials",
            got=f"{successes} of {trials}",
        )
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    rate = successes / trials
    scale = 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # At 0 and 1 the limit is exact; the subtraction would leave a rounding error instead.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(rate, low, high)


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of a mean.

    Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7,
    1-26; Efron and Tibshirani (1993), "An Introduction to the Bootstrap", eq. (13.5): draw n
    values with replacement, take their mean, repeat; the limits are the quantiles
    (1 - confidence) / 2 and (1 + confidence) / 2 of these means.

    Args:
        values: one number per episode, `[n]`.
        seed: the same seed gives the same limits.
        confidence: share of repetitions whose interval would hold the true mean.
        resamples: how many means are drawn.

    Raises:
        OptionError: no values, or one that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise OptionError(
            "an interval of a mean needs a list of finite numbers", got=f"shape {sample.shape}"
        )
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // sample.size)
    means = np.concatenate(
        [
            sample[generator.integers(sample.size, size=(count, sample.size))].mean(axis=1)
            for count in _chunks(resamples, rows)
        ]
    )
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sample.mean()), float(low), float(high))


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of mean(first - second), pair by pair.

    Episodes of the same seed are one pair, so the difficulty of the seed cancels: the interval is
    narrower than what the two separate intervals suggest (Efron and Tibshirani 1993, ch. 8.3).

    Raises:
        OptionError: the two differ in length, or are empty.
    """
    if len(first) != len(second):
        raise OptionError(
            "a paired difference needs the same episodes on both sides",
            got=f"{len(first)} and {len(second)}",
        )
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return bootstrap_mean(differences, seed=seed, confidence=confidence, resamples=resamples)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise OptionError("a confidence lies between 0 and 1", got=confidence)
    return confidence
