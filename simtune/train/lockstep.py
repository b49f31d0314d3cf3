"""Passes of a sharded model, which all processes make together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

IDLE: Final = 0
"""A process has no more work of its own."""

WITHOUT_GRADIENT: Final = 1
WITH_GRADIENT: Final = 2
"""A forward pass, and one that a backward pass follows."""


class Lockstep:
    """Lets every process take part in each pass of any of them.

    A sharded layer is gathered from all processes whenever one computes it. But episodes end early
    and rows differ in length, so the processes do not need the same number of passes. Before each
    pass a process says what comes; one that has done its share makes empty passes of the same kind,
    until nobody has anything left.

    Args:
        decoder: what is sharded; its forward passes are counted.
        device: where it is.
    """

    def __init__(self, decoder: torch.nn.Module, device: torch.device) -> None:
        self._decoder = decoder
        self._device = device
        self._done = False
        # Ahead of the hook that gathers the first layer.
        decoder.register_forward_pre_hook(self._announce, prepend=True)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Compute inside; left when every process is here.

        All processes make passes of one kind inside, with gradient or without.
        """
        yield
        self._done = True
        try:
            while (kind := self._most(IDLE)) != IDLE:
                self._empty_pass(gradient=kind == WITH_GRADIENT)
        finally:
            self._done = False

    def _announce(self, *_: object) -> None:
        if not self._done:
            self._most(WITH_GRADIENT if torch.is_grad_enabled() else WITHOUT_GRADIENT)

    def _most(self, kind: int) -> int:
        """What is to be done, as the busiest process says."""
        said = torch.tensor(kind, device=self._device)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
        return int(said)

    def _empty_pass(self, *, gradient: bool) -> None:
        """One token, whose gradient is zero."""
        ids = torch.zeros((1, 1), dtype=torch.long, device=self._device)
        with torch.set_grad_enabled(gradient):
            states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        if gradient:
            torch.autograd.backward(states, torch.zeros_like(states))
