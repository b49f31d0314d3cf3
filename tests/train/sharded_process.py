"""What each of two processes does in `test_sharding`: shard a model, and make unequal passes."""

from __future__ import annotations

import os

import torch
from torch.distributed.tensor import DTensor

from simtune.policy.weights import Weights
from simtune.train.options import PPOOptions
from simtune.train.parallel import join
from simtune.train.sharding import Sharding
from tests.train import tiny_models

IDS = torch.arange(2, 12)[None]


def states(policy):
    return policy.get_base_model().model(input_ids=IDS, use_cache=False).last_hidden_state


def gradients(policy):
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.requires_grad}


def main(rank, port, reshard):
    """Fails where a sharded model computes something else, or waits for the other in vain."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": reshard,
        "FSDP_ACTIVATION_CHECKPOINTING": reshard,
    }
    policy = tiny_models.actor_critic().policy
    expected = states(policy)
    expected.square().sum().backward()
    own = gradients(policy)
    policy.zero_grad()

    processes = join()
    sharding = Sharding.configured(PPOOptions(llm_path="base"), processes)
    said = sharding.apply(policy)["chosen_sharding"]
    assert said.startswith("2 LlamaDecoderLayer over 2 processes"), said
    assert Weights(policy).forward() is policy
    assert policy.get_base_model().is_gradient_checkpointing == (reshard == "true")
    if reshard == "true":
        _check_parts(policy)

    with torch.inference_mode(), processes.together():
        for _ in range((3, 1)[rank]):
            torch.testing.assert_close(states(policy), expected)
    passes = (2, 0)[rank]
    with processes.together():
        for _ in range(passes):
            states(policy).square().sum().backward()
    for name, found in gradients(policy).items():
        torch.testing.assert_close(found, passes * own[name])
    processes.close()


def _check_parts(policy):
    """Half of every frozen weight of a layer is here; everything else is whole."""
    for name, parameter in policy.named_parameters():
        if ".layers." in name and not parameter.requires_grad:
            assert isinstance(parameter, DTensor), name
            assert parameter.to_local().numel() * 2 == parameter.numel(), name
        else:
            assert type(parameter) is torch.nn.Parameter, name
