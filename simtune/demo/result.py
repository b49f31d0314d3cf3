"""What a run of the demo found, and its learning curve as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simtune.eval.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PolicyResult(msgspec.Struct, kw_only=True, frozen=True):
    """Success of one policy on the held-out maps.

    Attributes:
        label: name of the policy.
        greedy: its most probable answer each time; None where it has no probabilities to sample.
        sampled: its own randomness; None where it has none.
        valid: share of answers that named a move.
    """

    label: str
    greedy: Interval | None
    sampled: Interval | None
    valid: float


class DemoResult(msgspec.Struct, kw_only=True, frozen=True):
    """Everything the demo prints.

    Attributes:
        policies: from random to the oracle.
        held_out: maps of each evaluation.
        captured: rows of the store by kind: episodes and decisions.
        curve: success of each PPO round's roll-outs, on new maps every round.
        paths: where things are: base, store, models, tracking, picture.
        models: registered ids of the SFT and the PPO adapter.
        seconds: wall time of each stage.
    """

    policies: list[PolicyResult]
    held_out: int
    captured: dict[str, int]
    curve: list[float]
    paths: dict[str, str]
    models: dict[str, str]
    seconds: dict[str, float]

    def policy(self, label: str) -> PolicyResult:
        """The result of one policy."""
        return next(one for one in self.policies if one.label == label)


def learning_curve(result: DemoResult) -> Figure:
    """Success per PPO round, with the heuristic, SFT and the oracle as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    rounds = range(1, len(result.curve) + 1)
    axes.plot(rounds, result.curve, color="tab:blue", label="PPO roll-outs (sampled, new maps)")
    for label, colour in (("heuristic", "tab:gray"), ("after SFT", "tab:orange")):
        shown = result.policy(label)
        interval = shown.sampled or shown.greedy
        if interval is not None:
            axes.axhline(interval.estimate, color=colour, linestyle="--", label=label)
            axes.axhspan(interval.low, interval.high, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="PPO round", ylabel="success rate", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure
