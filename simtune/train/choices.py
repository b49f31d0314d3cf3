"""Decisions among named options: the policy is a softmax over the options' log-probabilities.

The score of an option is the sum of its tokens' log-probabilities after the prompt (or the mean,
where lengths are normalised); the policy is softmax(scores / temperature). It is exact, an answer
is always one of the options, and the entropy is a sum over them.

All options of a decision share the computation of its prompt. The first token of every option is
predicted from the prompt's last token. Further tokens are branches: appended to the row, each
seeing the prompt and its own option only, with positions that go on from the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch

from simtune.train.turns import Turn


class Branches:
    """The options' tokens that are appended to one row.

    Args:
        length: of the row without branches.
        turns: the decisions whose prompts the row begins with.

    Attributes:
        ids: token ids of all branches, one branch after another; the last token of an option
            predicts nothing and is left out.
    """

    def __init__(self, length: int, turns: Sequence[Turn]) -> None:
        self.length = length
        self.ids: list[int] = []
        self._starts: dict[tuple[int, tuple[int, ...]], int] = {}
        for turn in turns:
            for option in turn.options:
                named = (len(turn.prompt_ids), tuple(option[:-1]))
                if named[1] and named not in self._starts:
                    self._starts[named] = length + len(self.ids)
                    self.ids += named[1]

    def places(self, turn: Turn) -> list[list[int]]:
        """For each option of a turn, the places in the row that predict its tokens."""
        state = len(turn.prompt_ids)
        found = []
        for option in turn.options:
            start = self._starts.get((state, tuple(option[:-1])), 0)
            found.append([state - 1, *range(start, start + len(option) - 1)])
        return found

    @staticmethod
    def layout(branches: Sequence[Branches], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of rows with branches.

        Args:
            branches: of each row, `[B]`.
            width: length of the padded rows, L.

        Returns:
            Position ids int64 `[B, L]`, and what each place sees, bool `[B, 1, L, L]`.
        """
        positions = torch.arange(width).repeat(len(branches), 1)
        sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(branches), 1, 1, 1)
        for row, branch in enumerate(branches):
            for (prompt, ids), start in branch._starts.items():
                end = start + len(ids)
                positions[row, start:end] = torch.arange(prompt, prompt + len(ids))
                sees[row, 0, start:end, prompt:start] = False
        return positions, sees


class OptionReads(msgspec.Struct, kw_only=True):
    """C decisions among at most K options each, with M option tokens in all.

    Attributes:
        slots: the option of each token, as index into `[C * K]`, int64 `[M]`.
        divisors: temperature, times the option's length where that is normalised, float32 `[C, K]`.
        exists: which options there are, bool `[C, K]`.
        chosen: the option that was taken, int64 `[C]`.
    """

    slots: torch.Tensor
    divisors: torch.Tensor
    exists: torch.Tensor
    chosen: torch.Tensor

    @classmethod
    def of(cls, turns: Sequence[Turn], device: torch.device | str) -> OptionReads:
        """The options of some decisions, their tokens in order."""
        most = max(len(turn.options) for turn in turns)
        divisors = np.ones((len(turns), most), dtype=np.float32)
        exists = np.zeros((len(turns), most), dtype=bool)
        slots = []
        for row, turn in enumerate(turns):
            lengths = np.array([len(option) for option in turn.options])
            exists[row, : len(lengths)] = True
            divisors[row, : len(lengths)] = turn.temperature * (
                lengths if turn.length_normalised else 1
            )
            slots.append(np.repeat(row * most + np.arange(len(lengths)), lengths))
        return cls(
            slots=torch.from_numpy(np.concatenate(slots)).to(device),
            divisors=torch.from_numpy(divisors).to(device),
            exists=torch.from_numpy(exists).to(device),
            chosen=torch.tensor([turn.chosen for turn in turns], device=device),
        )

    def decide(self, logprobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy over options.

        Args:
            logprobs: of each option token, untempered, `[M]`.

        Returns:
            Log-probability of the chosen option and entropy of the policy, nats, both `[C]`.
        """
        sums = logprobs.new_zeros(self.divisors.numel()).index_add(0, self.slots, logprobs)
        scores = sums.view_as(self.divisors) / self.divisors
        policy = scores.masked_fill(~self.exists, float("-inf")).log_softmax(-1)
        chosen = policy.gather(1, self.chosen[:, None]).squeeze(1)
        finite = policy.masked_fill(~self.exists, 0.0)
        return chosen, -(policy.exp() * finite).sum(-1)
