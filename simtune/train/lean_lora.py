"""LoRA layers whose forward and backward pass write no tensor twice.

PEFT computes `base(x) + B(A(x)) * scaling` as separate operations: three more passes over memory
as large as the output, and as many backwards. Here the low-rank product is added into the base
layer's product as it is written. It is the same function and the same gradient up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn


def make_lean(model: nn.Module) -> int:
    """Let a model's LoRA layers compute as `LeanLinear` does, where they can; returns how many.

    Parameters, names and what is saved stay as they are.
    """
    lean = 0
    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        if type(layer.get_base_layer()) is nn.Linear:
            layer.__class__ = LeanLinear
            lean += 1
    return lean


class LeanLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer on a linear one; whatever is not plain LoRA in one dtype is left to it."""

    def forward(self, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        """`x [..., in]` to `[..., out]`."""
        adapter = self._plain_adapter(x, arguments, named)
        if adapter is None:
            other: torch.Tensor = super().forward(x, *arguments, **named)
            return other
        base = self.base_layer
        made: torch.Tensor = _Lora.apply(  # type: ignore[no-untyped-call]
            x,
            base.weight,
            base.bias,
            self.lora_A[adapter].weight,
            self.lora_B[adapter].weight,
            self.scaling[adapter],
        )
        return made

    def _plain_adapter(
        self, x: torch.Tensor, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> str | None:
        """The one adapter in use, where it is a plain one and dropout is off."""
        if arguments or named or self.training or self.disable_adapters or self.merged:
            return None
        if len(self.active_adapters) != 1:
            return None
        (adapter,) = self.active_adapters
        if adapter not in self.lora_A or adapter in self.lora_variant:
            return None
        a, b, base = self.lora_A[adapter], self.lora_B[adapter], self.base_layer
        plain = (
            not base.weight.requires_grad
            and b.bias is None
            and x.dtype == a.weight.dtype == b.weight.dtype == base.weight.dtype
            and not torch.is_autocast_enabled(x.device.type)
        )
        return str(adapter) if plain else None


class _Lora(torch.autograd.Function):
    """y = x W' + c + s (x A') B', with W and c frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()
        out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        out.addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        out = gradients[0].reshape(-1, gradients[0].shape[-1])
        back = out @ b
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (out @ weight).addmm_(back, a, alpha=ctx.scaling).view_as(x)
        to_a = (back.t() @ x.reshape(-1, x.shape[-1])).mul_(ctx.scaling)
        to_b = (out.t() @ low).mul_(ctx.scaling)
        return to_x, None, None, to_a, to_b, None
