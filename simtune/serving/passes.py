"""Passes of one set of weights over its cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from simtune.policy.choices import Options
from simtune.policy.slots import GROWTH, SlotCache, Write
from simtune.policy.weights import Weights
from simtune.serving.places import Copy


class Passes:
    """A model and the cache that its passes read and write; the weights never change.

    Args:
        model: a causal language model that `slots.fits`, with or without PEFT layers.
        pad_id: fills short rows; never attended to.

    Attributes:
        column_bytes: bytes of keys and values of one token.
    """

    def __init__(self, model: Any, *, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        config = model.config.get_text_config(decoder=True)
        self._layers = config.num_hidden_layers
        self.column_bytes = _column_bytes(config, model.dtype)
        self._additive = config._attn_implementation == "eager"
        self._weights = Weights(model)
        self._weights.changed()
        self._cache = SlotCache(self._layers, rows=1, columns=0)

    def forget(self) -> None:
        """Drop the cache."""
        self._cache = SlotCache(self._layers, rows=1, columns=0)

    @property
    def columns(self) -> int:
        """Tokens that a row has room for."""
        return self._cache.columns

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self._cache.nbytes()

    def columns_for(self, needed: int) -> int:
        """Columns that there are after room was made for so many."""
        present = self._cache.columns
        return present if needed < present else max(needed + 1, int(GROWTH * present))

    def grow(self, rows: int, columns: int, *, most: int = 0) -> None:
        """Make room for so many rows and columns; twice as many rows at once, up to `most`."""
        if rows > self._cache.rows:
            rows = max(rows, min(most, 2 * self._cache.rows))
        self._cache.grow(rows, columns)

    def cut(self, rows: int) -> None:
        """Keep the first rows only."""
        if self._cache.rows > rows:
            self._cache.rows = rows
            for layer in self._cache.layers:
                if layer.is_initialized:
                    layer.keys = layer.keys[:rows].clone()
                    layer.values = layer.values[:rows].clone()

    def copy(self, copy: Copy) -> None:
        """Copy a part of one row to another."""
        for layer in self._cache.layers:
            if layer.is_initialized:
                for buffer in (layer.keys, layer.values):
                    buffer[copy.target, : copy.columns] = buffer[copy.source, : copy.columns]

    def fill(
        self, rows: list[int], tokens: Sequence[list[int]], ends: Sequence[int]
    ) -> torch.Tensor:
        """Compute tokens of some rows.

        Args:
            rows: the rows, `[b]`.
            tokens: new ids of each, `[b][n]`.
            ends: how many tokens each row then holds, `[b]`.

        Returns:
            Logits after the last token of each, `[b, vocabulary]`.
        """
        device = self.model.device
        width = max(map(len, tokens))
        ids = torch.tensor([[self.pad_id] * (width - len(new)) + new for new in tokens])
        positions = torch.tensor(ends)[:, None] - width + torch.arange(width)
        limit = max(ends)
        if len(rows) == 1:
            write = Write(slice(rows[0], rows[0] + 1), ends[0] - width, limit)
        else:
            # Padding looks at column 0 and is written where nothing reads.
            new = torch.tensor([[len(each)] for each in tokens])
            padding = torch.arange(width) < width - new
            columns = positions.masked_fill(padding, self._cache.spare)
            positions = positions.masked_fill(padding, 0)
            write = Write(torch.tensor(rows, device=device), columns.to(device), limit)
        return self._forward(ids.to(device), positions.to(device), write)[:, -1]

    def write(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of the first rows.

        Args:
            tokens: its id, `[b]`.
            positions: where it stands; -1 in a row that takes no part.

        Returns:
            Logits, `[b, vocabulary]`; meaningless in rows that take no part.
        """
        device = self.model.device
        at = torch.tensor(positions, device=device)[:, None]
        columns = at.masked_fill(at < 0, self._cache.spare)
        write = Write(slice(0, len(tokens)), columns, max(positions) + 1)
        ids = torch.tensor(tokens, device=device)[:, None]
        return self._forward(ids, at.clamp(min=0), write)[:, -1]

    def branches(self, row: int, begin: int, options: Options) -> list[float]:
        """Log-probabilities of all option tokens but the first ones, behind a computed prompt.

        All options lie one behind the other; each sees the prompt and itself only, and its
        positions begin anew at the prompt's end.

        Args:
            row: where the prompt is.
            begin: tokens of the prompt.
            options: ids of each.
        """
        width = sum(len(option) - 1 for option in options)
        self._cache.grow(self._cache.rows, begin + width)
        mask = (torch.arange(begin + width) < begin)[None, None].repeat(1, width, 1)
        tokens: list[int] = []
        targets: list[int] = []
        positions: list[int] = []
        for option in options:
            at, count = len(tokens), len(option) - 1
            tokens += option[:-1]
            targets += option[1:]
            positions += range(begin, begin + count)
            own = slice(begin + at, begin + at + count)
            mask[0, at : at + count, own] = torch.ones(count, count).tril().bool()
        device = self.model.device
        logits = self._forward(
            torch.tensor([tokens], device=device),
            torch.tensor([positions], device=device),
            Write(slice(row, row + 1), begin, begin + width),
            mask=mask.to(device),
            keep=width,
        )
        scores = torch.log_softmax(logits[0].float(), dim=-1)
        wanted = torch.tensor(targets, device=device)[:, None]
        picked: list[float] = scores.gather(1, wanted)[:, 0].tolist()
        return picked

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        write: Write,
        *,
        mask: torch.Tensor | None = None,
        keep: int = 1,
    ) -> torch.Tensor:
        """One pass over the cache; logits of the last `keep` positions, `[b, keep, vocabulary]`."""
        if mask is None:
            mask = torch.arange(write.limit, device=tokens.device) <= positions[..., None]
        mask = mask[:, None]
        if self._additive:
            dtype = self.model.dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
                ~mask, torch.finfo(dtype).min
            )
        self._cache.write = write
        logits: torch.Tensor = self._weights.forward()(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits


def _column_bytes(config: Any, dtype: torch.dtype) -> int:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * width * dtype.itemsize)
