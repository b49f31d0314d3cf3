"""Adapters of two numbers in a registry, with the right hash."""

import torch
from safetensors.torch import save_file

from simtune.policy.adapter_hash import WEIGHTS_FILE, saved_sha256
from simtune.registry import Registry


def register(registry: Registry, value: float, *, base="/base/tiny", method="sft", **fields):
    with registry.staging() as staged:
        save_file({"lora_A.weight": torch.tensor([value, -value])}, staged / WEIGHTS_FILE)
        return registry.register(
            staged,
            method=method,
            base_model=base,
            weights_sha256=saved_sha256(staged),
            **fields,
        )
