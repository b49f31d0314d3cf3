"""Decisions as micro-batches: rows under a token budget, and where in them to read.

Two layouts. `padded`: rows of similar length, filled on the right, with neither mask nor
positions: causal attention never looks right, so padding is never seen. `packed`: the rows one
after another as a single sequence whose positions start anew with each row, which transformers'
flash attention takes for a border that attention does not cross.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch

from simtune.train import rows
from simtune.train.choices import Branches, OptionReads
from simtune.train.turns import Turn

Ints: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


class Entry(msgspec.Struct):
    """A turn among the turns of one round.

    Attributes:
        turn: the decision.
        key: of the ids its row must hold.
        unit: index of its first unit in the round.
        value: index of its first value in the round.
        values: how many values are read: one at the prompt's last token, or one per unit.
    """

    turn: Turn
    key: bytes
    unit: int
    value: int
    values: int


class MicroBatch(msgspec.Struct, kw_only=True):
    """Rows that are computed together, and what is read from them.

    With B rows of length L, places are indices into the flat `[B * L]` hidden states. What is
    asked of the vocabulary are N sampled tokens, and after them M tokens of options.

    Attributes:
        input_ids: int64 `[B, L]`.
        position_ids: int64 `[B, L]`; None where every row counts from 0.
        attention_mask: True where a query (third axis) sees a key (fourth), bool `[B, 1, L, L]`;
            None for plain causal attention.
        reads: places that predict something, int64 `[R]`, each once per temperature.
        temperatures: of each read, float32 `[R]`; None where all are 1.
        asked_reads: index into `reads` of each asked token, int64 `[N + M]`.
        asked_ids: the asked tokens, int64 `[N + M]`.
        sampled: N.
        options: the C decisions among named options; None where there are none.
        units: index in the round of each unit, sampled tokens first, int64 `[N + C]`.
        value_places: where values are read, int64 `[K]`.
        value_units: index in the round of each value, int64 `[K]`.
        tokens: tokens in the rows, padding left out.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    reads: torch.Tensor
    temperatures: torch.Tensor | None
    asked_reads: torch.Tensor
    asked_ids: torch.Tensor
    sampled: int
    options: OptionReads | None
    units: torch.Tensor
    value_places: torch.Tensor
    value_units: torch.Tensor
    tokens: int


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How micro-batches are laid out.

    Attributes:
        budget: tokens of a micro-batch, padding included; a longer row is one by itself.
        packed: see above; rows with branches are padded in either case.
        pad_id: fills the right of a padded row.
        device: of the tensors.
    """

    budget: int
    packed: bool
    pad_id: int
    device: torch.device


def prepare(turns: Sequence[Turn], *, value_per_unit: bool = False) -> list[Entry]:
    """Number the units and values of turns, and make their keys."""
    entries = []
    unit = value = 0
    for turn in turns:
        values = turn.units if value_per_unit and turn.units else 1
        entries.append(Entry(turn, rows.key(turn.needed_ids), unit, value, values))
        unit += turn.units
        value += values
    return entries


def states(entries: Sequence[Entry]) -> list[Entry]:
    """The same turns as states that only need the value of their prompt."""
    return [
        Entry(Turn(prompt_ids=entry.turn.prompt_ids), rows.key(entry.turn.prompt_ids), 0, i, 1)
        for i, entry in enumerate(entries)
    ]


def pack(entries: Sequence[Entry], layout: Layout) -> Iterator[MicroBatch]:
    """Cut turns into micro-batches; token ids are used exactly as captured."""
    held, row_of = rows.share([entry.key for entry in entries])
    members: list[list[Entry]] = [[] for _ in held]
    for entry, row in zip(entries, row_of, strict=True):
        members[row].append(entry)
    made = [_Row(key, of) for key, of in zip(held, members, strict=True)]
    trees = [row for row in made if row.branches.ids]
    plain = [row for row in made if not row.branches.ids]
    for group, packed in ((plain, layout.packed), (trees, False)):
        for some in rows.cut([len(row.ids) for row in group], layout.budget, padded=not packed):
            yield _micro_batch([group[i] for i in some], packed, layout)


class _Row:
    """A row with its branches, and the decisions that are read from it."""

    def __init__(self, key: bytes, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.branches = Branches(rows.length(key), [entry.turn for entry in entries])
        self.ids = np.append(rows.ids_of(key), self.branches.ids).astype(np.int64)


def _micro_batch(chosen: Sequence[_Row], packed: bool, layout: Layout) -> MicroBatch:
    lengths = [len(row.ids) for row in chosen]
    positions = mask = None
    if packed:
        input_ids = np.concatenate([row.ids for row in chosen])[None]
        starts = [0, *np.cumsum(lengths)[:-1].tolist()]
        positions = torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])[None])
    else:
        width = max(lengths)
        input_ids = np.full((len(chosen), width), layout.pad_id, dtype=np.int64)
        for index, row in enumerate(chosen):
            input_ids[index, : len(row.ids)] = row.ids
        starts = [width * index for index in range(len(chosen))]
        if any(row.branches.ids for row in chosen):
            positions, mask = Branches.layout([row.branches for row in chosen], width)
    reading = _Reading()
    for start, row in zip(starts, chosen, strict=True):
        for entry in row.entries:
            reading.add(entry, start, row.branches)
    device = layout.device
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids).to(device),
        position_ids=None if positions is None else positions.to(device),
        attention_mask=None if mask is None else mask.to(device),
        tokens=sum(lengths),
        **reading.tensors(device),
    )


class _Reading:
    """Gathers where the decisions of a micro-batch are read."""

    def __init__(self) -> None:
        self.sampled: list[Entry] = []
        self.choices: list[Turn] = []
        self.places: list[Ints] = []
        self.option_places: list[int] = []
        self.option_units: list[int] = []
        self.value_places: list[Ints] = []
        self.value_units: list[Ints] = []

    def add(self, entry: Entry, start: int, branches: Branches) -> None:
        """Read a turn from the row that begins at place `start`."""
        turn = entry.turn
        state = start + len(turn.prompt_ids) - 1
        if turn.options:
            self.choices.append(turn)
            self.option_units.append(entry.unit)
            for places in branches.places(turn):
                self.option_places += [start + place for place in places]
        elif turn.action_ids:
            self.sampled.append(entry)
            self.places.append(np.arange(state, state + turn.units))
        self.value_places.append(np.arange(state, state + entry.values))
        self.value_units.append(np.arange(entry.value, entry.value + entry.values))

    def tensors(self, device: torch.device) -> dict[str, Any]:
        """What a `MicroBatch` says about reading; places that predict twice are read once."""
        sampled = [np.asarray(entry.turn.action_ids, dtype=np.int64) for entry in self.sampled]
        counts = [len(ids) for ids in sampled]
        option_ids = [i for turn in self.choices for option in turn.options for i in option]
        units = [np.arange(e.unit, e.unit + n) for e, n in zip(self.sampled, counts, strict=True)]
        heats = np.array([entry.turn.temperature for entry in self.sampled], dtype=np.float64)
        asked = np.stack(
            [
                _joined([*self.places, self.option_places]).astype(np.float64),
                np.append(np.repeat(heats, counts), np.ones(len(option_ids))),
            ]
        )
        reads, asked_reads = np.unique(asked, axis=1, return_inverse=True)

        def on_device(array: Ints) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return {
            "reads": on_device(reads[0].astype(np.int64)),
            "temperatures": None
            if (reads[1] == 1).all()
            else on_device(reads[1].astype(np.float32)),
            "asked_reads": on_device(asked_reads.reshape(-1)),
            "asked_ids": on_device(_joined([*sampled, option_ids])),
            "sampled": sum(counts),
            "options": OptionReads.of(self.choices, device) if self.choices else None,
            "units": on_device(_joined([*units, self.option_units])),
            "value_places": on_device(_joined(self.value_places)),
            "value_units": on_device(_joined(self.value_units)),
        }


def _joined(parts: Sequence[Ints | list[int]]) -> Ints:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
