"""A key-value cache whose rows outlive a call, so that a growing chat is prefilled once.

Token p of a row lies in column p, whatever its neighbours hold, so a query at position p attends
exactly to the columns up to p. Rows of any length share a batch, a row is cut back by forgetting
its length, and columns beyond a row's length may hold anything finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROWTH = 1.25
"""Columns are added by at least this factor, since each time all of them are copied."""

FULL_ATTENTION = "full_attention"


class Write(NamedTuple):
    """Where one forward pass writes, and what it may read.

    Attributes:
        rows: rows of the pass: the first n as a slice (read without a copy), or `[b]` int64.
        columns: column of each new token, `[b, n]` int64, or the first column where all rows
            write the same ones.
        limit: columns that are read, from 0; the last column of the cache is never among them.
    """

    rows: slice | torch.Tensor
    columns: torch.Tensor | int
    limit: int


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, `[rows, columns, heads, head_dim]`."""

    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers; zeros, because even masked columns must be finite."""
        size = (self._cache.rows, self._cache.columns)
        self.keys = key_states.new_zeros(*size, key_states.shape[1], key_states.shape[3])
        self.values = value_states.new_zeros(*size, value_states.shape[1], value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `[b, heads, n, head_dim]`, and give what the pass reads, `[b, heads, limit, …]`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        write = self._cache.write
        return (
            _written(self.keys, key_states, write),
            _written(self.values, value_states, write),
        )

    def get_seq_length(self) -> int:
        """Rows differ: positions and masks are always given by the caller."""
        return 0

    def get_max_length(self) -> int:
        """Columns there are."""
        return self._cache.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What the pass reads."""
        return self._cache.write.limit, 0


def _written(buffer: torch.Tensor, states: torch.Tensor, write: Write) -> torch.Tensor:
    new = states.transpose(1, 2)
    if isinstance(write.columns, int):
        buffer[write.rows, write.columns : write.columns + new.shape[1]] = new
    else:
        rows = write.rows
        if isinstance(rows, slice):
            rows = torch.arange(rows.stop, device=buffer.device)
        buffer[rows[:, None], write.columns] = new
    return buffer[write.rows, : write.limit].transpose(1, 2)


class SlotCache(Cache):  # type: ignore[misc]
    """One `SlotLayer` per layer of a model; `write` is set before each forward pass."""

    def __init__(self, layers: int, *, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.write = Write(slice(0, 0), 0, 0)
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    @property
    def spare(self) -> int:
        """The column that is never read, where padding is written."""
        return self.columns - 1

    def grow(self, rows: int, columns: int) -> None:
        """Make room for rows of this many tokens; what is there stays."""
        if rows <= self.rows and columns < self.columns:
            return
        old_rows, old_columns = self.rows, self.columns
        self.rows = max(rows, old_rows)
        if columns >= old_columns:
            self.columns = max(columns + 1, int(GROWTH * old_columns))
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys = self._larger(layer.keys, old_rows, old_columns)
                layer.values = self._larger(layer.values, old_rows, old_columns)

    def _larger(self, old: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        new = old.new_empty(self.rows, self.columns, *old.shape[2:])
        new[:rows, :columns] = old
        new[:rows, columns:] = 0
        new[rows:] = 0
        return new

    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(2 * layer.keys.nbytes for layer in self.layers if layer.is_initialized)

    def copy(self, source: list[int], target: list[int], limit: int) -> None:
        """Copy rows pairwise, as far as column `limit`."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :limit] = buffer[source, :limit]


def fits(model: PreTrainedModel) -> bool:
    """Whether every layer of a model is full attention with masks that can be given to it.

    Recurrent layers have no columns, sliding windows and fused kernels want masks of their own.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        windowed = getattr(config, "sliding_window", None) is not None
        recurrent = getattr(config, "is_attention_free", False) or hasattr(config, "ssm_cfg")
        full = not windowed and not recurrent and model._supports_sdpa
    else:
        full = set(kinds) == {FULL_ATTENTION}
    return full and config._attn_implementation in ("sdpa", "eager")
