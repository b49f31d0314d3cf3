"""Calling one reward: what it may return, and what becomes of everything else."""

from fractions import Fraction

import numpy as np
import pytest

from simtune import plugins
from simtune.rewards.call import score_episode
from simtune.rewards.registration import RegisteredReward


def score(reward, episode):
    return score_episode(RegisteredReward("r", "1", reward, "plugin"), episode)


@pytest.mark.parametrize(
    "value", [2, 2.0, Fraction(2), np.float32(2), np.array(2), np.int64(2)], ids=repr
)
def test_a_number_scores_the_episode(make_episode, value):
    found = score(lambda episode: value, make_episode())
    assert (found.score, found.decisions, found.per_decision) == (2.0, [None, None], False)
    assert type(found.score) is float


@pytest.mark.parametrize(
    "value", [[1, 2], (1.0, 2.0), np.array([1, 2], dtype=np.float32), range(1, 3)], ids=repr
)
def test_a_sequence_scores_each_decision_and_the_episode_with_their_sum(make_episode, value):
    found = score(lambda episode: value, make_episode())
    assert (found.score, found.decisions, found.per_decision) == (3.0, [1.0, 2.0], True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "the score of the episode is not finite: got nan"),
        (float("-inf"), "not finite: got -inf"),
        ([0.0, float("nan")], "the score of decision 1 is not finite"),
        ([1.0], "1 scores for an episode of 2 decisions"),
        ([1.0, "2"], "the score of decision 1 is not a number: got str"),
        ("12", "a number or a sequence of numbers: got str"),
        (None, "got NoneType"),
        ({0: 1.0, 1: 2.0}, "got dict"),
        (np.zeros((2, 2)), "the score of decision 0 is not a number: got list"),
    ],
)
def test_anything_else_is_a_missing_score_with_its_reason(make_episode, value, reason):
    found = score(lambda episode: value, make_episode())
    assert (found.score, found.decisions) == (None, [None, None])
    assert reason in found.error


def test_a_reward_that_raises_is_a_missing_score_never_zero(make_episode):
    def judge(episode):
        raise TimeoutError("the judge did not answer")

    found = score(judge, make_episode())
    assert found.score is None
    assert found.error == "TimeoutError: the judge did not answer"
    assert plugins.failures() == {("plugin", "reward r"): 1}


def test_a_decision_that_is_left_out_keeps_the_others(make_episode):
    found = score(lambda episode: [1.0, None], make_episode())
    assert (found.decisions, found.score) == ([1.0, None], None)
    assert found.error == "1 of 2 decisions were given no score"


def test_an_episode_without_decisions(make_episode):
    assert score(lambda episode: [], make_episode([])).score == 0.0
    assert score(lambda episode: -1, make_episode([])).score == -1.0
