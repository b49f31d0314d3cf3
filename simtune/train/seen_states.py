"""What roll-outs computed on the way: the state that a critic values, behind each prompt.

A policy that samples has computed the last hidden state of every prompt with the very weights
that the round's values are asked of. Reading the values from those states saves the update a
whole forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from simtune.train import rows
from simtune.train.packing import Entry


class SeenStates:
    """Last hidden states by prompt, of one round: they are the present weights' and no others'."""

    def __init__(self) -> None:
        self._states: dict[bytes, torch.Tensor] = {}

    def add(self, prompts: Sequence[Sequence[int]], states: torch.Tensor) -> None:
        """Keep the state after the last token of each prompt, `[b, H]`."""
        for ids, state in zip(prompts, states, strict=True):
            self._states[rows.key(ids)] = state

    def known(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those entries whose prompt has been seen."""
        return [entry for entry in entries if entry.key in self._states]

    def of(self, entries: Sequence[Entry]) -> torch.Tensor:
        """The states of entries that are known, `[n, H]`."""
        return torch.stack([self._states[entry.key] for entry in entries])
