"""Options are scored exactly, whatever their number of tokens, and chosen by their softmax."""

import math

import pytest
import torch

from simtune.errors import OptionError
from simtune.policy.choices import OptionIds, Scorer, distribution, score_one_by_one
from simtune.policy.local import LocalPolicy
from simtune.policy.sampler import Sampler
from simtune.policy.tiny import build_model, build_tokenizer

ASK = [{"role": "user", "content": "go left or right"}]


@pytest.fixture(scope="module")
def parts():
    tokenizer = build_tokenizer(["go left", "go right"] * 20, vocab_size=300)
    return build_model(tokenizer).eval(), tokenizer


@pytest.fixture
def policy(parts):
    return LocalPolicy(*parts, decision="choose", temperature=0.5, seed=3)


OPTIONS = {
    "one token each": [((5,), (6,), (7,))] * 3,
    "several, and of different lengths": [((5, 6, 7), (8,), (9, 10)), ((5, 8), (5, 9)), ((4,),)],
    "one begins with another": [((5,), (5, 6), (5, 6, 7))] * 3,
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_all_options_in_one_pass_equal_a_pass_for_each(parts, options):
    model, _ = parts
    prompts = [[11, 12, 13], [14], [11, 12, 13, 15, 16]]
    scorer = Scorer(Sampler(model, pad_id=0))
    expected = score_one_by_one(model, prompts, options)
    for _ in range(2):  # computed, then remembered
        for ours, theirs in zip(scorer.score(prompts, options), expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_scores_are_forgotten_when_the_weights_change(parts):
    model, tokenizer = build_model(parts[1], seed=5).eval(), parts[1]
    policy = LocalPolicy(model, tokenizer, decision="choose")
    before = policy(ASK, ["left", "right"])
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1.1)
    policy.decision = "generate"
    policy(ASK)  # whoever asks first after the change
    policy.decision = "choose"
    after = policy(ASK, ["left", "right"])
    assert before.choice_logprobs[0] != pytest.approx(after.choice_logprobs[0], abs=1e-4)
    again = LocalPolicy(model, tokenizer, decision="choose")(ASK, ["left", "right"])
    assert again.choice_logprobs == pytest.approx(after.choice_logprobs, abs=1e-6)


def test_the_policy_is_the_tempered_softmax_over_scores():
    """Scores -1 and -2 at temperature 0.5: weights e^-2 and e^-4, so 1 / (1 + e^-2) = .8808."""
    options = [((1,), (2, 3))]
    (plain,) = distribution([[-1, -2]], options, temperature=0.5, length_normalised=False).tolist()
    assert math.exp(plain[0]) == pytest.approx(0.880797, abs=1e-6)
    # By its two tokens the second has -1 as well: an even chance.
    (mean,) = distribution([[-1, -2]], options, temperature=0.5, length_normalised=True).tolist()
    assert [math.exp(value) for value in mean] == pytest.approx([0.5, 0.5])


def test_a_choice_is_recorded_so_that_training_scores_the_same_ids(policy, parts):
    names = ["left", "right", "go left or"]
    reply = policy(ASK, names)
    model, tokenizer = parts
    ids = [tuple(tokenizer(name, add_special_tokens=False)["input_ids"]) for name in names]
    assert reply.sampling == {
        "decision": "choose",
        "temperature": 0.5,
        "length_normalised": False,
        "choice_token_ids": [list(option) for option in ids],
    }
    assert reply.choices == tuple(names)
    assert reply.token_ids == ids[names.index(reply)]
    assert reply.logprobs == ()
    (scores,) = score_one_by_one(model, [reply.prompt_token_ids], [tuple(ids)])
    expected = (torch.tensor(scores) / 0.5).log_softmax(-1).tolist()
    assert reply.choice_logprobs == pytest.approx(expected, abs=1e-4)


def test_choices_follow_their_probabilities_and_the_seed(parts):
    def play(seed):
        policy = LocalPolicy(*parts, decision="choose", temperature=4.0, seed=seed)
        return policy.act([ASK] * 3000, [["left", "right"]] * 3000)

    drawn = play(0)
    chance = math.exp(drawn[0].choice_logprobs[0])
    assert 0.02 < chance < 0.98
    assert drawn.count("left") / 3000 == pytest.approx(chance, abs=0.03)
    assert play(0) == drawn
    assert play(1) != drawn


def test_greedy_takes_the_most_probable(policy):
    policy.greedy = True
    reply = policy(ASK, ["left", "right"])
    assert reply.choice_logprobs[reply.choices.index(reply)] == max(reply.choice_logprobs)
    assert reply.sampling["temperature"] == 0.0


@pytest.mark.parametrize("names", [[], [""], ["left", "left"]])
def test_options_that_cannot_be_told_apart_are_refused(parts, names):
    with pytest.raises(OptionError, match="cannot be chosen among"):
        OptionIds(parts[1])(names)


def test_a_policy_that_chooses_must_be_given_options(policy, parts):
    with pytest.raises(OptionError, match="not given the options"):
        policy.act([ASK])
    with pytest.raises(OptionError, match="1 for 2 prompts"):
        policy.act([ASK] * 2, [["left"]])
    with pytest.raises(OptionError, match=r"expected: generate \| choose"):
        LocalPolicy(*parts, decision="guess")
