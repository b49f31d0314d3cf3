"""Several processes on one machine: the same result as one, and one clear end where one fails."""

import os
import subprocess
import sys

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from simtune.errors import OptionError, SimtuneError, TrainingError
from simtune.registry import Registry
from simtune.train import launch
from simtune.train.launch import Failure
from simtune.train.learner import Learner
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes, join
from simtune.train.tuning import run_tuning
from tests.train.conftest import DIRECTIONS


def rated(path):
    rows = [
        {"prompt": f"go {shown}", "output": said, "rating": 5 if shown == said else 1}
        for shown in DIRECTIONS
        for said in DIRECTIONS
    ]
    path.write_bytes(msgspec.json.encode(rows))
    return str(path)


def settings(root, base, **changes):
    return {
        "tuning_mode": "ppo",
        "llm_path": str(base),
        "models_dir": str(root / "models"),
        "tracking_uri": str(root / "mlruns"),
        "iterations": 2,
        "epochs": 2,
        "minibatch_size": 6,
        "critic_warmup": 0,
        "lora_r": 2,
        "learning_rate": 1e-2,
    } | changes


def weights(root):
    (record,) = Registry(root / "models").list()
    return load_file(root / "models" / record.path / "adapter_model.safetensors")


def test_two_processes_give_the_adapter_of_one(tmp_path, tiny_model_dir):
    data = rated(tmp_path / "rated.json")
    for count in (1, 2):
        root = tmp_path / str(count)
        record = run_tuning(
            **settings(root, tiny_model_dir, dataset_path=data, processes=count),
        )
        assert record.data.decisions == 16
        assert record.metrics["rounds"] == 2
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    moved = max(float(tensor.abs().max()) for name, tensor in one.items() if "lora_B" in name)
    assert moved > 1e-3
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_play_the_seeds_of_one(tmp_path, tiny_model_dir):
    steps = []
    options = PPOOptions(
        **{k: v for k, v in settings(tmp_path, tiny_model_dir).items() if k != "tuning_mode"},
        env="tests.train.guessing:Guessing",
        capture_root=str(tmp_path / "data"),
        episodes_per_iteration=5,
        max_new_tokens=2,
        eval_every=2,
        eval_episodes=3,
    )
    record = launch.launch(options, 2, on_step=lambda *said: steps.append(said))
    from simtune.store import read

    episodes = list(read(tmp_path / "data").episodes())
    assert sorted(one.metadata["seed"] for one in episodes) == list(range(10))
    assert {one.run_id for one in episodes} == {record.mlflow_run_id}
    assert [(done, total) for done, total, _ in steps] == [(1, 2), (2, 2)]
    assert steps[-1][2]["episodes_seen"] == 10.0
    assert record.data.episodes == 10


def test_a_checkpoint_of_two_processes_is_not_for_one():
    learner = object.__new__(Learner)
    learner.processes = Processes()
    with pytest.raises(OptionError, match=r"(?s)as many processes.*expected: 2.*--processes 2"):
        learner.load_state_dict({"generators": [{}, {}]})


@pytest.mark.slow
def test_a_failing_process_ends_all_with_its_error(tmp_path, tiny_model_dir):
    data = tmp_path / "rated.json"
    data.write_text('[{"prompt": "go", "output": "left", "rating": 3}]')
    with pytest.raises(SimtuneError, match="no ratings to learn from"):
        run_tuning(**settings(tmp_path, tiny_model_dir, dataset_path=str(data), processes=2))
    assert not (tmp_path / "models" / "registry.json").exists()


def test_what_a_process_said_first_is_raised_as_it_was(tmp_path):
    for rank, text, age in ((0, "the connection was lost", 5), (1, "no memory\n  fix: less", 9)):
        path = tmp_path / f"error-{rank}.json"
        path.write_bytes(msgspec.json.encode(Failure(kind="OptionError", text=text)))
        os.utime(path, (1000 - age, 1000 - age))
    error = launch._cause(tmp_path, [1, 1])
    assert type(error) is OptionError
    assert str(error) == "no memory\n  fix: less"


def test_a_process_that_died_is_named_with_its_last_words(tmp_path):
    (tmp_path / "stderr-1.txt").write_text("Traceback\nMemoryError: too much\n")
    error = launch._cause(tmp_path, [1, -9])
    assert isinstance(error, TrainingError)
    assert "training process 1 of 2 died" in str(error)
    assert "exit code -9: MemoryError: too much" in str(error)


def test_no_process_is_without_an_episode():
    options = PPOOptions(llm_path="b", env="E", episodes_per_iteration=2, processes=3)
    with pytest.raises(OptionError, match="a process would have no episode"):
        launch.processes_wanted(options)


@pytest.mark.parametrize(("count", "world"), [(10, 3), (3, 3), (2, 3), (7, 1)])
def test_shares_are_contiguous_complete_and_even(count, world):
    shares = []
    for rank in range(world):
        processes = Processes()
        processes.rank, processes.world = rank, world
        shares.append(processes.share(count))
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_configuration_that_shards_the_model_otherwise_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(OptionError, match=r"(?s)by FSDP only.*got: ACCELERATE_USE_DEEPSPEED=true"):
        join()


def test_a_process_ends_when_the_one_that_started_it_is_gone():
    code = "import time; from simtune.train.worker import _end_with_the_parent as f; f()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(30) == 1
