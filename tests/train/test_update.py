import math
from copy import deepcopy

import pytest
import torch

from simtune.errors import DataError, TrainingError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes
from simtune.train.turns import Turn
from simtune.train.update import PPO
from tests.train.tiny_models import absolute, actor_critic, evaluate

SMALL = {"llm_path": "-", "epochs": 1, "minibatch_size": 8, "critic_warmup": 0, "dual_clip": None}


def make_ppo(model=None, processes=None, **changes):
    model = actor_critic(perturb=False) if model is None else model
    options = PPOOptions(**(SMALL | changes))
    return PPO(model, options, pad_id=0, processes=processes)


def noted(model, *turns):
    """Turns with the log-probabilities that the model itself gives them, as its sampler would."""
    adapter = adapter_sha256(model.policy)
    for turn in turns:
        turn.behaviour_logprobs = evaluate(model, [turn])[0].tolist()
        turn.adapter = adapter
    return list(turns)


def one_decision(action, reward, model, **more):
    """An episode of one decision."""
    turns = noted(model, Turn(prompt_ids=[3, 4], action_ids=[action]))
    return EpisodeTurns(turns=turns, rewards=[reward], **more)


def chat(model, *rewards, first=3):
    """An episode of two decisions, the second prompt going on from the first answer."""
    turns = [
        Turn(prompt_ids=[first, 4], action_ids=[5, 6]),
        Turn(prompt_ids=[first, 4, 5, 6, 11, 12], action_ids=[7]),
    ]
    return EpisodeTurns(turns=noted(model, *turns), rewards=list(rewards))


def pair(model):
    return [one_decision(7, 1.0, model), one_decision(8, 0.0, model)]


def chance(model, action):
    with torch.no_grad():
        return evaluate(model, [Turn(prompt_ids=[3, 4], action_ids=[action])])[0].exp().item()


def actor_bytes(model):
    return b"".join(
        weights.detach().numpy().tobytes()
        for name, weights in sorted(model.policy.named_parameters())
        if weights.requires_grad
    )


def test_the_better_action_becomes_more_likely():
    learner = make_ppo(learning_rate=1e-2)
    before = chance(learner.model, 7), chance(learner.model, 8)
    for index in range(20):
        metrics = learner.round(index, pair(learner.model))
    after = chance(learner.model, 7), chance(learner.model, 8)
    assert after[0] > 2 * before[0]
    assert after[1] < before[1]
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-4)


def test_the_better_option_becomes_more_likely():
    learner = make_ppo(learning_rate=1e-2)
    options = [[5, 6], [7], [8, 9, 10]]

    def decided(chosen, reward):
        turn = Turn(prompt_ids=[3, 4], action_ids=options[chosen], options=options, chosen=chosen)
        return EpisodeTurns(turns=noted(learner.model, turn), rewards=[reward])

    before = math.exp(decided(2, 0.0).turns[0].behaviour_logprobs[0])
    for index in range(20):
        episodes = [decided(i, float(i == 2)) for i in range(3)]
        metrics = learner.round(index, episodes)
    assert math.exp(decided(2, 0.0).turns[0].behaviour_logprobs[0]) > 2 * before
    assert metrics["entropy"] < math.log(3)


def test_critic_warm_up_leaves_the_actors_bytes_alone():
    learner = make_ppo(critic_warmup=2)
    before = actor_bytes(learner.model)
    for index in range(2):
        metrics = learner.round(index, [one_decision(7, 1.0, learner.model)])
        assert actor_bytes(learner.model) == before
        assert learner.model.value_head.bias.item() != 0
        assert "policy_loss" not in metrics
    learner.round(2, pair(learner.model))
    assert actor_bytes(learner.model) != before


def test_warm_up_trains_the_critic_as_the_update_does():
    """From cached states or through the model: the same head, as long as the adapter rests."""
    heads = []
    for warm in (1, 0):
        learner = make_ppo(critic_warmup=warm, epochs=3, learning_rate=1e-30, entropy_coef=0.0)
        learner.round(0, [chat(learner.model, 0.0, 1.0), one_decision(7, 0.5, learner.model)])
        heads.append(learner.model.value_head.weight.detach())
    assert heads[0].abs().sum() > 0
    torch.testing.assert_close(heads[0], heads[1], atol=1e-6, rtol=1e-4)


def test_the_critic_has_its_own_learning_rate():
    learner = make_ppo(learning_rate=1e-3, critic_learning_rate=5e-3)
    # Adam's first step is the learning rate itself, whatever the gradient.
    learner.round(0, [one_decision(7, 1.0, learner.model)])
    assert learner.model.value_head.bias.item() == pytest.approx(5e-3, rel=1e-3)


def gradients(learner, episodes):
    """What the first step of a round would follow."""
    seen = {}
    learner.optimizer.step = lambda: seen.update(
        {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.requires_grad}
    )
    metrics = learner.round(0, episodes)
    return seen, metrics


