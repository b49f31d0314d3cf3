"""`Reply` is the plain answer, and carries what training needs wherever it goes."""

import pickle

import pytest

import simtune

CHOSEN = {
    "prompt_token_ids": (1, 2),
    "token_ids": (7,),
    "sampling": {"decision": "choose", "temperature": 1.0},
    "model": "base",
    "adapter": "abc",
    "choices": ("left", "right"),
    "choice_logprobs": (-0.1, -2.35),
}


def test_a_reply_is_its_text_and_survives_pickling_with_all_it_carries():
    reply = simtune.Reply("left", **CHOSEN)
    copy = pickle.loads(pickle.dumps(reply))
    assert copy == reply == "left"
    for name, value in CHOSEN.items():
        assert getattr(copy, name) == getattr(reply, name) == value


@pytest.mark.parametrize(
    ("carried", "message"),
    [
        ({"token_ids": [1, 2], "logprobs": [0.0]}, "2 token ids, 1 logprobs"),
        ({"choices": ["a"], "choice_logprobs": []}, "1 choices, 0 choice_logprobs"),
    ],
)
def test_lists_that_belong_together_have_one_length(carried, message):
    with pytest.raises(ValueError, match=message):
        simtune.Reply("a", **carried)


def test_a_decision_among_options_is_captured_with_its_distribution(tmp_path):
    with simtune.episode(env="fork", root=tmp_path) as log:
        log.decision("which way?", simtune.Reply("left", **CHOSEN))
    (episode,) = simtune.read(tmp_path).episodes()
    (decision,) = episode.decisions
    assert decision.choices == ["left", "right"]
    assert decision.choice_logprobs == pytest.approx([-0.1, -2.35])
    assert (decision.token_ids, decision.logprobs) == ([7], [])
    assert decision.sampling["decision"] == "choose"
