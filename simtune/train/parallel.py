"""The processes of one training run: who am I, and what do all of us hold together.

A run in one process is the case of a world of one. In several, every process has the whole model,
plays its share of the episodes and computes its share of each gradient; sums and lists over all
processes are the same everywhere, so every process takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from simtune.errors import OptionError

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

    from simtune.train.lockstep import Lockstep

T = TypeVar("T")

WORLD_VARIABLE = "WORLD_SIZE"
"""Set by `accelerate launch`, torchrun and simtune's own launcher."""

REFUSED = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_PARALLELISM_CONFIG")
"""Set by `accelerate launch` where its configuration shards a model in ways that PPO does not."""


class Processes:
    """A world of one process; `JoinedProcesses` is the same for several.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
    """

    rank = 0
    world = 1

    @property
    def main(self) -> bool:
        """Whether this process logs, saves and registers."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things: contiguous, sizes differ by one at most."""
        edges = [count * rank // self.world for rank in (self.rank, self.rank + 1)]
        return range(*edges)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, any shape; the same on each."""
        return tensor

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes in the order of ranks; the same on each."""
        return list(items)

    def broadcast(self, item: T) -> T:
        """What the main process holds."""
        return item

    def together(self) -> AbstractContextManager[None]:
        """Where a process computes its share with the model; entered and left by all processes.

        Of a sharded model every pass is one of all processes, so this waits for the last.
        """
        return nullcontext()

    def close(self) -> None:
        """Leave the world; nothing may be summed or gathered afterwards."""


class JoinedProcesses(Processes):
    """One of several processes, joined through accelerate (gloo on CPUs, NCCL on GPUs).

    Args:
        state: accelerate's, which has joined the process group.

    Attributes:
        device: of this process.
        lockstep: of a sharded model; None where every process has all of it.
    """

    def __init__(self, state: PartialState) -> None:
        self._state = state
        self.rank: int = state.process_index
        self.world: int = state.num_processes
        self.device: torch.device = state.device
        self.lockstep: Lockstep | None = None

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        import torch

        total = tensor.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(tensor.device)

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes; pickled, so for small things."""
        import torch

        lists: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(lists, list(items))
        return [item for one in lists for item in one]

    def broadcast(self, item: T) -> T:
        """What the main process holds; pickled."""
        import torch

        held: list[Any] = [item if self.main else None]
        torch.distributed.broadcast_object_list(held, src=0, device=self.device)
        made: T = held[0]
        return made

    def together(self) -> AbstractContextManager[None]:
        """Left when every process is done, where the model is sharded."""
        return nullcontext() if self.lockstep is None else self.lockstep.together()

    def close(self) -> None:
        """Leave the process group."""
        self._state.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process may print; known from the environment, before anything is imported."""
    return int(os.environ.get("RANK", "0")) == 0


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get(WORLD_VARIABLE, "1")) > 1


def join() -> Processes:
    """Join the other processes that a launcher has started; a world of one where none did.

    Raises:
        OptionError: accelerate was configured to shard the model other than by FSDP.
    """
    if not launched():
        return Processes()
    for variable in REFUSED:
        if os.environ.get(variable, "false").lower() == "true":
            raise OptionError(
                "PPO shards a model over processes by FSDP only",
                expected="distributed_type: FSDP, or MULTI_GPU, where each has the whole base",
                got=f"{variable}={os.environ[variable]}",
                fix="accelerate config",
            )
    import torch
    from accelerate import PartialState

    return JoinedProcesses(PartialState(cpu=not torch.cuda.is_available()))
