from collections import Counter

import msgspec
import pytest
import torch

from simtune.errors import DataError, TrainingError
from simtune.records import Decision, Episode
from simtune.train import update as update_module
from simtune.train.episode_turns import EpisodeTurns, assign_credit, episode_turns
from simtune.train.options import PPOOptions
from simtune.train.ppo import train_ppo
from simtune.train.turns import Turn
from simtune.train.update import PPO
from tests.train.test_actor_critic import actor_critic

SMALL = {"llm_path": "-", "epochs": 1, "minibatch_size": 8, "critic_warmup": 0, "dual_clip": None}


def make_ppo(**changes):
    return PPO(actor_critic(perturb=False), PPOOptions(**(SMALL | changes)), pad_id=0)


def one_decision(action, reward, model):
    """An episode of one decision with the log-probability the model itself gives it."""
    turn = Turn(prompt_ids=[3, 4], action_ids=[action])
    batch = update_module.collate([turn], pad_id=0, device="cpu")
    turn.behaviour_logprobs = model(batch).logprobs.tolist()
    return EpisodeTurns(turns=[turn], rewards=[reward])


def chance(model, action):
    batch = update_module.collate(
        [Turn(prompt_ids=[3, 4], action_ids=[action])], pad_id=0, device="cpu"
    )
    return model(batch).logprobs.exp().item()


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
        episodes = [one_decision(7, 1.0, learner.model), one_decision(8, 0.0, learner.model)]
        metrics = learner.round(index, episodes)
    after = chance(learner.model, 7), chance(learner.model, 8)
    assert after[0] > 2 * before[0]
    assert after[1] < before[1]
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-4)


def test_critic_warm_up_leaves_the_actors_bytes_alone():
    learner = make_ppo(critic_warmup=2)
    before = actor_bytes(learner.model)
    for index in range(2):
        learner.round(index, [one_decision(7, 1.0, learner.model)])
        assert actor_bytes(learner.model) == before
        assert learner.model.value_head.bias.item() != 0
    learner.round(2, [one_decision(7, 1.0, learner.model), one_decision(8, 0.0, learner.model)])
    assert actor_bytes(learner.model) != before


def test_kl_to_the_base_is_zero_at_first_and_its_base_never_moves():
    learner = make_ppo(kl_coef=0.1, learning_rate=1e-2)
    turn = update_module.collate([Turn(prompt_ids=[3, 4], action_ids=[7])], pad_id=0, device="cpu")
    base = learner._reference(turn)
    rewards = ((7, 1.0), (8, 0.0))
    first = learner.round(0, [one_decision(a, r, learner.model) for a, r in rewards])
    assert first["kl_to_base"] == pytest.approx(0.0, abs=1e-6)
    second = learner.round(1, [one_decision(a, r, learner.model) for a, r in rewards])
    assert second["kl_to_base"] > 0
    torch.testing.assert_close(learner._reference(turn), base)


def test_a_loss_that_is_not_finite_is_skipped_and_then_stops_the_run():
    learner = make_ppo()
    before = actor_bytes(learner.model)
    broken = one_decision(7, 1.0, learner.model)
    broken.turns[0].behaviour_logprobs = [float("nan")]
    other = one_decision(8, 0.0, learner.model)
    with pytest.raises(TrainingError, match="not finite 5 times in a row"):
        for index in range(5):
            learner.round(index, [broken, other])
    assert actor_bytes(learner.model) == before


def test_target_kl_ends_the_passes_early():
    eager = make_ppo(epochs=50, learning_rate=5e-2)
    careful = make_ppo(epochs=50, learning_rate=5e-2, target_kl=0.01)
    reached = [
        learner.round(
            0, [one_decision(7, 1.0, learner.model), one_decision(8, 0.0, learner.model)]
        )["approx_kl"]
        for learner in (eager, careful)
    ]
    assert reached[1] < reached[0]


