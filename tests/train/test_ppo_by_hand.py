"""The numbers that PPO over decisions must give, each worked by hand."""

import math
from collections import Counter

import pytest
import torch

from simtune.policy.generation import Settings
from simtune.policy.sampler import Sampler
from simtune.records import Decision, Episode
from simtune.train import losses
from simtune.train.episode_turns import EpisodeTurns, episode_turns
from simtune.train.estimators import select
from simtune.train.round_data import RoundData
from simtune.train.turns import Turn
from tests.train.tiny_models import actor_critic, batches, evaluate


def credit(data, values, **changes):
    settings = {"gamma": 0.99, "gae_lambda": 0.9, "whitened": False} | changes
    return data.credit(torch.tensor(values, dtype=torch.float64), None, **settings)


def two_decisions(observation=(), reward=(0.0, 1.0)):
    """Six action tokens: 5 6 7, then (after an observation) 8 9 1."""
    first = Turn(prompt_ids=[3, 4], action_ids=[5, 6, 7], behaviour_logprobs=[-1.0] * 3)
    prompt = [3, 4, 5, 6, 7, *observation]
    second = Turn(prompt_ids=prompt, action_ids=[8, 9, 1], behaviour_logprobs=[-1.0] * 3)
    return EpisodeTurns(turns=[first, second], rewards=list(reward))


# gamma .99, lambda .9, so gamma * lambda = .891; reward 1 at the end, terminated.
#
# Decisions, V = (.5, .4):
#   delta_1 = 1 + 0 - .4                    =  .6       A_1 = .6
#   delta_0 = 0 + .99 * .4 - .5             = -.104     A_0 = -.104 + .891 * .6 = .4306
# Every token of a decision has its advantage.
BY_DECISION = [0.4306] * 3 + [0.6] * 3
# Tokens, V = (.5, .5, .5, .4, .4, .4), one step each:
#   delta_5 = 1 - .4                        =  .6       A_5 = .6
#   delta_4 = .99 * .4 - .4                 = -.004     A_4 = -.004 + .891 * .6       = .5306
#   delta_3                                 = -.004     A_3 = -.004 + .891 * .5306    = .4687646
#   delta_2 = .99 * .4 - .5                 = -.104     A_2 = -.104 + .891 * .4687646 = .3136693
#   delta_1 = .99 * .5 - .5                 = -.005     A_1 = -.005 + .891 * .3136693 = .2744793
#   delta_0                                 = -.005     A_0 = -.005 + .891 * .2744793 = .2395611
BY_TOKEN = [0.2395611, 0.2744793, 0.3136693, 0.4687646, 0.5306, 0.6]


@pytest.mark.parametrize("observation", [[], [11, 11, 11, 11], list(range(2, 24))])
def test_advantages_equal_the_table_and_no_observation_moves_them(observation):
    """Tokens that nobody chose, any number of them, are no steps."""
    by_decision = RoundData([two_decisions(observation)], select("gae"))
    by_token = RoundData([two_decisions(observation)], select("token-gae"))
    found = credit(by_decision, [0.5, 0.4])
    assert found.advantages.tolist() == pytest.approx(BY_DECISION, abs=1e-6)
    assert found.returns.tolist() == pytest.approx([0.9306, 1.0], abs=1e-6)
    found = credit(by_token, [0.5, 0.5, 0.5, 0.4, 0.4, 0.4])
    assert found.advantages.tolist() == pytest.approx(BY_TOKEN, abs=1e-6)


def test_a_reward_for_the_observation_is_one_for_the_turns_last_action():
    """A reward that arrives with an observation belongs to the decision before it."""
    data = RoundData([two_decisions([11, 11], reward=(2.0, 0.0))], select("token-gae"))
    found = credit(data, [0.0] * 6, gae_lambda=1.0, gamma=0.5)
    # It reaches token 2 whole, tokens 1 and 0 once and twice discounted, and nothing after it.
    assert found.advantages.tolist() == pytest.approx([0.5, 1.0, 2.0, 0.0, 0.0, 0.0])


def test_zero_rewards_move_no_turn_boundary():
    """A turn without reward is still a turn: the terminal reward is discounted once over it."""
    data = RoundData([two_decisions(reward=(0.0, 1.0))], select("gae"))
    assert credit(data, [0.0, 0.0], gamma=0.5, gae_lambda=1.0).advantages.tolist() == (
        [0.5] * 3 + [1.0] * 3
    )


