"""Whole runs: what is registered, what is kept beside it, and how a run ends that goes wrong."""

import hashlib
import math

import msgspec
import pytest
from safetensors.torch import load_file

from simtune.errors import TrainingError
from simtune.registry import Registry
from simtune.train import learner as learner_module
from simtune.train import periodic_eval
from simtune.train.options import parse_options
from simtune.train.ppo import train_ppo
from simtune.train.tracking import Tracker
from simtune.train.tuning import run_tuning


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One MLflow database for the runs of this module."""
    return str(tmp_path_factory.mktemp("loop") / "mlruns")


def values(root, base, runs, **changes):
    return {
        "llm_path": str(base),
        "env": "tests.train.guessing:Guessing",
        "models_dir": str(root / "models"),
        "tracking_uri": runs,
        "capture_root": str(root / "data"),
        "iterations": 3,
        "episodes_per_iteration": 4,
        "max_new_tokens": 2,
        "epochs": 1,
        "critic_warmup": 0,
        "lora_r": 2,
        "learning_rate": 1e-2,
        "save_every": 0,
    } | changes


def train(*given, **changes):
    return train_ppo(parse_options("ppo", values(*given, **changes)))


def adapter(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(first, second):
    return all((first[name] == second[name]).all() for name in first)


def test_the_best_round_is_registered_with_the_last_one_beside(
    tmp_path, tiny_model_dir, runs, monkeypatch
):
    """Scores are made up so that round 2 is the best of three."""
    scores = iter([(0.1, 0.0), (0.9, 0.0), (0.3, 0.0)])
    monkeypatch.setattr("simtune.train.kept.score", lambda _: next(scores))
    record = train(tmp_path, tiny_model_dir, runs, eval_every=1, eval_episodes=2)
    assert (record.metrics["round"], record.metrics["rounds"]) == (2, 3)
    assert record.tags["kept"] == "best"
    folder = tmp_path / "models" / record.path
    assert not same(adapter(folder), adapter(folder / "last"))
    assert (folder / "last" / "adapter_config.json").exists()
    assert (folder / "curves.png").stat().st_size > 10_000
    with Tracker("t", runs) as tracker:
        names = {item.path for item in tracker.client.list_artifacts(record.mlflow_run_id)}
        params = tracker.client.get_run(record.mlflow_run_id).data.params
    assert {"curves.png", "adapter"} <= names
    assert params["chosen_precision"] == "fp32 (no GPU)"
    assert params["made_with.threads"] == "1"


def test_the_ids_beside_the_adapter_have_the_records_digest(tmp_path, tiny_model_dir, runs):
    record = train(tmp_path, tiny_model_dir, runs, iterations=2)
    ids = (tmp_path / "models" / record.path / "episodes.txt").read_bytes()
    assert hashlib.sha256(ids).hexdigest() == record.data.digest
    assert len(ids.split()) == record.data.episodes == 8
    assert record.libraries["torch"]
    assert record.parameters["lora_r"] == 2


def test_a_run_that_breaks_registers_the_adapter_from_before(
    tmp_path, tiny_model_dir, runs, monkeypatch
):
    """Round 3 writes NaN into the adapter; what is saved is the adapter after round 2."""
    hashes = []
    real = learner_module.PPO.round

    def breaking(self, index, episodes, **more):
        metrics = real(self, index, episodes, **more)
        hashes.append(learner_module.adapter_sha256(self.model.policy))
        if index == 2:
            self.actor[0].data[0, 0] = math.nan
        return metrics

    monkeypatch.setattr(learner_module.PPO, "round", breaking)
    with pytest.raises(TrainingError, match=r"(?s)round 3 left .* NaN.*registered as ppo-"):
        train(tmp_path, tiny_model_dir, runs, iterations=5)
    (record,) = Registry(tmp_path / "models").list()
    assert record.weights_sha256 == hashes[1]
    assert record.metrics["round"] == 2
    assert record.tags["stopped"].startswith("round 3 left")


def test_logged_data_is_gone_on_with_too(tmp_path, tiny_model_dir, runs):
    """Two rounds, then two more, are the four rounds of a run that never stopped."""
    rows = [
        {"prompt": "go", "output": way, "rating": rating}
        for way, rating in (("left", 5), ("right", 1), ("up", 2))
    ]
    data = tmp_path / "rated.json"
    data.write_bytes(msgspec.json.encode(rows))
    logged = {"dataset_path": str(data), "env": None, "capture_root": "./simtune-data"}
    logged |= {"episodes_per_iteration": 64, "max_new_tokens": 16, "save_every": 1}
    whole = train(tmp_path / "a", tiny_model_dir, runs, **logged, iterations=4)
    half = train(tmp_path / "b", tiny_model_dir, runs, **logged, iterations=2)
    on = {"models_dir": str(tmp_path / "b" / "models"), "resume": "latest"}
    again = run_tuning("ppo", **on, iterations=4)
    assert half.weights_sha256 != whole.weights_sha256
    assert again.weights_sha256 == whole.weights_sha256
    assert again.mlflow_run_id == half.mlflow_run_id
    # There is nothing left to do: the same record, and not a second one.
    assert run_tuning("ppo", **on).id == again.id
    assert len(Registry(on["models_dir"]).list()) == 2


def test_an_evaluation_changes_no_bit_of_the_training(tmp_path, tiny_model_dir, runs):
    plain = train(tmp_path / "a", tiny_model_dir, runs)
    watched = train(
        tmp_path / "b",
        tiny_model_dir,
        runs,
        eval_every=1,
        eval_episodes=7,
        eval_decoding="sampled",
        keep="last",
    )
    assert watched.weights_sha256 == plain.weights_sha256
    assert periodic_eval.UNKNOWN < watched.metrics["eval_success"] <= 1
