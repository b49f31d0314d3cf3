"""The frozen base in parts, as an FSDP configuration of accelerate asks for.

Each process keeps its part of every layer's frozen weights, and a layer is whole only while it is
computed: PyTorch's `fully_shard` gathers it from all processes. What is trained (adapter and value
head) and what stands outside of the layers (embeddings, norm, output matrix) is whole in every
process, so that gradients are summed and adapters saved as without.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import torch

from simtune.errors import OptionError
from simtune.train import precision
from simtune.train.lockstep import Lockstep
from simtune.train.options import PPOOptions
from simtune.train.parallel import JoinedProcesses, Processes

if TYPE_CHECKING:
    from accelerate import FullyShardedDataParallelPlugin
    from peft import PeftModel

FSDP = "ACCELERATE_USE_FSDP"
"""Set by `accelerate launch` where its configuration has FSDP."""

MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"


class Sharding:
    """How the layers are divided; `configured` reads it from accelerate's configuration.

    Args:
        plugin: accelerate's, FSDP version 2.
        processes: that divide them.
    """

    def __init__(self, plugin: FullyShardedDataParallelPlugin, processes: JoinedProcesses) -> None:
        self.plugin = plugin
        self.processes = processes

    @classmethod
    def configured(cls, options: PPOOptions, processes: Processes) -> Sharding | None:
        """What the environment asks for; None where it does not, or there is one process.

        Raises:
            OptionError: the configuration, or an option beside it, cannot be used.
        """
        asked = os.environ.get(FSDP, "false").lower() == "true"
        if not asked or not isinstance(processes, JoinedProcesses):
            return None
        plugin = _plugin()
        if options.compile:
            raise OptionError(
                "a sharded base is not compiled", got="--compile true", fix="leave --compile out"
            )
        chosen, _ = precision.precision(options.precision)
        mixed = os.environ.get(MIXED_PRECISION, "no")
        if mixed not in ("no", chosen):
            raise OptionError(
                "the configuration and --precision name different number formats",
                expected=f"mixed_precision: 'no', or {chosen}",
                got=f"mixed_precision: {mixed}",
                fix="set mixed_precision: 'no' and --precision bf16 or fp32",
            )
        return cls(plugin, processes)

    def apply(self, policy: PeftModel) -> dict[str, str]:
        """Put a model that was read on the CPU onto the devices, its layers in parts.

        From here on every pass of the model is one of all processes, see `Lockstep`.

        Returns:
            What was done, for the run's parameters.

        Raises:
            OptionError: the model has no such layers, or cannot checkpoint activations.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        causal = policy.get_base_model()
        if self.plugin.activation_checkpointing:
            precision.checkpoint_activations(causal)
        decoder = getattr(causal, causal.base_model_prefix)
        layers = self._layers(causal)
        kind = type(layers[0]).__name__
        inside = {id(one) for layer in layers for one in layer.parameters()}
        whole = {one for one in policy.parameters() if one.requires_grad or id(one) not in inside}
        device = self.processes.device
        how: dict[str, Any] = {
            "mesh": init_device_mesh(device.type, (self.processes.world,)),
            "reshard_after_forward": self.plugin.reshard_after_forward,
            "offload_policy": self.plugin.cpu_offload,
            "ignored_params": whole,
        }
        for layer in layers:
            _bring(layer, device)
            fully_shard(layer, **how)
        _bring(policy, device)
        fully_shard(decoder, **how)
        self.processes.lockstep = Lockstep(decoder, device)
        # Whole layers get their memory in the first pass. Were that one of roll-outs, in inference
        # mode, no later pass could have a gradient.
        with torch.no_grad():
            decoder(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
        kept = "no" if self.plugin.reshard_after_forward else "yes"
        return {
            "chosen_sharding": f"{len(layers)} {kind} over {self.processes.world} processes, "
            f"whole between passes: {kept} (FSDP asked for)"
        }

    def _layers(self, causal: Any) -> list[torch.nn.Module]:
        """The modules that are gathered one at a time."""
        known = set(causal._no_split_modules or ())
        names = set(self.plugin.transformer_cls_names_to_wrap or known)
        found = [part for part in causal.modules() if type(part).__name__ in names]
        if not found or names - known:
            raise OptionError(
                "the FSDP configuration names layers that the model does not have",
                expected=f"fsdp_transformer_layer_cls_to_wrap: {_named(known)}",
                got=_named(names),
            )
        return found


def _bring(module: torch.nn.Module, device: torch.device) -> None:
    """Put what is not divided yet onto the device, where one layer at a time is whole."""
    from torch.distributed.tensor import DTensor

    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)


def _plugin() -> FullyShardedDataParallelPlugin:
    """Accelerate's reading of its own variables."""
    from accelerate import FullyShardedDataParallelPlugin

    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise OptionError(
            "PPO shards by the second version of FSDP",
            expected="fsdp_version: 2 in fsdp_config",
            got=f"fsdp_version: {version}",
            fix="accelerate to-fsdp2 --config_file FILE --output_file NEW",
        )
    wrap = os.environ.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    if wrap != "TRANSFORMER_BASED_WRAP":
        raise OptionError(
            "PPO shards a model by its layers",
            expected="fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
            got=f"fsdp_auto_wrap_policy: {wrap}",
        )
    try:
        # Told to transformers too: here every process reads all weights.
        return FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
    except ValueError as error:
        raise OptionError("accelerate refuses its FSDP configuration", got=error) from error


def _named(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
