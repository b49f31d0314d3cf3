"""Sums that micro-batches add to, read once per optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from simtune.train.parallel import Processes


class StepMetrics:
    """Sums over the units and values of one optimisation batch, kept on the device.

    Each is already divided by the batch's count, so that the sum is the mean.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, torch.Tensor] = {}
        self._greatest: dict[str, torch.Tensor] = {}

    def add(self, name: str, part: torch.Tensor) -> None:
        """Add a micro-batch's part, a scalar."""
        part = part.detach()
        self._sums[name] = self._sums[name] + part if name in self._sums else part

    def greatest(self, name: str, values: torch.Tensor) -> None:
        """Take a micro-batch's greatest value into account."""
        if not values.numel():
            return
        value = values.detach().max()
        old = self._greatest.get(name)
        self._greatest[name] = value if old is None else torch.maximum(old, value)

    def read(self, names: Sequence[str], processes: Processes) -> dict[str, float]:
        """The sums over all processes, in one transfer.

        Args:
            names: those that were added anywhere; a process without a share has none of its own.
            processes: of the run.
        """
        zero = torch.zeros((), device=self._device)
        sums = torch.stack([self._sums.get(name, zero).float() for name in names])
        read = dict(zip(names, processes.sum(sums).tolist(), strict=True))
        own = {name: value.item() for name, value in self._greatest.items()}
        for one in processes.gather([own]):
            for name, value in one.items():
                read[name] = max(value, read.get(name, value))
        return read


def mean_of(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the steps that have it; of a maximum, the maximum."""
    names = {name: None for metrics in steps for name in metrics}
    columns = {name: [m[name] for m in steps if name in m] for name in names}
    return {
        name: max(column) if name.endswith("_max") else sum(column) / len(column)
        for name, column in columns.items()
    }
