"""Passes over a round's decisions without gradient: values, and log-probabilities as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec
import torch

from simtune.train import packing
from simtune.train.actor_critic import ActorCritic
from simtune.train.packing import Entry, Layout
from simtune.train.parallel import Processes
from simtune.train.round_data import RoundData


class Survey(msgspec.Struct, kw_only=True):
    """What the model says of a round before its first step.

    Attributes:
        values: of every step and final state, float32 `[S + F]`; zeros without a critic.
        logprobs: of every unit, float32 `[N]`; None where they were not asked for.
        states: hidden states that the values were read from, `[S + F, H]`; None likewise.
    """

    values: torch.Tensor
    logprobs: torch.Tensor | None = None
    states: torch.Tensor | None = None


@torch.no_grad()
def survey(
    model: ActorCritic,
    data: RoundData,
    layout: Layout,
    processes: Processes,
    *,
    critic: bool,
    logprobs: bool,
    states: bool,
) -> Survey:
    """Evaluate a round once, each process a share of it.

    Without `logprobs`, and with values of decisions, only prompts are computed, equal ones once,
    and not those that the round's roll-outs computed already.

    Args:
        model: as it is now.
        data: the round.
        layout: of micro-batches.
        processes: of the run.
        critic: whether values are needed.
        logprobs: whether the units' log-probabilities are.
        states: whether the hidden states behind the values are to be kept.
    """
    device = layout.device
    count = data.steps + len(data.finals)
    found = Survey(values=torch.zeros(count, device=device))
    if logprobs:
        found.logprobs = torch.zeros(len(data.weights), device=device)
    if states:
        width = model.value_head.in_features
        found.states = torch.zeros(count, width, device=device)
    if not (critic or logprobs):
        return found
    wanted, seen = _wanted(data, critic, logprobs)
    times = torch.zeros(count, device=device)
    if seen:
        at = torch.tensor([entry.value for entry in seen], device=device)
        _hold(found, model, at, data.seen.of(seen))
        times[at] = 1
    # Processes have seen different states, and some of them the same ones.
    times = processes.sum(times)
    known = times.tolist()
    wanted = [entry for entry in wanted if not known[entry.value]]
    share = [wanted[i] for i in processes.share(len(wanted))]
    with processes.together():
        for batch in packing.pack(share, layout):
            hidden = model.hidden(batch)
            _hold(found, model, batch.value_units, hidden.index_select(0, batch.value_places))
            if found.logprobs is not None:
                found.logprobs[batch.units] = model.actions(hidden, batch)[0]
    times = times.clamp(min=1)
    found.values = processes.sum(found.values) / times
    if found.logprobs is not None:
        found.logprobs = processes.sum(found.logprobs)
    if found.states is not None:
        found.states = processes.sum(found.states) / times[:, None]
    return found


def _wanted(data: RoundData, critic: bool, logprobs: bool) -> tuple[list[Entry], list[Entry]]:
    """What has to be read, and what of that roll-outs have computed in this process."""
    entries: list[Entry] = list(data.entries)
    if logprobs or data.per_unit:
        return entries + (data.finals if critic else []), []
    entries = packing.states(entries) + (data.finals if critic else [])
    return entries, data.seen.known(entries)


def _hold(found: Survey, model: ActorCritic, at: torch.Tensor, states: torch.Tensor) -> None:
    """Note the values of states `[n, H]` at places `[n]`, and the states where they are kept."""
    found.values[at] = model.value(states)
    if found.states is not None:
        found.states[at] = states.to(found.states.dtype)


@torch.no_grad()
def logprobs_of(
    model: ActorCritic,
    entries: Sequence[Entry],
    layout: Layout,
    processes: Processes,
    *,
    reference: bool = False,
) -> torch.Tensor:
    """Log-probability of every unit of some decisions, float32 `[N]`.

    Args:
        model: as it is now.
        entries: the decisions, their units numbered from 0.
        layout: of micro-batches.
        processes: of the run.
        reference: under the base, with the adapter off; it is on again afterwards.
    """
    count = sum(entry.turn.units for entry in entries)
    found = torch.zeros(count, device=layout.device)
    share = [entries[i] for i in processes.share(len(entries))]
    with model.reference() if reference else contextlib.nullcontext(), processes.together():
        for batch in packing.pack(share, layout):
            found[batch.units] = model.actions(model.hidden(batch), batch)[0]
    return processes.sum(found)
