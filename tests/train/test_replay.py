from collections import Counter

import pytest

from simtune.data.samples import Sample
from simtune.train.replay import ReplayBuffer, Replayed


def episodes(*scores, env="a", first=0):
    return [
        Replayed(
            episode_id=f"{env}{number}",
            env=env,
            score=score,
            samples=[Sample(prompt=[{"role": "user", "content": "?"}], response="!")],
        )
        for number, score in enumerate(scores, first)
    ]


def ids(buffer):
    return [one.episode_id for one in buffer.episodes]


def test_beyond_the_capacity_the_newer_half_stays_and_of_the_older_the_best():
    buffer = ReplayBuffer(4, 1.0)
    buffer.add(episodes(5, 1, 9, 2, 0, 0))
    assert ids(buffer) == ["a0", "a2", "a4", "a5"]
    buffer.add(episodes(7, 0, first=6))
    assert ids(buffer) == ["a0", "a2", "a6", "a7"]


def test_of_equal_ones_the_oldest_goes():
    buffer = ReplayBuffer(2, 1.0)
    buffer.add(episodes(1, 1, 1))
    assert ids(buffer) == ["a1", "a2"]


def test_scores_of_two_environments_are_not_compared():
    """30 is the worst of b, and 2 the best of a."""
    buffer = ReplayBuffer(6, 1.0)
    buffer.add(episodes(30, 40, env="b") + episodes(1, 2))
    buffer.add(episodes(40, 30, 40, first=2, env="b"))
    assert ids(buffer) == ["b1", "a0", "a1", "b2", "b3", "b4"]


def test_a_deviation_more_is_drawn_e_times_as_often():
    buffer = ReplayBuffer(10, temperature=1.0)
    buffer.add(episodes(0, 2))
    drawn = Counter(buffer.draw(1, seed=str(n))[0].episode_id for n in range(4000))
    # Two scores stand one deviation below and one above their mean: exp(2) = 7.4.
    assert drawn["a1"] / drawn["a0"] == pytest.approx(7.4, rel=0.15)


@pytest.mark.parametrize(("temperature", "share"), [(0.01, 1.0), (1e6, 0.5)])
def test_the_temperature_goes_from_the_best_only_to_all_alike(temperature, share):
    buffer = ReplayBuffer(10, temperature)
    buffer.add(episodes(0, 2))
    drawn = Counter(buffer.draw(1, seed=str(n))[0].episode_id for n in range(2000))
    assert drawn["a1"] / 2000 == pytest.approx(share, abs=0.05)


def test_a_draw_has_no_episode_twice_and_is_the_same_again():
    buffer = ReplayBuffer(10, 1.0)
    buffer.add(episodes(*range(8)))
    drawn = [one.episode_id for one in buffer.draw(5, seed="3/7")]
    assert len(set(drawn)) == 5
    again = ReplayBuffer(10, 1.0)
    again.load(buffer.dump())
    assert [one.episode_id for one in again.draw(5, seed="3/7")] == drawn
    assert len(again.draw(50, seed="1")) == 8
