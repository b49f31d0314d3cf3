"""Matches of scripted policies, and what becomes of the verdict."""

import numpy as np
import pytest

from simtune.errors import DataError, OptionError
from simtune.eval.gate import Match, play_match
from simtune.eval.intervals import Interval
from simtune.eval.metrics import Metric
from simtune.eval.verdict import Rule, Verdict, judge, settle
from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of, promote
from tests.eval.lever import make
from tests.registry.registering import register


def always(answer):
    return lambda messages: answer


def coin(seed, rate):
    luck = np.random.default_rng(seed)
    return lambda messages: "right" if luck.random() < rate else "left"


def match(**options):
    usual = {"metric": Metric("success"), "rule": Rule(), "episodes": 60, "num_envs": 8}
    return Match(env=make, **usual | options)


def test_pairs_share_their_seeds():
    found = play_match(match(), always("right"), always("left"), names=("a", "b"))
    # The same luck on both sides: the right lever never loses where the left one wins.
    assert (found.candidate, found.champion, found.episodes) == ("a", "b", 60)
    assert found.details["worse"] == 0
    assert found.difference.estimate == pytest.approx(found.details["better"] / 60)
    assert found.promote


def test_equals_that_play_alike_are_never_promoted():
    found = play_match(match(), always("right"), always("right"))
    assert (found.difference, found.promote) == (Interval(0.0, 0.0, 0.0), False)


@pytest.mark.parametrize("method", ["sign-flip", "betting"])
def test_equally_good_candidates_are_promoted_at_most_at_the_rate(method):
    """60 whole matches of two policies that pull right half of the time, at a rate of 20 %."""
    promoted = 0
    for run in range(60):
        played = match(episodes=24, seed=1000 * run, method=method, rule=Rule(confidence=0.8))
        promoted += play_match(played, coin(2 * run, 0.5), coin(2 * run + 1, 0.5)).promote
    # Three standard errors above 12 of 60 would be 21.
    assert promoted <= 12


def test_a_metric_that_is_missing_stops_the_gate():
    with pytest.raises(DataError, match="no long_words"):
        play_match(match(metric=_Missing()), always("right"), always("left"))
    with pytest.raises(OptionError, match="at least one"):
        play_match(match(episodes=0), always("right"), always("left"))


class _Missing:
    name = "long_words"
    bounds = None

    def score(self, episode):
        return None

    def explain(self):
        return "there are none"


def verdict(promote=True):
    return Verdict(
        promote=promote,
        reason="because",
        candidate="c",
        champion="base",
        method="sign-flip",
        metric="success",
        episodes=3,
        candidate_mean=1.0,
        champion_mean=0.0,
        difference=Interval(1.0, 0.5, 1.5),
        margin=0.0,
        confidence=0.95,
    )


def test_a_verdict_is_carried_out_and_kept_with_its_numbers(tmp_path):
    registry = Registry(tmp_path)
    first, second = register(registry, 1.0), register(registry, 2.0)
    assert settle(registry, first, None, verdict(promote=False)).event == "refused"
    assert settle(registry, first, None, verdict()).event == "promoted"
    assert history_of(registry)[-1].evidence["difference"] == {
        "estimate": 1.0,
        "low": 0.5,
        "high": 1.5,
    }
    # Measured against the base, but meanwhile there is a champion.
    late = settle(registry, second, None, verdict())
    assert late.event == "refused"
    assert late.reason == "measured against base, which is not the champion any more; measure again"
    assert champion_of(registry).id == first.id
    promote(registry, second.id)
    assert [change.by for change in history_of(registry)] == ["gate", "gate", "gate", "hand"]


def test_the_lower_bound_decides():
    rule = Rule(margin=0.1)
    assert judge(rule, Interval(0.3, 0.11, 0.5), "success")[0] is True
    promote_it, said = judge(rule, Interval(0.3, 0.1, 0.5), "success")
    assert promote_it is False
    assert said == ("success differs by 0.3; its lower 0.95 bound 0.1 is not above the margin 0.1")
    with pytest.raises(OptionError, match="margin"):
        Rule(margin=float("nan"))
    with pytest.raises(OptionError, match="confidence"):
        Rule(confidence=0.4)