def decision(**changes):
    full = {
        "decision_id": "w-1",
        "prompt_token_ids": [3, 4],
        "token_ids": [5, 1],
        "logprobs": [-0.1, -0.2],
        "sampling": {"temperature": 0.7},
    }
    return Decision(**(full | changes))


def encode(prompts):
    return [[9, 9] for _ in prompts]


def test_an_episode_becomes_the_ids_that_were_sampled():
    skipped = Counter()
    made = episode_turns(Episode(episode_id="e", decisions=[decision()]), [1.0], encode, skipped)
    turn = made.turns[0]
    assert (turn.prompt_ids, turn.action_ids) == ([3, 4], [5, 1])
    assert (turn.behaviour_logprobs, turn.temperature) == ([-0.1, -0.2], 0.7)
    assert made.final is None
    assert not skipped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_ids": [], "logprobs": []}, "no token ids"),
        ({"logprobs": [-0.1]}, "no log-probabilities"),
        ({"logprobs": [-0.1, float("nan")]}, "no log-probabilities"),
        ({"sampling": {"temperature": 0.0}}, "sampled greedily"),
        ({"sampling": {"top_p": 0.9}}, "sampled with top_p, top_k or min_p"),
    ],
)
def test_what_ppo_cannot_learn_from_is_counted_by_reason(change, reason):
    skipped = Counter()
    episode = Episode(episode_id="e", decisions=[decision(), decision(**change)])
    assert episode_turns(episode, [0.0, 1.0], encode, skipped) is None
    assert skipped == {reason: 1}


@pytest.mark.parametrize(
    ("ends", "bootstraps"),
    [
        ({"truncated": True}, True),
        ({"terminated": True}, False),
        ({"terminated": True, "truncated": True}, False),
        ({}, False),
    ],
)
def test_only_truncation_alone_bootstraps(ends, bootstraps):
    episode = Episode(
        episode_id="e",
        decisions=[decision()],
        final_prompt=[{"role": "user", "content": "next"}],
        **ends,
    )
    made = episode_turns(episode, [0.0], encode, Counter())
    assert (made.final is not None) is bootstraps
    estimates = {(3, 4): 0.5, (9, 9): 0.8}

    def estimate(turns):
        return torch.tensor([estimates[tuple(turn.prompt_ids)] for turn in turns])

    assign_credit([made], estimate, gamma=0.5, gae_lambda=1.0)
    assert made.turns[0].return_ == pytest.approx(0.4 if bootstraps else 0.0)


def ratings(path, *values):
    rows = [{"prompt": "go", "output": way, "rating": v} for way, v in values]
    path.write_bytes(msgspec.json.encode(rows))
    return str(path)


def rated_run(tmp_path, model_dir, data, **changes):
    return PPOOptions(
        llm_path=str(model_dir),
        dataset_path=data,
        models_dir=str(tmp_path / "models"),
        tracking_uri=str(tmp_path / "mlruns"),
        iterations=2,
        epochs=1,
        critic_warmup=0,
        lora_r=4,
        **changes,
    )


def test_ratings_of_one_and_five_move_the_policy_apart_at_batch_size_one(tmp_path, tiny_model_dir):
    """Whitened over the file, never per sample: each row keeps its own direction."""
    hashes = set()
    for liked, disliked in (("left", "right"), ("right", "left")):
        data = ratings(tmp_path / "rated.json", (liked, 5), (disliked, 1))
        options = rated_run(tmp_path, tiny_model_dir, data, minibatch_size=1)
        record = train_ppo(options)
        hashes.add(record.weights_sha256)
        assert record.data.decisions == 2
        assert record.metrics["rating_mean"] == 3.0
    assert len(hashes) == 2


def test_equal_ratings_are_an_error_and_nothing_is_registered(tmp_path, tiny_model_dir):
    data = ratings(tmp_path / "rated.json", ("left", 3), ("right", 3))
    with pytest.raises(DataError, match="no ratings to learn from"):
        train_ppo(rated_run(tmp_path, tiny_model_dir, data))
    assert not (tmp_path / "models").exists()
