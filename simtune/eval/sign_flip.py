"""Confidence bounds of a paired difference, exact for small samples: the sign-flip test inverted.

If candidate and champion are equally good on a seed, either could have been the one that did
better: their difference D is as likely as -D. So under "the differences lie symmetrically around
m" each of the 2^n ways to flip the signs of D - m was as likely as the one that was seen. The
test rejects where the observed mean is among the share `alpha` of largest ones (Fisher 1935, "The
Design of Experiments", §21). A flip S has a mean at least the observed one exactly where the mean
of D over S is at most m; so the lower bound is the k-th smallest mean over the non-empty subsets
of the differences (Hartigan 1969, "Using subsample values as typical values", JASA 64, 1303-1317),

    k = floor(alpha · 2^n).

All subsets are taken where there are at most 2^14, else 20,000 drawn at random, to which the
observed signs are added, k = floor(alpha · 20,001), so that the level still holds (Phipson and
Smyth 2010, "Permutation p-values should never be zero", eq. 2).

Where the differences are far from symmetric around their mean and the margin is not 0, the level
holds only as n grows. `simtune.eval.betting` assumes no symmetry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from simtune.errors import OptionError
from simtune.eval.intervals import Interval

EXACT_UP_TO: Final = 14
"""Pairs up to which all 2^n subsets are looked at."""

DRAWN: Final = 20_000
"""Random subsets beyond that."""


def sign_flip_bounds(differences: Sequence[float], *, confidence: float, seed: int = 0) -> Interval:
    """Mean difference between a lower and an upper bound, each of which holds on its own.

    Args:
        differences: candidate minus champion on each seed, `[n]`.
        confidence: share of repetitions in which the lower bound (and likewise the upper) is on
            the right side of the true difference.
        seed: of the random subsets.

    Returns:
        Bounds are infinite where there are too few pairs to say anything: below 5 at 0.95.

    Raises:
        OptionError: no differences, one that is not finite, or no confidence.
    """
    sample = np.asarray(differences, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise OptionError("bounds need a list of finite differences", got=f"shape {sample.shape}")
    if not 0.5 <= confidence < 1:
        raise OptionError("a confidence lies between 0.5 and 1", got=confidence)
    means = _subset_means(sample, seed)
    # 1 - 0.95 is a little more than 0.05 in floating point, and 0.05 · 20 no more than 1.
    rejected = math.floor((1 - confidence) * means.size + 1e-9)
    return Interval(
        float(sample.mean()),
        float(np.partition(means, rejected)[rejected]),
        -float(np.partition(np.where(np.isinf(means), means, -means), rejected)[rejected]),
    )


def _subset_means(sample: np.ndarray, seed: int) -> np.ndarray:
    """Mean of each subset, `[patterns]`; minus infinity for the empty one, the observed signs."""
    n = sample.size
    if n <= EXACT_UP_TO:
        return _means(sample, (np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    generator = np.random.default_rng(seed)
    drawn = [
        _means(sample, np.unpackbits(bits, axis=1, count=n))
        for bits in np.array_split(
            generator.integers(256, size=(DRAWN, -(-n // 8)), dtype=np.uint8), 20
        )
    ]
    return np.concatenate([[-math.inf], *drawn])


def _means(sample: np.ndarray, taken: np.ndarray) -> np.ndarray:
    sizes = taken.sum(axis=1)
    return np.where(sizes > 0, taken @ sample / np.maximum(sizes, 1), -math.inf)
