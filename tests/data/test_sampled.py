"""Which decisions say with what probability they were made."""

import math

import pytest

from simtune.data.sampled import captured_logprob, chosen_option, unusable
from simtune.records import Decision


def made(**fields):
    known = {"prompt_token_ids": [1], "token_ids": [2, 3], "logprobs": [-0.5, -0.25]}
    return Decision(decision_id="d", **known | fields)


CHOICE = {"decision": "choose", "choice_token_ids": [[5], [2, 3]]}


def test_of_an_answer_it_is_the_sum_and_of_a_choice_that_of_the_option():
    assert unusable(made()) is None
    assert captured_logprob(made()) == -0.75
    chose = made(sampling=CHOICE, logprobs=[], choice_logprobs=[-2.0, -0.125])
    assert unusable(chose) is None
    assert chosen_option(chose) == 1
    assert captured_logprob(chose) == -0.125


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"token_ids": []}, "no token ids"),
        ({"prompt_token_ids": []}, "no token ids"),
        ({"sampling": {"temperature": 0.0}}, "sampled greedily"),
        ({"sampling": {"top_p": 0.9}}, "sampled with top_p, top_k or min_p"),
        ({"sampling": CHOICE | {"choice_token_ids": [[5]]}}, "no option that was chosen"),
    ],
)
def test_why_a_decision_cannot_be_used(fields, why):
    assert unusable(made(**fields)) == why


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": []},
        {"logprobs": [-0.5]},
        {"logprobs": [-0.5, math.nan]},
        {"sampling": CHOICE, "choice_logprobs": []},
    ],
)
def test_what_was_not_captured_is_none(fields):
    assert captured_logprob(made(**fields)) is None
