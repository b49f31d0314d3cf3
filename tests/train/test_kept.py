"""Which weights a run keeps, and which of them are registered."""

import pytest

from simtune.eval.compare import Evaluation
from simtune.eval.intervals import Interval
from simtune.train.kept import Kept
from simtune.train.periodic_eval import is_best, score


def evaluation(success, mean):
    rate = None if success is None else Interval(success, 0, 1)
    return Evaluation(
        label="greedy",
        episodes=1,
        seed=0,
        success=rate,
        mean_return=Interval(mean, mean, mean),
        valid_rate=1.0,
        decisions=1,
        returns=[mean],
        successes=[],
    )


@pytest.mark.parametrize(
    ("later", "wins"),
    [((0.6, 0.0), True), ((0.5, 2.0), True), ((0.5, 1.0), True), ((0.5, 0.9), False)],
)
def test_success_decides_then_the_return_and_of_equal_ones_the_later(later, wins):
    assert is_best(later, (0.5, 1.0)) is wins


def test_where_success_is_unknown_the_return_decides():
    assert score(evaluation(None, 2.0)) > score(evaluation(None, 1.0))


def run(*scores):
    """Rounds 1, 2, ... with an evaluation each; the weights are named by their round."""
    kept = Kept("start", None)
    for done, success in enumerate(scores, start=1):
        kept.trained(done, f"w{done}", skipped_steps=0)
        kept.evaluated(done, f"w{done}", evaluation(success, success))
    return kept


def test_the_best_is_registered_and_the_last_kept_beside():
    kept = run(0.2, 0.9, 0.4)
    assert kept.choice("best") == ("best", "w2", 2)
    assert kept.other("best") == ("last", "w3")
    assert kept.choice("last") == ("last", "w3", 3)
    assert kept.other("last") == ("best", "w2")


def test_the_same_round_is_not_kept_twice():
    assert run(0.2, 0.9).other("best") is None


def test_without_an_evaluation_it_is_the_last():
    kept = Kept("start", None)
    kept.trained(1, "w1", skipped_steps=0)
    assert kept.choice("best") == ("last", "w1", 1)
    assert kept.other("best") is None


def test_rounds_with_skipped_steps_are_not_trusted():
    kept = Kept("start", None)
    kept.trained(1, "w1", skipped_steps=0)
    kept.trained(2, "w2", skipped_steps=3)
    assert (kept.last, kept.last_round) == ("w1", 1)
