"""GuessTheNumber and TicTacToe with scripted players."""

import random
import re
from pathlib import Path

import msgspec
import pytest
import textarena

import simtune
from simtune.errors import EnvironmentSpecError, OptionError
from simtune_textarena import play


@pytest.fixture(autouse=True)
def fresh_root(tmp_path, monkeypatch):
    """Games that name no root write into a fresh directory."""
    monkeypatch.chdir(tmp_path)


def halve(messages):
    """Guess the middle of what is left."""
    low, high = 1, 20
    guess = 0
    for line in messages[-1]["content"].split("\n"):
        said = re.search(r"^\[Player\] \[(\d+)\]", line)
        guess = int(said[1]) if said else guess
        if "target number is higher" in line:
            low = guess + 1
        elif "target number is lower" in line:
            high = guess - 1
    return f"[{(low + high) // 2}]"


def script(*answers):
    """A player that says these things in turn."""
    left = iter(answers)
    return lambda messages: next(left)


def without_times(episode):
    decisions = [
        msgspec.structs.replace(decision, ts=0, latency_us=0) for decision in episode.decisions
    ]
    return msgspec.structs.replace(episode, decisions=decisions)


def test_halving_guesses_every_number_within_five_turns(tmp_path):
    played = play("GuessTheNumber-v0", halve, episodes=8, seed=3, root=str(tmp_path))
    assert [episode.outcome["return"] for episode in played] == [1.0] * 8
    assert all(episode.success and len(episode) <= 5 for episode in played)
    assert all(episode.terminated and not episode.truncated for episode in played)
    assert {len(episode) for episode in played} != {5}
    for episode in played:
        assert [d.reward for d in episode.decisions] == [None] * (len(episode) - 1) + [1.0]
        assert all(decision.valid for decision in episode.decisions)


def test_the_seed_is_the_number():
    def numbers(seed):
        return [
            episode.decisions[-1].response
            for episode in play("GuessTheNumber-v0", halve, episodes=5, seed=seed)
        ]

    assert numbers(0) == numbers(0)
    assert numbers(0)[1:] == numbers(1)[:4]
    assert len(set(numbers(0))) > 1


def test_the_callers_random_numbers_are_left_alone():
    random.seed(5)
    expected = [random.random() for _ in range(3)]
    random.seed(5)
    seen = [random.random()]
    play("GuessTheNumber-v0", lambda m: seen.append(random.random()) or "[3]", episodes=1)
    assert seen[:3] == expected[: len(seen[:3])]


def test_a_games_history_does_not_leak_into_the_next_one():
    env = textarena.make("GuessTheNumber-v0")
    played = play(env, halve, episodes=3)
    for episode in played:
        assert episode.decisions[0].prompt[0]["content"].count("Enter your guess.") == 1
        assert "target number" not in episode.decisions[0].prompt[0]["content"]


def test_two_invalid_answers_in_a_row_end_the_game(tmp_path):
    (episode,) = play("GuessTheNumber-v0", script("[0]", "[99]"), episodes=1, root=str(tmp_path))
    first, second = episode.decisions
    assert (first.valid, second.valid) == (False, False)
    assert "guessed a number outside the range" in first.error
    assert "guessed a number outside the range" in second.error
    assert episode.outcome["invalid_move"] is True
    assert (episode.terminated, episode.success, second.reward) == (True, False, 0.0)


def test_a_valid_answer_after_an_invalid_one_goes_on():
    (episode,) = play("GuessTheNumber-v0", script("[0]", "[1]", "[0]", "[0]"), episodes=1)
    assert [decision.valid for decision in episode.decisions] == [False, True, False, False]


def test_tic_tac_toe_is_one_episode_for_each_player(tmp_path):
    zero, one = script("[0]", "[1]", "[2]"), script("[3]", "[4]")
    played = play("TicTacToe-v0", [zero, one], episodes=1, root=str(tmp_path), run_id="match")
    winner, loser = played
    assert (winner.agent_id, loser.agent_id) == ("player-0", "player-1")
    assert winner.metadata["game_id"] == loser.metadata["game_id"]
    assert winner.metadata["player"] == 0
    assert [d.response for d in winner.decisions] == ["[0]", "[1]", "[2]"]
    assert [d.response for d in loser.decisions] == ["[3]", "[4]"]
    assert [d.reward for d in winner.decisions] == [None, None, 1.0]
    assert [d.reward for d in loser.decisions] == [None, -1.0]
    assert [d.terminated for d in loser.decisions] == [False, True]
    assert (winner.success, loser.success) == (True, False)
    assert winner.outcome["reason"] == "Player 0 has won!"
    assert "you will be 'O'" in winner.decisions[0].prompt[0]["content"]
    assert "you will be 'X'" in loser.decisions[0].prompt[0]["content"]


