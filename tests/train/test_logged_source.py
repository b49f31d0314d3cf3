import msgspec
import pytest

from simtune import Reply
from simtune.errors import DataError
from simtune.gym import rollout
from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import LocalPolicy, load_base
from simtune.train.actor_critic import ActorCritic
from simtune.train.logged_source import ratings_source, recompute, store_source
from simtune.train.lora import attach
from simtune.train.options import PPOOptions
from simtune.train.ppo import train_ppo
from simtune.train.turns import Turn
from tests.train.tiny_models import evaluate


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


def parts(options):
    base, tokenizer = load_base(options.llm_path)
    model = ActorCritic(attach(base, options))
    return LocalPolicy(model.policy, tokenizer, name="base"), model


def test_ratings_of_one_and_five_move_the_policy_apart_at_batch_size_one(tmp_path, tiny_model_dir):
    """Whitened over the file, never per sample: each row keeps its own direction."""
    hashes = set()
    for liked, disliked in (("left", "right"), ("right", "left")):
        data = ratings(tmp_path / "rated.json", (liked, 5), (disliked, 1))
        options = rated_run(tmp_path, tiny_model_dir, data, minibatch_size=1)
        record = train_ppo(options)
        hashes.add(record.weights_sha256)
        assert record.data.decisions == record.data.recomputed == 2
        assert "with adapter" in record.data.behaviour
        assert record.metrics["rating_mean"] == 3.0
    assert len(hashes) == 2


def test_equal_ratings_are_an_error_and_nothing_is_registered(tmp_path, tiny_model_dir):
    data = ratings(tmp_path / "rated.json", ("left", 3), ("right", 3))
    with pytest.raises(DataError, match="no ratings to learn from"):
        train_ppo(rated_run(tmp_path, tiny_model_dir, data))
    assert not list((tmp_path / "models").glob("ppo-*"))


def test_what_was_not_noted_is_recomputed_under_the_model_that_training_starts_from(
    tmp_path, tiny_model_dir
):
    data = ratings(tmp_path / "rated.json", ("left", 5), ("right", 1))
    policy, model = parts(rated_run(tmp_path, tiny_model_dir, data))
    turn = Turn(prompt_ids=[3, 4], action_ids=[5, 6], temperature=0.5)
    named = recompute([turn], model, policy)
    assert turn.behaviour_logprobs == pytest.approx(evaluate(model, [turn])[0].tolist(), abs=1e-5)
    assert turn.adapter == adapter_sha256(model.policy)
    assert named == f"base with adapter {turn.adapter}"


def test_each_round_over_the_same_data_is_staler(tmp_path, tiny_model_dir):
    data = ratings(tmp_path / "rated.json", ("left", 5), ("right", 1))
    options = rated_run(tmp_path, tiny_model_dir, data)
    source = ratings_source(options, *parts(options))
    assert [source.gather(index).metrics["staleness"] for index in (0, 1, 2)] == [0, 1, 2]
    assert source.behaviour.startswith("2 of 2 decisions recomputed under base with adapter")


def test_a_store_keeps_captured_log_probabilities_and_recomputes_missing_ones(
    tmp_path, tiny_model_dir
):
    """One episode knows what its sampler thought; in the other the ids alone were captured."""
    root = str(tmp_path / "store")
    for logprobs in ([-0.5, -0.25], []):
        policy = Echo(logprobs)
        rollout("simtune.gym.frozenlake:random_map", policy, episodes=1, root=root)
    options = PPOOptions(llm_path=str(tiny_model_dir), store=root)
    source = store_source(options, *parts(options))
    turns = [turn for one in source.gather(0).episodes for turn in one.turns]
    kept = [turn for turn in turns if turn.adapter == "sampler"]
    assert 0 < len(kept) < len(turns)
    captured = [turn for turn in kept if turn.behaviour_logprobs == [-0.5, -0.25]]
    assert len(captured) == len(kept)
    seen = source.seen()
    assert (seen.source, seen.recomputed) == ("store", len(turns) - len(kept))
    assert seen.behaviour.startswith("base with adapter")
    # A sampler of other weights is at least a round away, however many updates it was.
    assert 0 < source.gather(0).metrics["staleness"] < 1


class Echo:
    """Answers with two tokens, from weights called `sampler`."""

    def __init__(self, logprobs):
        self.logprobs = logprobs

    def act(self, prompts):
        return [
            Reply(
                "left",
                prompt_token_ids=[3, 4],
                token_ids=[5, 1],
                logprobs=self.logprobs,
                sampling={"temperature": 1.0},
                adapter="sampler",
            )
            for _ in prompts
        ]
