"""The weights a policy answers with: noticing that they changed, and LoRA folded in for speed."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLD_AT_MOST = 2**30
"""Bytes of adapted weights up to which a folded copy is kept beside the model."""

KEEP_AT_MOST = 2**24
"""Bytes that stay allocated where their contents are forgotten: allocating takes time."""


class Weights:
    """The modules that a forward pass runs, and whether they are still what they were.

    Where a LoRA adapter sits on float32 linear layers, the pass runs on a copy of those layers
    with the adapter added in: the same function within rounding, without the extra products of
    an adapter beside its layer. Everything else is shared with the model, and the model itself is
    never written to. In lower precision adding would round, so there the adapter stays beside.

    Args:
        model: a causal language model, with or without PEFT layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._state: tuple[Any, ...] | None = None
        self._folded: _Folded | None = None
        self._listed: tuple[Any, ...] | None = None
        self._tensors: list[torch.Tensor] = []
        self._layers: list[Any] = []

    def changed(self) -> bool:
        """Whether any weight, or the adapter in use, differs from the last call; true at first.

        Optimizer steps, loading and swapping an adapter, and leaving it aside are seen by the
        tensors' version counters and addresses. Writing through `tensor.data` is not, nor are the
        steps of a fused optimizer: whoever does that calls `LocalPolicy.forget`.
        """
        self._list()
        state = (
            self._listed,
            tuple((tensor.data_ptr(), tensor._version) for tensor in self._tensors),
            tuple(_in_use(layer) for layer in self._layers[:1]),
        )
        if state == self._state:
            return False
        self._state = state
        if self._folded is not None:
            self._folded.refresh()
        return True

    def distrust(self) -> None:
        """Take the weights for changed the next time; a large folded copy is given back."""
        self._state = None
        if self._folded is not None and self._folded.nbytes() > KEEP_AT_MOST:
            self._folded.release()

    def forward(self) -> Any:
        """What to call: the model, or its copy with the adapter folded in."""
        return self.model if self._folded is None else self._folded.model

    def _list(self) -> None:
        """Find parameters and adapted layers, anew where adapters were added or removed."""
        listed = (id(self.model), *sorted(getattr(self.model, "peft_config", {})))
        if listed == self._listed:
            return
        self._listed = listed
        self._tensors = list(itertools.chain(self.model.parameters(), self.model.buffers()))
        self._layers = [one for one in self.model.modules() if hasattr(one, "lora_A")]
        self._folded = _Folded(self.model) if _can_fold(self.model, self._layers) else None


class _Folded:
    """The base model's modules with its own weights, but for the layers that LoRA changes."""

    def __init__(self, model: Any) -> None:
        base = model.get_base_model()
        shared = {id(one): one for one in itertools.chain(base.parameters(), base.buffers())}
        self.model = copy.deepcopy(base, dict(shared)).eval()
        self._pairs = []
        for name, layer in base.named_modules():
            if hasattr(layer, "lora_A"):
                plain = copy.deepcopy(layer.get_base_layer(), dict(shared))
                plain.weight = _no_weight(plain.weight)
                self.model.set_submodule(name, plain)
                self._pairs.append((layer, plain))

    def nbytes(self) -> int:
        return sum(plain.weight.nbytes for _, plain in self._pairs)

    def release(self) -> None:
        for _, plain in self._pairs:
            plain.weight = _no_weight(plain.weight)

    @torch.no_grad()
    def refresh(self) -> None:
        for layer, plain in self._pairs:
            weight = layer.get_base_layer().weight
            if plain.weight.shape == weight.shape:
                plain.weight.copy_(weight)
            else:
                plain.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
            if not layer.disable_adapters:
                for adapter in layer.active_adapters:
                    if adapter in layer.lora_A:
                        plain.weight.add_(layer.get_delta_weight(adapter))


def _no_weight(of: torch.Tensor) -> torch.nn.Parameter:
    """Stands where a weight is to be."""
    return torch.nn.Parameter(of.new_empty(0), requires_grad=False)


def _in_use(layer: Any) -> tuple[Any, ...]:
    """Which adapters a layer applies, and how; PEFT sets this on all layers alike."""
    return (
        tuple(layer.active_adapters),
        bool(layer.disable_adapters),
        tuple(layer.merged_adapters),
        tuple(layer.scaling.items()),
    )


def _sharded(model: Any) -> bool:
    """Whether some layers are in parts (FSDP), so that none can be copied."""
    return any(hasattr(module, "unshard") for module in model.modules())


def _can_fold(model: Any, layers: list[Any]) -> bool:
    if not layers or not hasattr(model, "get_base_model") or _sharded(model):
        return False
    for config in model.peft_config.values():
        if config.use_dora or config.bias != "none" or config.modules_to_save:
            return False
    weights = [layer.get_base_layer().weight for layer in layers]
    return (
        not any(layer.merged_adapters for layer in layers)
        and all(type(layer.get_base_layer()).__name__ in ("Linear", "Conv1D") for layer in layers)
        and all(weight.dtype == torch.float32 for weight in weights)
        and sum(weight.nbytes for weight in weights) <= FOLD_AT_MOST
    )
