"""Episodes to samples: complete, scored, the best of each environment, valid decisions only."""

from __future__ import annotations

import hashlib
import random

import pytest

from simtune import Decision, Episode
from simtune.data.selection import episodes_digest, select_episodes
from simtune.errors import DataError, OptionError


def episode(name: str, reward: float = 1.0, **fields) -> Episode:
    decisions = [
        Decision(
            decision_id=f"{name}-{step}",
            prompt=[{"role": "user", "content": f"step {step}"}],
            response="left",
            step=step,
            reward=reward / 2,
            prompt_token_ids=[1, 2],
            token_ids=[3, step],
        )
        for step in range(2)
    ]
    made = {"episode_id": name, "env": "Lake", "decisions": decisions, "ended": True}
    return Episode(**(made | fields))


def origins(selection) -> list[str]:
    return [sample.origin for sample in selection.samples]


def test_samples_carry_prompt_answer_ids_and_the_episodes_score():
    chosen = select_episodes([episode("a", reward=3.0)])
    first = chosen.samples[0]
    assert first.prompt == [{"role": "user", "content": "step 0"}]
    assert (first.response, first.score, first.origin) == ("left", 3.0, "a-0")
    assert (first.prompt_token_ids, first.token_ids) == ([1, 2], [3, 0])
    assert chosen.episodes == 1


def test_incomplete_episodes_are_left_out_and_counted():
    chosen = select_episodes(
        [
            episode("good"),
            episode("running", ended=False),
            episode("aborted", aborted=True, error="ValueError"),
            episode("empty", decisions=[]),
        ]
    )
    assert origins(chosen) == ["good-0", "good-1"]
    assert chosen.skipped == {
        "episodes still running": 1,
        "episodes aborted by an exception": 1,
        "episodes without a decision": 1,
    }


def test_the_top_fraction_is_taken_in_each_environment():
    lake = [episode(f"lake{n}", reward=n) for n in range(4)]
    taxi = [episode(f"taxi{n}", reward=100 + n, env="Taxi") for n in range(2)]
    chosen = select_episodes(lake + taxi, top_fraction=0.5)
    assert sorted({name.split("-")[0] for name in origins(chosen)}) == ["lake2", "lake3", "taxi1"]
    assert chosen.skipped == {"episodes outside the top fraction": 3}


def test_min_score_comes_before_the_fraction():
    chosen = select_episodes(
        [episode(f"e{n}", reward=n) for n in range(4)], min_score=2, top_fraction=0.5
    )
    assert origins(chosen) == ["e3-0", "e3-1"]
    assert chosen.skipped["episodes scored below 2"] == 2


def test_the_choice_does_not_depend_on_the_order_of_the_files():
    episodes = [episode(f"e{n:02}", reward=n % 3) for n in range(12)]
    first = select_episodes(episodes, top_fraction=0.4)
    random.Random(1).shuffle(episodes)
    second = select_episodes(episodes, top_fraction=0.4)
    assert origins(first) == origins(second)
    assert first.digest == second.digest


def test_invalid_decisions_are_not_imitated():
    mixed = episode("a")
    mixed.decisions[0].valid = False
    chosen = select_episodes([mixed])
    assert origins(chosen) == ["a-1"]
    assert chosen.skipped == {"invalid decisions": 1}


def test_rewards_are_weighted_and_a_wrong_name_is_refused():
    won = episode("won", reward=1.0, outcome={"success": True})
    lost = episode("lost", reward=1.0, outcome={"success": False})
    chosen = select_episodes([won, lost], rewards=["success=10"], top_fraction=0.5)
    assert {sample.score for sample in chosen.samples} == {10.0}
    with pytest.raises(OptionError, match="succes"):
        select_episodes([won], rewards=["succes"])


def test_an_episode_that_a_reward_failed_on_is_counted_not_scored_zero():
    """The recorded success is unknown: `success` has no answer to give."""
    unknown, known = episode("unknown"), episode("known", outcome={"success": True})
    chosen = select_episodes([unknown, known], rewards=["success"])
    assert origins(chosen) == ["known-0", "known-1"]
    assert chosen.skipped == {"episodes that a reward failed on": 1}


def test_nothing_left_says_what_was_left_out():
    with pytest.raises(DataError, match="left out: 2 episodes still running"):
        select_episodes([episode("a", ended=False), episode("b", ended=False)])
    with pytest.raises(DataError, match="left out: nothing"):
        select_episodes([])


def test_the_digest_is_sha256_of_the_sorted_ids():
    assert episodes_digest(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest()
