import pytest
import torch

from simtune.policy.choices import distribution, score_one_by_one
from simtune.train import rows
from simtune.train.choices import Branches
from simtune.train.packing import prepare
from simtune.train.turns import Turn
from tests.train.tiny_models import absolute, actor_critic, batches, evaluate, rotary


def choose(prompt, options, chosen, **more):
    return Turn(
        prompt_ids=prompt, action_ids=options[chosen], options=options, chosen=chosen, **more
    )


ONE_TOKEN = [[5], [6], [7], [8]]
LONGER = [[5, 6, 7], [5, 9], [8], [5, 6, 9, 9]]
CASES = [
    [choose([3, 4], ONE_TOKEN, 1)],
    [choose([3, 4], LONGER, 3)],
    [choose([3, 4], LONGER, 0, length_normalised=True, temperature=0.7)],
    # A chat whose answers are options: one row with branches at two depths.
    [choose([3, 4], LONGER, 0), choose([3, 4, 5, 6, 7, 11], LONGER, 2, temperature=2.0)],
    # The same state twice, another number of options, and a generated answer beside them.
    [
        choose([3, 4], LONGER, 1),
        choose([3, 4], LONGER, 2),
        choose([9, 9, 9], [[4, 4], [4]], 1),
        Turn(prompt_ids=[3, 4], action_ids=[5, 6]),
    ],
]


def brute_force(model, turns):
    """A full pass for every option of every decision."""
    found = []
    for turn in turns:
        if not turn.options:
            found.append(evaluate(model, [turn])[0])
            continue
        scores = []
        for option in turn.options:
            whole = torch.tensor([[*turn.prompt_ids, *option]])
            steps = model.policy(whole).logits[0, len(turn.prompt_ids) - 1 : -1].log_softmax(-1)
            score = steps.gather(1, torch.tensor(option)[:, None]).sum()
            scores.append(score / len(option) if turn.length_normalised else score)
        policy = (torch.stack(scores) / turn.temperature).log_softmax(0)
        found.append(policy[turn.chosen : turn.chosen + 1])
    return torch.cat(found)


@pytest.mark.parametrize("make", [rotary, absolute])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_one_pass_equals_a_pass_for_every_option_with_gradients(make, packed, case):
    ours, theirs = actor_critic(make), actor_critic(make)
    turns = CASES[case]
    logprobs, _, _ = evaluate(ours, turns, packed=packed)
    expected = brute_force(theirs, turns)
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=0)
    weights = torch.arange(1.0, len(turns) + 1)[: len(logprobs)]
    weights = torch.nn.functional.pad(weights, (0, len(logprobs) - len(weights)), value=1.0)
    (logprobs * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3)


def test_what_sampling_scores_is_what_training_scores():
    """The sampler's own function, on the same ids."""
    model = actor_critic()
    turn = choose([3, 4], LONGER, 3, temperature=0.7, length_normalised=True)
    scores = score_one_by_one(model.policy, [turn.prompt_ids], [LONGER])
    policy = distribution(scores, [LONGER], temperature=0.7, length_normalised=True)[0]
    logprobs, entropy, _ = evaluate(model, [turn])
    assert logprobs.item() == pytest.approx(policy[3].item(), abs=1e-5)
    assert entropy.item() == pytest.approx(-(policy.exp() * policy).sum().item(), abs=1e-5)


def test_one_option_is_certain():
    logprobs, entropy, _ = evaluate(actor_critic(), [choose([3, 4], [[5, 6]], 0)])
    assert (logprobs.item(), entropy.item()) == (0.0, 0.0)


def test_single_tokens_need_nothing_but_the_prompt():
    (batch,) = batches([choose([3, 4], ONE_TOKEN, 1)])
    assert batch.input_ids.tolist() == [[3, 4]]
    assert batch.attention_mask is None
    assert batch.reads.tolist() == [1]


def test_branches_by_hand():
    # Prompt 3 4, options 5 6 7 | 5 9 | 8: branches 5 6 and 5, both behind the prompt.
    turn = choose([3, 4], [[5, 6, 7], [5, 9], [8]], 0)
    (batch,) = batches([turn])
    assert batch.input_ids.tolist() == [[3, 4, 5, 6, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    # First tokens from the prompt's end (1); 6, 7 from branch one (2, 3); 9 from branch two (4).
    places = batch.reads[batch.asked_reads].tolist()
    assert list(zip(places, batch.asked_ids.tolist(), strict=True)) == [
        (1, 5), (2, 6), (3, 7), (1, 5), (4, 9), (1, 8),
    ]  # fmt: skip


def test_equal_branches_are_computed_once():
    turns = [choose([3, 4], LONGER, 1), choose([3, 4], LONGER, 2)]
    key = rows.key(prepare(turns)[0].turn.prompt_ids)
    assert Branches(rows.length(key), turns).ids == Branches(rows.length(key), turns[:1]).ids