def test_a_draw_is_worth_nothing_to_both():
    zero, one = script("[0]", "[2]", "[4]", "[5]", "[7]"), script("[1]", "[3]", "[6]", "[8]")
    played = play("TicTacToe-v0", [zero, one], episodes=1)
    assert [episode.outcome["return"] for episode in played] == [0.0, 0.0]
    assert [len(episode) for episode in played] == [5, 4]


def test_an_occupied_cell_costs_the_game_on_the_second_try():
    played = play("TicTacToe-v0", [script("[4]"), script("[4]", "[4]")], episodes=1)
    assert [d.valid for d in played[1].decisions] == [False, False]
    assert "cell 4 is already occupied" in played[1].decisions[0].error
    assert [episode.outcome["return"] for episode in played] == [1.0, -1.0]
    assert played[1].outcome["invalid_move"] and not played[0].outcome["invalid_move"]
    assert played[0].decisions[-1].reward == 1.0


def test_self_play_with_one_batched_policy(tmp_path):
    class FirstFree:
        def act(self, prompts):
            free = re.findall(r"'\[(\d)\]'", prompts[0][0]["content"].rsplit("Available", 1)[1])
            return [simtune.Reply(f"[{free[0]}]", token_ids=[int(free[0])], logprobs=[-0.25])]

    policy = FirstFree()
    played = play("TicTacToe-v0", [policy, policy], episodes=1, root=str(tmp_path))
    assert [d.token_ids for d in played[0].decisions] == [[0], [2], [4], [6]]
    assert played[0].success  # 2, 4 and 6 are a diagonal


def test_what_is_returned_is_what_the_store_holds(tmp_path):
    root = str(tmp_path)
    played = play("GuessTheNumber-v0", halve, episodes=3, root=root, run_id="numbers")
    played += play(
        "TicTacToe-v0", [script("[0]", "[1]", "[2]"), script("[3]", "[4]")], episodes=1, root=root
    )
    stored = {episode.episode_id: episode for episode in simtune.read(root).episodes()}
    assert len(stored) == 5
    for episode in played:
        assert without_times(stored[episode.episode_id]) == without_times(episode)


def test_a_game_that_does_not_end_is_cut_off():
    (episode,) = play(
        "GuessTheNumber-v0", script("[1]", "[2]"), episodes=1, seed=3, max_decisions=2
    )
    assert (episode.terminated, episode.truncated) == (False, True)
    assert [d.truncated for d in episode.decisions] == [False, True]
    assert "[2]" in episode.final_prompt[0]["content"]
    assert episode.decisions[-1].reward is None


def test_a_player_that_raises_leaves_an_aborted_episode(tmp_path):
    with pytest.raises(StopIteration):
        play("TicTacToe-v0", [script("[0]"), script()], episodes=1, root=str(tmp_path))
    stored = list(simtune.read(str(tmp_path)).episodes())
    assert sorted((e.agent_id, e.aborted, len(e)) for e in stored) == [
        ("player-0", True, 1),
        ("player-1", True, 0),
    ]


@pytest.mark.parametrize(
    ("env_id", "policies", "error", "message"),
    [
        ("TicTactoe-v0", halve, EnvironmentSpecError, "did you mean TicTacToe-v0"),
        ("TicTacToe-v0", halve, EnvironmentSpecError, "TicTacToe-v0 is not for 1 player:"),
        ("GuessTheNumber-v0", [halve, halve], EnvironmentSpecError, "is not for 2 players:"),
        ("TicTacToe-v0", [halve] * 3, OptionError, "wrong number of policies"),
        ("TicTacToe-v0", [halve, 3], OptionError, "got: int"),
        ("GuessTheNumber-v0", lambda m: 3, OptionError, "player 0 did not answer in text"),
    ],
)
def test_what_cannot_be_played_says_why(env_id, policies, error, message, tmp_path):
    with pytest.raises(error, match=message):
        play(env_id, policies, episodes=1, root=str(tmp_path))


def test_the_readmes_code_runs(capsys):
    page = Path(__file__).parents[1] / "README.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    exec(block, {})
    assert "of 10 solved" in capsys.readouterr().out
    assert len(list(simtune.read("./simtune-data").episodes())) == 30