@pytest.mark.parametrize("estimator", ["gae", "token-gae"])
@pytest.mark.parametrize(
    ("ends", "bootstraps"),
    [
        ({"truncated": True}, True),
        ({"terminated": True}, False),
        ({"terminated": True, "truncated": True}, False),
        ({}, False),
    ],
)
def test_only_truncation_alone_bootstraps(ends, bootstraps, estimator):
    decision = Decision(
        decision_id="w-1", prompt_token_ids=[3, 4], token_ids=[5], logprobs=[-0.1], reward=0.0
    )
    episode = Episode(episode_id="e", decisions=[decision], final_prompt_token_ids=[9, 9], **ends)
    made = episode_turns(episode, [0.0], lambda prompts: [[9, 9]], Counter())
    data = RoundData([made], select(estimator))
    # A = 0 + .5 * V(final) - .2, with V(final) = .8 where the episode was cut, 0 where it ended.
    values = [0.2, 0.8] if bootstraps else [0.2]
    found = credit(data, values, gamma=0.5)
    assert found.advantages.tolist() == pytest.approx([0.2 if bootstraps else -0.2])


def test_whitening_is_over_the_round_and_small_rounds_stay_finite():
    one = EpisodeTurns(turns=[Turn(prompt_ids=[3], action_ids=[5, 6])], rewards=[1.0])
    other = EpisodeTurns(turns=[Turn(prompt_ids=[3], action_ids=[7])], rewards=[5.0])
    for episodes, expected in (
        ([], []),
        ([one], [0.0, 0.0]),
        ([one, other], [-1.0, -1.0, 1.0]),  # mean 3, deviation 2, per decision and not per token
        ([one, one, other], [-0.70711] * 4 + [1.41421]),  # mean 7/3, deviation 1.88562
    ):
        found = credit(RoundData(episodes, select("gae")), [0.0] * len(episodes), whitened=True)
        assert found.advantages.tolist() == pytest.approx(expected, abs=1e-4)


def test_same_weights_have_ratio_one_though_dropout_is_configured():
    """What the sampler noted and what the update computes, packed or padded: within 1e-4."""
    model = actor_critic(dropout=0.1)
    prompts = [[3, 4, 5], [6], [7, 8], [3, 4, 5]]
    settings = Settings(
        eos_ids=frozenset({1}),
        max_new_tokens=5,
        temperature=0.6,
        generator=torch.Generator().manual_seed(3),
    )
    answers = Sampler(model.policy, pad_id=0).sample(prompts, settings)
    turns = [
        Turn(prompt_ids=prompt, action_ids=answer.token_ids, temperature=0.6)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    stored = torch.tensor([value for answer in answers for value in answer.logprobs])
    for packed in (True, False):
        ratio = (evaluate(model, turns, packed=packed)[0] - stored).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_a_perturbed_sampler_is_corrected_by_a_capped_weight_without_gradient():
    # The trainer thinks the three tokens e^.5, e^-.5 and e^2 times as likely as the sampler did.
    behaviour = torch.tensor([-1.0, -1.0, -3.0])
    proximal = torch.tensor([-0.5, -1.5, -1.0], requires_grad=True)
    weights = losses.importance_weights(proximal, behaviour, cap=2.0)
    assert weights.tolist() == pytest.approx([math.exp(0.5), math.exp(-0.5), 2.0])
    assert not weights.requires_grad


def test_bad_action_far_from_the_sampler_costs_c_times_its_advantage():
    # A = -2, ratio 10, c = 3: -c * A = 6 and no gradient; without dual clip 20.
    new = torch.tensor([math.log(10.0)], requires_grad=True)
    clip = {"clip_low": 0.2, "clip_high": 0.28}
    arguments = (new, torch.zeros(1), torch.tensor([-2.0]))
    assert losses.policy_loss(*arguments, dual_clip=None, **clip).item() == pytest.approx(20.0)
    loss = losses.policy_loss(*arguments, dual_clip=3.0, **clip)
    loss.sum().backward()
    assert (loss.item(), new.grad.item()) == (pytest.approx(6.0), 0.0)


def captured(token_ids):
    decision = Decision(
        decision_id="w-1", prompt_token_ids=[3, 4], token_ids=token_ids, logprobs=[-0.1] * 3
    )
    episode = Episode(episode_id="e", decisions=[decision])
    return episode_turns(episode, [0.0], lambda prompts: [], Counter()).turns


def test_the_end_token_is_trained_where_it_was_sampled_and_nowhere_else():
    """1 ends an answer. One was ended by the model; the other was cut by the length limit."""
    (ended,) = batches(captured([5, 6, 1]))
    (cut,) = batches(captured([5, 6, 7]))
    assert ended.asked_ids.tolist() == [5, 6, 1]
    assert cut.asked_ids.tolist() == [5, 6, 7]
