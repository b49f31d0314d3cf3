"""Decisions as rows of token ids: what the policy saw, and which tokens it chose."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch


class Turn(msgspec.Struct, kw_only=True):
    """One decision, ready to be trained on.

    Attributes:
        prompt_ids: ids the policy was given, `[P]`, P >= 1.
        action_ids: ids the policy sampled, `[A]`; empty for a state that only needs a value.
        behaviour_logprobs: of each sampled id under the policy that sampled it, `[A]`.
        temperature: sampling temperature.
        advantage: of the decision.
        return_: the critic's target.
    """

    prompt_ids: Sequence[int]
    action_ids: Sequence[int] = ()
    behaviour_logprobs: Sequence[float] = ()
    temperature: float = 1.0
    advantage: float = 0.0
    return_: float = 0.0


class TurnBatch(msgspec.Struct, kw_only=True):
    """D decisions as one padded batch with N action tokens in all.

    Attributes:
        input_ids: prompt and action ids, padded on the right, int64 `[D, L]`.
        attention_mask: 1 where a token is real, int64 `[D, L]`.
        prompt_ends: index of each row's last prompt token, int64 `[D]`.
        action_rows: row of each action token, int64 `[N]`.
        action_positions: column of each action token, int64 `[N]`.
        temperatures: of each row, float32 `[D]`.
        behaviour_logprobs: of each action token, float32 `[N]`.
        advantages: of each action token's decision, float32 `[N]`.
        returns: of each row, float32 `[D]`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    prompt_ends: torch.Tensor
    action_rows: torch.Tensor
    action_positions: torch.Tensor
    temperatures: torch.Tensor
    behaviour_logprobs: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def collate(turns: Sequence[Turn], *, pad_id: int, device: torch.device | str) -> TurnBatch:
    """Pad turns on the right into one batch; token ids are used exactly as captured."""
    lengths = [len(turn.prompt_ids) + len(turn.action_ids) for turn in turns]
    input_ids = torch.full((len(turns), max(lengths)), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    rows: list[int] = []
    positions: list[int] = []
    for row, (turn, length) in enumerate(zip(turns, lengths, strict=True)):
        input_ids[row, :length] = torch.tensor([*turn.prompt_ids, *turn.action_ids])
        attention_mask[row, :length] = 1
        rows += [row] * len(turn.action_ids)
        positions += range(len(turn.prompt_ids), length)
    flat = [value for turn in turns for value in turn.behaviour_logprobs]
    counts = torch.tensor([len(turn.action_ids) for turn in turns])
    advantages = torch.tensor([turn.advantage for turn in turns])
    return TurnBatch(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        prompt_ends=torch.tensor([len(turn.prompt_ids) - 1 for turn in turns], device=device),
        action_rows=torch.tensor(rows, dtype=torch.long, device=device),
        action_positions=torch.tensor(positions, dtype=torch.long, device=device),
        temperatures=torch.tensor([turn.temperature for turn in turns], device=device),
        behaviour_logprobs=torch.tensor(flat, dtype=torch.float32, device=device),
        advantages=advantages.repeat_interleave(counts).to(device),
        returns=torch.tensor([turn.return_ for turn in turns], device=device),
    )
