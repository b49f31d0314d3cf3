"""The log-probability of a decision that was made: what sampling gave, computed anew."""

import pytest
import torch

from simtune.data.sampled import captured_logprob
from simtune.policy.local import LocalPolicy
from simtune.policy.scoring import decision_logprobs
from simtune.policy.tiny import build_model, build_tokenizer
from simtune.records import Decision

ASKS = [[{"role": "user", "content": text}] for text in ("left", "go right now", "no")]


@pytest.fixture(scope="module")
def model():
    tokenizer = build_tokenizer(["left", "right", "go now"] * 20, vocab_size=300)
    return build_model(tokenizer, seed=2).eval(), tokenizer


def as_decision(reply):
    return Decision(
        decision_id="d",
        response=str(reply),
        prompt_token_ids=list(reply.prompt_token_ids),
        token_ids=list(reply.token_ids),
        logprobs=list(reply.logprobs),
        choices=list(reply.choices),
        choice_logprobs=list(reply.choice_logprobs),
        sampling=reply.sampling,
    )


def test_sampled_and_chosen_decisions_have_the_probability_they_were_made_with(model):
    made = []
    for temperature in (1.0, 0.7):
        write = LocalPolicy(*model, temperature=temperature, max_new_tokens=6, seed=1)
        made += write.act(ASKS)
        choose = LocalPolicy(
            *model, temperature=temperature, decision="choose", length_normalised=True, seed=1
        )
        made += choose.act(ASKS, [["left", "go right", "right"]] * 3)
    decisions = [as_decision(reply) for reply in made]
    found = decision_logprobs(LocalPolicy(*model), decisions)
    assert found == pytest.approx([captured_logprob(one) for one in decisions], abs=1e-4)


def test_other_weights_give_other_probabilities_and_modes_stay(model):
    base, tokenizer = model
    decision = as_decision(LocalPolicy(base, tokenizer, seed=1)(ASKS[0]))
    other = build_model(tokenizer, seed=3).train()
    (found,) = decision_logprobs(LocalPolicy(other, tokenizer), [decision])
    assert abs(found - captured_logprob(decision)) > 0.01
    assert other.training
    # By hand: one full pass without padding.
    ids = torch.tensor([[*decision.prompt_token_ids, *decision.token_ids]])
    with torch.inference_mode():
        steps = other.eval()(ids).logits[0].log_softmax(-1)
    start = len(decision.prompt_token_ids)
    by_hand = sum(float(steps[start - 1 + at, one]) for at, one in enumerate(decision.token_ids))
    assert found == pytest.approx(by_hand, abs=1e-4)
