from collections import Counter

import pytest

from simtune.records import Decision, Episode
from simtune.train.episode_turns import episode_turns


def decision(**changes):
    full = {
        "decision_id": "w-1",
        "prompt_token_ids": [3, 4],
        "token_ids": [5, 1],
        "logprobs": [-0.1, -0.2],
        "sampling": {"temperature": 0.7},
        "adapter": "abc",
    }
    return Decision(**(full | changes))


CHOICE = {
    "token_ids": [8, 9],
    "logprobs": [],
    "choices": ["left", "to the right"],
    "choice_logprobs": [-0.2, -1.7],
    "sampling": {
        "decision": "choose",
        "temperature": 0.5,
        "length_normalised": True,
        "choice_token_ids": [[7], [8, 9]],
    },
}


def encode(prompts):
    return [[9, 9] for _ in prompts]


def turns_of(*decisions, **changes):
    episode = Episode(episode_id="e", env="lake", decisions=list(decisions), **changes)
    return episode_turns(episode, [1.0] * len(decisions), encode, Counter())


def test_an_episode_becomes_the_ids_that_were_sampled():
    made = turns_of(decision())
    turn = made.turns[0]
    assert (turn.prompt_ids, turn.action_ids, turn.units) == ([3, 4], [5, 1], 2)
    assert (turn.behaviour_logprobs, turn.temperature) == ([-0.1, -0.2], 0.7)
    assert (turn.adapter, made.final) == ("abc", None)


def test_a_choice_is_one_unit_with_the_options_that_were_scored():
    turn = turns_of(decision(**CHOICE)).turns[0]
    assert (turn.options, turn.chosen, turn.units) == ([[7], [8, 9]], 1, 1)
    assert turn.behaviour_logprobs == [-1.7]
    assert (turn.temperature, turn.length_normalised) == (0.5, True)
    assert turn.needed_ids == [3, 4]


@pytest.mark.parametrize("logprobs", [[], [-0.1], [-0.1, float("nan")]])
def test_missing_log_probabilities_are_left_to_be_recomputed(logprobs):
    assert turns_of(decision(logprobs=logprobs)).turns[0].behaviour_logprobs == ()


def test_episodes_of_one_seed_are_a_group():
    assert turns_of(decision(), metadata={"seed": 7}).group == "lake|7"
    assert turns_of(decision()).group == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_ids": [], "logprobs": []}, "no token ids"),
        ({"sampling": {"temperature": 0.0}}, "sampled greedily"),
        ({"sampling": {"top_p": 0.9}}, "sampled with top_p, top_k or min_p"),
        (CHOICE | {"token_ids": [4]}, "no option that was chosen"),
    ],
)
def test_what_ppo_cannot_learn_from_is_counted_by_reason(change, reason):
    skipped = Counter()
    episode = Episode(episode_id="e", decisions=[decision(), decision(**change)])
    assert episode_turns(episode, [0.0, 1.0], encode, skipped) is None
    assert skipped == {reason: 1}


@pytest.mark.parametrize(
    ("end", "final"),
    [
        ({"final_prompt_token_ids": [3, 8]}, [3, 8]),
        ({"final_prompt": [{"role": "user", "content": "next"}]}, [9, 9]),
        ({}, None),
    ],
)
def test_the_state_behind_a_cut_episode(end, final):
    made = turns_of(decision(), truncated=True, **end)
    assert (made.final and made.final.prompt_ids) == final