@pytest.mark.parametrize("normalise", ["tokens", "decisions"])
@pytest.mark.parametrize("kl_form", ["k3-loss", "k1-reward"])
def test_the_loss_does_not_depend_on_how_a_batch_is_cut_into_micro_batches(normalise, kl_form):
    found = []
    for budget in (1, 8, 4096):
        model = actor_critic()
        episodes = [chat(model, 0.3, 1.0), chat(model, 1.0, 0.0, first=9), *pair(model)]
        learner = make_ppo(
            model, tokens_per_batch=budget, normalise=normalise, kl_coef=0.1, kl_form=kl_form
        )
        found.append(gradients(learner, episodes))
    for grads, metrics in found[1:]:
        for name, expected in found[0][0].items():
            torch.testing.assert_close(grads[name], expected, atol=1e-5, rtol=1e-3)
        for name in ("loss", "policy_loss", "value_loss", "entropy", "kl_to_base"):
            assert metrics[name] == pytest.approx(found[0][1][name], abs=1e-5)


class Half(Processes):
    """One of two processes; sums are written down in a first run and added in a second."""

    world = 2

    def __init__(self, rank, others=None):
        self.rank = rank
        self.given = []
        self.others = iter(others or [])

    def sum(self, tensor):
        self.given.append(tensor.clone())
        return tensor + next(self.others, torch.zeros_like(tensor))

    def gather(self, items):
        return list(items)


def test_two_processes_take_the_step_of_one():
    def run(processes):
        model = actor_critic()
        episodes = [chat(model, 0.3, 1.0), chat(model, 1.0, 0.0, first=9), *pair(model)]
        learner = make_ppo(model, processes=processes, estimator="gae")
        learner.mismatch = 0.0
        return gradients(learner, episodes)

    whole, metrics = run(None)
    # Which values are known and what they are comes first: both processes must know all of them
    # before any gradient is the right one.
    values = [Half(rank) for rank in (0, 1)]
    for half in values:
        run(half)
    first = [half.given[:2] for half in values]
    halves = [Half(rank, first[1 - rank]) for rank in (0, 1)]
    for half in halves:
        run(half)
    final, shared = run(Half(0, halves[1].given))
    for name, expected in whole.items():
        torch.testing.assert_close(final[name], expected, atol=1e-6, rtol=1e-4)
    assert shared["policy_loss"] == pytest.approx(metrics["policy_loss"], abs=1e-6)


def test_kl_to_the_base_is_zero_at_first_and_its_base_never_moves():
    learner = make_ppo(kl_coef=0.1, learning_rate=1e-2)
    turn = Turn(prompt_ids=[3, 4], action_ids=[7])
    with torch.no_grad(), learner.model.reference():
        base = evaluate(learner.model, [turn])[0]
    first = learner.round(0, pair(learner.model))
    assert first["kl_to_base"] == pytest.approx(0.0, abs=1e-6)
    second = learner.round(1, pair(learner.model))
    assert second["kl_to_base"] > 0
    with torch.no_grad(), learner.model.reference():
        torch.testing.assert_close(evaluate(learner.model, [turn])[0], base)


def test_k1_is_taken_from_the_reward_of_each_decision():
    """The base finds the answer d less likely than the policy does: the reward loses coef * d."""
    model = actor_critic()
    episode = one_decision(7, 1.0, model)
    with torch.no_grad(), model.reference():
        base = evaluate(model, episode.turns)[0].item()
    difference = episode.turns[0].behaviour_logprobs[0] - base
    learner = make_ppo(model, kl_coef=0.5, kl_form="k1-reward", estimator="rloo", whiten=False)
    alike = [episode, one_decision(8, 1.0, model)]
    with torch.no_grad(), model.reference():
        other = alike[1].turns[0].behaviour_logprobs[0] - evaluate(model, alike[1].turns)[0].item()
    for one in alike:
        one.group = "same"
    data = []
    learner._step = lambda given, targets, chains: (data.append(targets), (None, True))[1]
    learner.round(0, alike)
    # Leave-one-out of two: (1 - .5 d) - (1 - .5 d').
    expected = -0.5 * (difference - other)
    assert data[0].advantages.tolist() == pytest.approx([expected, -expected], abs=1e-5)


def test_the_weight_of_the_kl_follows_its_target():
    learner = make_ppo(actor_critic(), kl_coef=0.1, kl_target=1e-6)
    learner.round(0, pair(learner.model))
    assert learner.kl.coefficient == pytest.approx(0.2)  # far above the target


def test_a_sampler_that_agrees_needs_no_second_look():
    learner = make_ppo()
    assert learner.mismatch is None
    first = learner.round(0, pair(learner.model))
    assert first["sampler_mismatch"] < 1e-5
    assert "importance_weight_mean" not in first


