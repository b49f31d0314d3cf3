"""How often the gate errs, how many episodes it needs, and how soon a fall is seen.

Simulated episodes that succeed at known rates. Candidate and champion share the luck of half of
the seeds, as policies that mostly agree do.

    python -m tests.benchmarks.gating
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from simtune.cli import output
from simtune.eval.betting import Betting
from simtune.eval.fall import Fall, MeanFall, RankFall
from simtune.eval.sign_flip import sign_flip_bounds

CONFIDENCE = 0.95
CHAMPION = 0.6
CANDIDATES = (0.6, 0.65, 0.7, 0.8)
FIXED = (50, 200, 500)
AT_MOST, LOOK = 500, 25
BEFORE, BASELINE, ALPHA, WATCHED = 0.8, 100, 0.01, 1000
FALLS = ((0.8, 0), (0.65, 0), (0.5, 0), (0.2, 0), (0.5, 300))
RUNS = 200


def matches() -> Iterator[list[object]]:
    """Share of matches that promote, for each candidate."""
    generator = np.random.default_rng(11)
    for rate in CANDIDATES:
        runs = 4 * RUNS if rate == CHAMPION else RUNS
        row: list[object] = [rate]
        for count in FIXED:
            bounds = (
                sign_flip_bounds(_pairs(generator, count, rate), confidence=CONFIDENCE, seed=run)
                for run in range(runs)
            )
            row.append(sum(found.low > 0 for found in bounds) / runs)
        ends = [_sequential(generator, rate) for _ in range(RUNS)]
        row += [sum(won for won, _ in ends) / RUNS, float(np.median([used for _, used in ends]))]
        sys.stderr.write(f"{row}\n")
        yield row


def watches() -> Iterator[list[object]]:
    """Alarms, and how many episodes after the fall they come."""
    generator = np.random.default_rng(12)
    for kind in ("rank", "mean"):
        for rate, after in FALLS:
            began, looked = time.process_time(), 0
            delays = []
            for run in range(RUNS):
                test = _watch(kind, generator)
                rates = np.where(np.arange(WATCHED) < after, BEFORE, rate)
                live = (generator.random(WATCHED) < rates).astype(float).tolist()
                hit = next((i for i, x in enumerate(live) if test.add(x, f"{run}/{i}")), None)
                looked += test.n
                if hit is not None and hit >= after:
                    delays.append(hit - after + 1)
            spent = 1e6 * (time.process_time() - began) / looked
            median = float(np.median(delays)) if delays else None
            yield [kind, rate, after, len(delays) / RUNS, median, spent]


def _pairs(generator: np.random.Generator, count: int, rate: float) -> np.ndarray:
    luck, own = generator.random((2, count))
    shared = generator.random(count) < 0.5
    ours = np.where(shared, luck, own) < rate
    return ours.astype(float) - (luck < CHAMPION)


def _sequential(generator: np.random.Generator, rate: float) -> tuple[bool, int]:
    bets = Betting(-1.0, 1.0, confidence=CONFIDENCE)
    while bets.n < AT_MOST:
        bets.add(_pairs(generator, LOOK, rate))
        found = bets.interval()
        if found.low > 0 or found.high < 0:
            break
    return found.low > 0, bets.n


def _watch(kind: str, generator: np.random.Generator) -> Fall:
    baseline = (generator.random(BASELINE) < BEFORE).astype(float).tolist()
    if kind == "rank":
        return RankFall.after(baseline, alpha=ALPHA)
    return MeanFall.after(baseline, low=0.0, high=1.0, alpha=ALPHA)


if __name__ == "__main__":
    output.table(
        ["candidate", *(f"promoted of {n}" for n in FIXED), "early: promoted", "early: episodes"],
        list(matches()),
    )
    output.line()
    output.table(
        ["test", "rate", "after", "alarms", "median delay", "us an episode"], list(watches())
    )
