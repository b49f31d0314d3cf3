"""Falls: by hand, never cried too often however long one looks, and found when they are there."""

import numpy as np
import pytest

from simtune.errors import OptionError
from simtune.eval.fall import SHARES, MeanFall, RankFall, _uniform


def test_wealth_over_two_scores_by_hand():
    # Level 0.5 of [0, 1]: a score of 0 gains (1 - 0)/0.5 - 1 = 1, a score of 1 gains -1.
    test = MeanFall(alpha=0.05, low=0.0, high=1.0, level=0.5)
    assert not test.add(0.0, "")
    # Betting begun at the first score has half of the wealth, a quarter waits for each share...
    first = sum(1 / 2 / 4 * (1 + g) for g in SHARES)
    assert test.highest == pytest.approx(first + 1 / 2)
    test.add(0.0, "")
    # ...and at the second score a sixth begins, a third still waits.
    second = sum((1 / 8 * (1 + g) + 1 / 24) * (1 + g) for g in SHARES)
    assert test.highest == pytest.approx(second + 1 / 3)


def test_ranks_by_hand():
    test = RankFall.after([1.0, 2.0, 3.0], alpha=0.05)
    test.add(0.5, "e")
    # The lowest of four: p = u / 4, whatever the ties.
    gain = 1 - 2 * _uniform("e") / 4
    assert test.wealth[1] == pytest.approx(1 / 8 * (1 + SHARES[1] * gain))
    assert test.pool == [0.5, 1.0, 2.0, 3.0]


def streams(seed, count, length, before, after, change):
    generator = np.random.default_rng(seed)
    for run in range(count):
        baseline = (generator.random(80) < before).astype(float).tolist()
        rates = np.where(np.arange(length) < change, before, after)
        live = (generator.random(length) < rates).astype(float).tolist()
        yield run, baseline, live


def alarm_at(test, run, live):
    return next((at for at, x in enumerate(live) if test.add(x, f"{run}/{at}")), None)


def make(kind, baseline, alpha):
    if kind == "mean":
        return MeanFall.after(baseline, low=0.0, high=1.0, alpha=alpha)
    return RankFall.after(baseline, alpha=alpha)


@pytest.mark.parametrize("kind", ["mean", "rank"])
def test_without_a_fall_alarms_over_a_whole_watch_stay_below_the_rate(kind):
    """200 watches of 400 episodes each, at a stated rate of 10 %."""
    found = [
        alarm_at(make(kind, baseline, 0.1), run, live)
        for run, baseline, live in streams(1, 200, 400, 0.8, 0.8, 0)
    ]
    assert sum(at is not None for at in found) / 200 <= 0.1


def test_continuous_scores_in_any_unit_are_watched_by_rank_at_the_rate():
    generator = np.random.default_rng(2)
    alarms = 0
    for run in range(200):
        scores = generator.lognormal(5.0, 2.0, size=360).tolist()
        alarms += alarm_at(RankFall.after(scores[:60], alpha=0.1), run, scores[60:]) is not None
    assert alarms / 200 <= 0.1


@pytest.mark.parametrize(("kind", "median"), [("mean", 160), ("rank", 60)])
def test_a_fall_at_once_is_found(kind, median):
    """From 0.8 to 0.5; so many episodes later in the median."""
    delays = [
        alarm_at(make(kind, baseline, 0.05), run, live)
        for run, baseline, live in streams(3, 40, 600, 0.8, 0.5, 0)
    ]
    known = [600 if at is None else at + 1 for at in delays]
    assert np.median(known) <= median


def test_a_fall_after_a_long_good_time_is_found():
    delays = [
        alarm_at(RankFall.after(baseline, alpha=0.05), run, live)
        for run, baseline, live in streams(4, 40, 900, 0.8, 0.5, 300)
    ]
    late = [at - 300 for at in delays if at is not None and at >= 300]
    assert len(late) >= 36
    assert np.median(late) <= 150


def test_what_got_better_raises_no_alarm():
    for run, baseline, live in streams(5, 40, 300, 0.6, 0.9, 0):
        assert alarm_at(RankFall.after(baseline, alpha=0.05), run, live) is None


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(OptionError, match="false-alarm rate"):
        RankFall.after([1.0], alpha=0.0)
    with pytest.raises(OptionError, match="finite scores"):
        RankFall.after([], alpha=0.1)
    with pytest.raises(OptionError, match="outside"):
        MeanFall.after([0.5], low=0.0, high=1.0, alpha=0.1).add(2.0, "e")
