"""What a benchmark gives, and how repeated timings become one number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Measured(NamedTuple):
    """One line of the table.

    Attributes:
        what: what was measured.
        unit: of the numbers.
        median: the middle one.
        worst: the 99th percentile of times, the slowest run of rates.
        runs: how many timings or runs are behind it.
    """

    what: str
    unit: str
    median: float
    worst: float
    runs: int


def of_times(what: str, unit: str, times: Sequence[float]) -> Measured:
    """Many timings of one small thing: their median and 99th percentile."""
    ordered = sorted(times)
    worst = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return Measured(what, unit, statistics.median(ordered), worst, len(ordered))


def of_rates(what: str, unit: str, rates: Sequence[float]) -> Measured:
    """A few runs of one large thing: their median and the slowest."""
    return Measured(what, unit, statistics.median(rates), min(rates), len(rates))
