"""A base in parts computes what a whole one does, whoever has how much to do."""

import socket

import pytest
import torch
from safetensors.torch import load_file

from simtune.errors import OptionError
from simtune.store import read
from simtune.train import launch
from simtune.train.options import PPOOptions
from simtune.train.parallel import JoinedProcesses, Processes
from simtune.train.sharding import Sharding
from simtune.train.tuning import run_tuning
from tests.train import sharded_process, tiny_models
from tests.train.test_launch import rated, settings, weights

ASKED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
"""Of what `accelerate launch` sets, as little as is needed."""


@pytest.fixture
def asked(monkeypatch):
    for name, value in ASKED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def joined():
    """Two processes, as far as reading the configuration goes."""
    processes = object.__new__(JoinedProcesses)
    processes.world = 2
    return processes


@pytest.mark.parametrize("reshard", ["true", "false"])
def test_unequal_passes_and_gradients_are_those_of_a_whole_model(reshard):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(sharded_process.main, (port, reshard), nprocs=2)


def test_a_sharded_run_gives_the_adapter_of_one_process(tmp_path, tiny_model_dir, asked):
    asked.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")  # has no effect
    asked.setenv("FSDP_ACTIVATION_CHECKPOINTING", "true")
    data = rated(tmp_path / "rated.json")
    for count in (1, 2):
        changes = {"dataset_path": data, "processes": count, "kl_coef": 0.05}
        run_tuning(**settings(tmp_path / str(count), tiny_model_dir, **changes))
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert max(float(tensor.abs().max()) for name, tensor in one.items() if "lora_B" in name) > 1e-3
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("decision", ["generate", "choose"])
def test_roll_outs_of_unequal_length_are_those_of_a_whole_model(
    tmp_path, tiny_model_dir, monkeypatch, decision
):
    """Lakes end after any number of turns, and seven episodes are not shared evenly."""
    played, mismatch = [], []
    for name, variables in (("whole", {}), ("parts", ASKED)):
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        root = tmp_path / name
        changed = settings(root, tiny_model_dir, iterations=1)
        options = PPOOptions(
            **{key: value for key, value in changed.items() if key != "tuning_mode"},
            env="FrozenLake-v1",
            capture_root=str(root / "data"),
            decision=decision,
            episodes_per_iteration=7,
            num_envs=2,
            max_new_tokens=2,
            eval_every=1,
            eval_episodes=3,
        )
        steps = []
        launch.launch(options, 2, on_step=lambda *said, into=steps: into.append(said[2]))
        mismatch.append(steps[-1]["sampler_mismatch"])
        episodes = read(root / "data").episodes()
        played.append(
            {one.metadata["seed"]: [d.response for d in one.decisions] for one in episodes}
        )
    assert sorted(played[0]) == list(range(7))
    assert len({len(turns) for turns in played[0].values()}) > 1
    assert played[0] == played[1]
    assert max(mismatch) < 1e-4


@pytest.mark.slow
def test_a_sharded_run_is_resumed_exactly(tmp_path, tiny_model_dir, asked):
    """Two rounds, and two more in new processes, end as four rounds at once."""
    data = rated(tmp_path / "rated.json")
    how = {"dataset_path": data, "processes": 2, "save_every": 1, "lr_schedule": "constant"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_tuning(**settings(whole, tiny_model_dir, iterations=4, **how))
    run_tuning(**settings(parts, tiny_model_dir, iterations=2, **how))
    short = weights(parts)
    again = {"models_dir": str(parts / "models"), "resume": "latest", "iterations": 4}
    record = run_tuning("ppo", **again)
    assert record.metrics["round"] == 4
    long = load_file(parts / "models" / record.path / "adapter_model.safetensors")
    for name, tensor in weights(whole).items():
        assert torch.equal(long[name], tensor), name
    assert any(not torch.equal(long[name], tensor) for name, tensor in short.items())


def test_nothing_is_sharded_unasked_or_alone(monkeypatch):
    options = PPOOptions(llm_path="base")
    assert Sharding.configured(options, joined()) is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert Sharding.configured(options, Processes()) is None


@pytest.mark.parametrize(
    ("variables", "options", "said"),
    [
        ({"FSDP_VERSION": "1"}, {}, r"(?s)second version.*got: fsdp_version: 1.*to-fsdp2"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, {}, r"(?s)by its layers.*SIZE_BASED_WRAP"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "perhaps"}, {}, r"(?s)accelerate refuses.*perhaps"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {}, r"(?s)different number formats.*fp16"),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {"precision": "fp32"},
            r"(?s)expected: mixed_precision: 'no', or fp32.*got: mixed_precision: bf16",
        ),
        ({}, {"compile": True}, "sharded base is not compiled"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(asked, variables, options, said):
    for name, value in variables.items():
        asked.setenv(name, value)
    with pytest.raises(OptionError, match=said):
        Sharding.configured(PPOOptions(llm_path="base", **options), joined())


@pytest.mark.parametrize("name", ["BertLayer", "LlamaDecoderLayer,Linear"])
def test_layers_that_the_model_does_not_have_are_named(asked, name):
    asked.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", name)
    sharding = Sharding.configured(PPOOptions(llm_path="base"), joined())
    said = r"(?s)to_wrap: LlamaDecoderLayer\n.*got: (BertLayer|Linear, LlamaDecoderLayer)"
    with pytest.raises(OptionError, match=said):
        sharding._layers(tiny_models.rotary())
