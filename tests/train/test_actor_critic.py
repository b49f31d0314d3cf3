import pytest
import torch

from simtune.errors import TrainingError
from simtune.train.actor_critic import ActorCritic
from simtune.train.turns import Turn
from simtune.train.vocabulary import Vocabulary
from tests.train.tiny_models import absolute, actor_critic, batches, evaluate, rotary


def test_logprob_of_three_tokens_by_hand():
    """Token t is predicted at t - 1: no off-by-one, and the temperature divides the logits."""
    model = actor_critic()
    with torch.no_grad():
        logits = model.policy(torch.tensor([[5, 6, 7, 8, 9]])).logits[0] / 0.6
    turn = Turn(prompt_ids=[5, 6], action_ids=[7, 8, 9], temperature=0.6)
    logprobs, entropy, _ = evaluate(model, [turn])
    # Position 1 (the prompt's last token) predicts 7, position 2 predicts 8, position 3 predicts 9.
    by_hand = [logits[at][i] - logits[at].exp().sum().log() for at, i in ((1, 7), (2, 8), (3, 9))]
    assert logprobs.tolist() == pytest.approx([x.item() for x in by_hand], abs=1e-5)
    chances = logits[1:4].softmax(-1)
    by_hand = -(chances * chances.log()).sum(-1)
    assert entropy.tolist() == pytest.approx(by_hand.tolist(), abs=1e-5)


TURNS = [
    Turn(prompt_ids=[3, 4, 5, 6, 7], action_ids=[8, 1]),
    Turn(prompt_ids=[9], action_ids=[10, 11, 12], temperature=0.5),
    Turn(prompt_ids=[2, 2], action_ids=[1]),
    Turn(prompt_ids=[2, 2, 1, 5, 6], action_ids=[7, 3, 1]),
    Turn(prompt_ids=[2, 2], action_ids=[1], temperature=2.0),
]


@pytest.mark.parametrize("make", [rotary, absolute])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [1, 8, 1000])
def test_packed_padded_and_one_by_one_are_the_same(make, packed, budget):
    """No row sees another, whatever lies beside it; turns 2, 3 and 4 share a row."""
    model = actor_critic(make)
    alone = [evaluate(model, [turn]) for turn in TURNS]
    expected = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    together = evaluate(model, TURNS, budget, packed=packed)
    for ours, theirs in zip(together, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("make", [rotary, absolute])
def test_gradients_do_not_depend_on_the_layout(make):
    found = []
    for packed, budget in ((False, 1), (False, 1000), (True, 1000)):
        model = actor_critic(make)
        for batch in batches(TURNS, budget, packed=packed):
            out = model(batch)
            (out.logprobs.sum() + out.values.sum() + out.entropy.sum()).backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_value_is_read_at_the_last_prompt_token():
    """The action does not change the state's value."""
    model = actor_critic()
    with torch.no_grad():
        hidden = model.decoder(torch.tensor([[3, 4]])).last_hidden_state[0, 1]
        by_hand = hidden @ model.value_head.weight[0] + model.value_head.bias[0]
    for action in ([5], [9, 9, 9], []):
        _, _, values = evaluate(model, [Turn(prompt_ids=[3, 4], action_ids=action)])
        assert values.tolist() == pytest.approx([by_hand.item()], abs=1e-5)


def test_values_of_units_are_those_of_the_states_before_them():
    model = actor_critic()
    _, _, values = evaluate(
        model, [Turn(prompt_ids=[3, 4], action_ids=[5, 6])], value_per_unit=True
    )
    states = [Turn(prompt_ids=[3, 4]), Turn(prompt_ids=[3, 4, 5])]
    expected = [evaluate(model, [state])[2].item() for state in states]
    assert values.tolist() == pytest.approx(expected, abs=1e-5)


def test_reference_is_the_base_and_the_adapter_comes_back():
    model = actor_critic()
    turn = Turn(prompt_ids=[3, 4], action_ids=[5, 6])
    with_adapter = evaluate(model, [turn])[0]
    with model.reference():
        base = evaluate(model, [turn])[0]
    fresh = actor_critic(perturb=False)
    torch.testing.assert_close(base, evaluate(fresh, [turn])[0])
    assert not torch.allclose(base, with_adapter)
    with pytest.raises(RuntimeError, match="inside"), model.reference():
        raise RuntimeError("inside")
    torch.testing.assert_close(evaluate(model, [turn])[0], with_adapter)


def test_critic_starts_at_zero():
    model = actor_critic(perturb=False)
    _, _, values = evaluate(model, [Turn(prompt_ids=[3, 4], action_ids=[5])])
    assert values.tolist() == [0.0]


def test_logits_that_are_scaled_and_capped_are_followed():
    """Cohere multiplies, Granite divides, Gemma 2 caps with tanh: all in the config."""
    model = rotary()
    model.config.logit_scale = 0.5
    model.config.final_logit_softcapping = 3.0
    hidden = torch.randn(2, 32)
    made = Vocabulary(model).logits(hidden)
    torch.testing.assert_close(made, 3 * torch.tanh(model.lm_head(hidden) * 0.5 / 3))


def test_a_model_with_logits_of_its_own_is_refused(monkeypatch):
    """The config promises a soft cap that this model does not apply."""
    model = actor_critic().policy
    model.get_base_model().config.final_logit_softcapping = 0.1
    with pytest.raises(TrainingError, match="LlamaForCausalLM makes its logits in a way"):
        ActorCritic(model)
