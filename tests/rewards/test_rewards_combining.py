"""Rewards as training uses them: weighed and added up."""

from simtune.rewards.combining import combine


def test_combine_weighs_and_adds_per_decision(make_episode):
    episode = make_episode([0.0, 1.0], valid=[False, True], success=True)
    # success scores the episode: its last decision gets it.
    assert combine(["environment", "valid=0.5", "success=-2"], episode) == [0.0, 1.0 + 0.5 - 2.0]


def test_combine_without_specs_is_the_environment(make_episode):
    assert combine([], make_episode([0.25, None])) == [0.25, 0.0]


def test_combine_leaves_an_episode_out_when_a_reward_fails(make_episode, add_plugin):
    add_plugin("mine", half=lambda episode: [1.0, None], odd=lambda episode: 1 / 0)
    assert combine(["environment", "odd"], make_episode()) is None
    assert combine(["half"], make_episode()) is None
    assert combine(["success"], make_episode(success=None)) is None


def test_combine_of_no_decisions_is_empty(make_episode):
    assert combine(["success"], make_episode([], success=True)) == []
