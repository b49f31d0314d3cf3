from tests.benchmarks.peers.training.work import WINDOW, Ended, GridWalk, Reading, Tally
from tests.benchmarks.trainers import Read, Walked, _ratios


def test_short_episodes_that_end_first_do_not_inflate_the_count():
    """Of a batch of 300, the first 44 begun leave the window, though they ended last."""
    tally = Tally()
    for slot in reversed(range(300)):
        tally.ended(Ended(slot, success=slot >= 44, turns=2))
    assert not tally.reached
    assert tally.commit()
    assert (tally.rate, tally.turns) == (1.0, 600)


def test_nothing_is_reached_before_the_window_is_full():
    tally = Tally()
    for slot in range(WINDOW - 1):
        tally.ended(Ended(slot, success=True, turns=1))
    assert not tally.commit()
    assert tally.rate == 0.0


def test_a_walk_is_paid_by_the_turn_and_at_its_end():
    tally = Tally()
    game = GridWalk(tally)
    shown, _ = game.reset(seed=5)
    position, target = map(int, shown)
    toward = "3" if target > position else "1"
    rewards = [game.step("2")[1]]
    ended = False
    while not ended:
        _, reward, ended, _, info = game.step(toward)
        rewards.append(reward)
    assert rewards == [-0.1] * abs(target - position) + [1.0]
    assert info == {"is_success": True}
    tally.commit()
    assert tally.turns == len(rewards)


def test_standing_still_is_out_of_turns_after_five():
    game = GridWalk(Tally())
    game.reset(seed=5)
    steps = [game.step("2") for _ in range(5)]
    assert [reward for _, reward, *_ in steps] == [-0.1] * 4 + [-1.0]
    assert [ended for _, _, ended, *_ in steps] == [False] * 4 + [True]


def test_reading_shows_forty_characters_for_six_turns():
    game = Reading(Tally())
    shown = [game.reset(seed=1)[0], *(game.step("whatever")[0] for _ in range(5))]
    assert [len(text) for text in shown] == [40] * 6
    assert game.step("whatever")[2]
    assert shown[0] == game.reset(seed=1)[0]


def test_ratios_are_to_the_better_peer_in_each_measure():
    walked = [
        Walked("choose", "3 of 3", 1.0, "", 800.0, ""),
        Walked("generate", "3 of 3", 2.0, "", 1000.0, ""),
        Walked("one", "3 of 3", 1.5, "", 3000.0, ""),
        Walked("other", "3 of 3", 9.0, "", 1200.0, ""),
    ]
    read = [
        Read("ours", 300.0, 1500.0, 1600.0, 900.0, 400.0),
        Read("one", 100.0, 1000.0, float("nan"), 1800.0, 1000.0),
        Read("other", 60.0, 300.0, float("nan"), 5000.0, 4000.0),
        Read("ours, small", 300.0, 1600.0, 1600.0, 600.0, 200.0),
        Read("one, small", 100.0, 1000.0, float("nan"), 900.0, 300.0),
        Read("other, small", 200.0, 300.0, float("nan"), 1000.0, 250.0),
    ]
    assert {one.measure: one.ratio for one in _ratios(walked, read)} == {
        "choose: cpu": 1.5,
        "choose: turns": 1.5,
        "generate: cpu": 0.75,
        "generate: turns": 1.2,
        "ours: rollout": 3.0,
        "ours: update": 1.5,
        "ours: peak": 2.0,
        "ours: above": 2.5,
        "ours: update over limit": 0.9375,
        "ours, small: rollout": 1.5,
        "ours, small: update": 1.6,
        "ours, small: peak": 1.5,
        "ours, small: above": 1.25,
        "ours, small: update over limit": 1.0,
    }