def test_a_sampler_that_disagrees_is_corrected_from_the_first_round():
    """The sampler thought the actions e^-1 and e^1 times as likely as the trainer does."""
    learner = make_ppo(importance_cap=2.0)
    episodes = pair(learner.model)
    for episode, shift in zip(episodes, (-1.0, 1.0), strict=True):
        episode.turns[0].behaviour_logprobs[0] += shift
    metrics = learner.round(0, episodes)
    # min(e, 2) and e^-1; the clipped ratio is to the trainer itself, so it is 1.
    assert metrics["importance_weight_mean"] == pytest.approx((2.0 + math.exp(-1)) / 2, abs=1e-4)
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["sampler_mismatch"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("behaviour", "ratio"), [("stored", math.e), ("decoupled", 1.0)])
def test_the_form_can_be_chosen(behaviour, ratio):
    learner = make_ppo(behaviour=behaviour)
    episodes = pair(learner.model)
    episodes[0].turns[0].behaviour_logprobs[0] -= 1.0
    metrics = learner.round(0, episodes)
    assert metrics["ratio_max"] == pytest.approx(ratio, rel=1e-4)
    assert ("importance_weight_mean" in metrics) is (behaviour == "decoupled")


def test_stale_decisions_are_decoupled():
    learner = make_ppo()
    episodes = pair(learner.model)
    learner.round(0, episodes)
    metrics = learner.round(1, episodes)  # sampled one update ago
    assert metrics["importance_weight_mean"] == pytest.approx(1.0, abs=0.05)
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)


def test_without_a_critic_there_are_no_values():
    learner = make_ppo(estimator="group", critic_warmup=3)
    episodes = [one_decision(7, 1.0, learner.model, group="a")]
    episodes += [one_decision(8, 0.0, learner.model, group="a")]
    metrics = learner.round(0, episodes)
    assert {"value_loss", "explained_variance"}.isdisjoint(metrics)
    assert learner.model.value_head.weight.abs().sum() == 0
    assert metrics["grad_norm"] > 0


def test_groups_of_one_teach_a_group_estimator_nothing():
    learner = make_ppo(estimator="rloo")
    with pytest.raises(DataError, match="compares episodes that began alike"):
        learner.round(0, pair(learner.model))


@pytest.mark.parametrize("estimator", ["gae", "token-gae"])
def test_both_units_of_credit_train(estimator):
    learner = make_ppo(actor_critic(absolute), estimator=estimator, value_clip=0.2, epochs=2)
    metrics = learner.round(0, [chat(learner.model, 0.0, 1.0), chat(learner.model, 0.0, 0.0)])
    assert metrics["grad_norm"] > 0
    assert metrics["value_loss"] > 0


def test_a_loss_that_is_not_finite_is_skipped_and_then_stops_the_run():
    learner = make_ppo(behaviour="stored")
    before = actor_bytes(learner.model)
    broken = one_decision(7, 1.0, learner.model)
    broken.turns[0].behaviour_logprobs = [float("nan")]
    other = one_decision(8, 0.0, learner.model)
    with pytest.raises(TrainingError, match="not finite 5 times in a row"):
        for index in range(5):
            learner.round(index, [broken, other])
    assert actor_bytes(learner.model) == before


def test_target_kl_ends_the_passes_before_a_step_too_far():
    eager = make_ppo(epochs=30, learning_rate=3e-3)
    careful = make_ppo(epochs=30, learning_rate=3e-3, target_kl=0.01)
    for learner in (eager, careful):
        learner.round(0, pair(learner.model))
    drift = [
        abs(chance(learner.model, 7) - chance(actor_critic(perturb=False), 7))
        for learner in (eager, careful)
    ]
    assert 0 < drift[1] < drift[0]


def test_passes_take_every_decision_once_and_keep_chats_whole():
    model = actor_critic()
    learner = make_ppo(minibatch_size=4, epochs=3)
    episodes = [chat(model, 0.0, 1.0, first=i) for i in range(3, 9)]
    cuts = []
    learner._step = lambda data, targets, chains: (cuts.append(list(chains)), (None, True))[1]
    learner.round(0, episodes)
    # 12 decisions, 4 a step: three steps a pass, two chats of two decisions each.
    assert [len(chains) for chains in cuts] == [2] * 9
    for start in (0, 3, 6):
        assert sorted(i for cut in cuts[start : start + 3] for i in cut) == list(range(6))
    assert cuts[:3] != cuts[3:6]


def test_a_round_after_loading_is_the_round_that_would_have_been():
    """Bytes on a CPU: optimizer, order, weight of the KL and counters come back."""
    settings = {"epochs": 3, "minibatch_size": 2, "kl_coef": 0.1, "kl_target": 0.01}
    whole = make_ppo(learning_rate=1e-2, **settings)
    whole.round(0, [chat(whole.model, 0.0, 1.0), *pair(whole.model)])
    saved, weights = deepcopy((whole.state_dict(), whole.model.state_dict()))
    resumed = make_ppo(learning_rate=1e-2, **settings)
    resumed.model.load_state_dict(weights)
    resumed.load_state_dict(saved)
    for learner in (whole, resumed):
        learner.round(1, [chat(learner.model, 0.0, 1.0), *pair(learner.model)])
    assert actor_bytes(whole.model) == actor_bytes(resumed.model)
    assert whole.kl.coefficient == resumed.kl.coefficient
