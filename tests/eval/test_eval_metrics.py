"""What an episode is worth, and to which decisions it is owed."""

import pytest

from simtune.errors import DataError, OptionError
from simtune.eval.metrics import Metric
from simtune.records import Decision, Episode


def episode(**outcome):
    return Episode(
        episode_id="e",
        decisions=[
            Decision(decision_id="1", reward=0.5, response="ab"),
            Decision(decision_id="2", reward=None, response="c", valid=False),
        ],
        outcome=outcome,
    )


@pytest.mark.parametrize(
    ("name", "score", "credit"),
    [
        ("success", 1.0, [0.0, 1.0]),
        ("return", 0.5, [0.5, 0.0]),
        ("environment", 0.5, [0.5, 0.0]),
        ("valid", 1.0, [1.0, 0.0]),
    ],
)
def test_scores_and_their_credit(name, score, credit):
    metric = Metric(name)
    assert metric.score(episode(success=True)) == score
    assert metric.credit(episode(success=True)) == credit


def test_a_score_that_is_missing_is_none_with_its_reason():
    metric = Metric("success")
    assert metric.score(episode()) is None
    assert metric.credit(episode()) is None
    assert metric.explain() == "the outcome does not say `success`"


def test_only_the_range_of_success_is_known():
    assert Metric("success").bounds == (0.0, 1.0)
    assert Metric("return").bounds is None
    with pytest.raises(DataError, match="return of episode 'e' lies outside"):
        Metric("return", (0.6, 1.0)).score(episode())
    with pytest.raises(OptionError, match="LOW < HIGH"):
        Metric("return", (1.0, 1.0))
    with pytest.raises(OptionError, match="did you mean 'success'"):
        Metric("sucess")
