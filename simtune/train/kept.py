"""The weights that a run may still need: the last good ones, and the best by held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from simtune.eval.compare import Evaluation
from simtune.train.checkpoints import Checkpoint
from simtune.train.periodic_eval import is_best, score

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]


class Kept:
    """Copies of adapter and value head, on the CPU.

    Attributes:
        last: as they were after the last round without a skipped step; what a run that breaks
            falls back to.
        last_round: that round; 0 before the first.
        best: of the best evaluated round; None before an evaluation of a trained policy.
        best_round: that round; 0 where there is none.
        best_score: of that evaluation.
    """

    def __init__(self, weights: Weights, resumed: Checkpoint | None) -> None:
        self.last = weights
        self.last_round = 0
        self.best: Weights | None = None
        self.best_round = 0
        self.best_score: tuple[float, float] | None = None
        if resumed is not None:
            self.last_round = resumed.state.round
            self.best = resumed.best()
            self.best_round = resumed.state.best_round
            self.best_score = resumed.state.best_score

    def trained(self, done: int, weights: Weights, *, skipped_steps: float) -> None:
        """A round ended; after a skipped step its weights are not trusted yet."""
        if skipped_steps == 0:
            self.last, self.last_round = weights, done

    def evaluated(self, done: int, weights: Weights, evaluation: Evaluation) -> None:
        """A round was evaluated on held-out episodes."""
        found = score(evaluation)
        if is_best(found, self.best_score):
            self.best, self.best_round, self.best_score = weights, done, found

    def choice(self, keep: str) -> tuple[str, Weights, int]:
        """Which weights are registered: name, weights and their round."""
        if keep == "best" and self.best is not None:
            return "best", self.best, self.best_round
        return "last", self.last, self.last_round

    def other(self, keep: str) -> tuple[str, Weights] | None:
        """The weights that are kept beside them; None where they are the same round's."""
        if self.best is None or self.best_round == self.last_round:
            return None
        return ("last", self.last) if keep == "best" else ("best", self.best)
