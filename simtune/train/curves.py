"""The curves of a run as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

History: TypeAlias = Sequence[tuple[int, dict[str, float]]]
"""(round, metrics) of every point."""

PANELS = (
    ("return", ("return", "eval_return")),
    ("success", ("success", "eval_success", "valid")),
    ("episode length", ("length",)),
    ("entropy, nats", ("entropy",)),
    ("KL to the sampler", ("approx_kl",)),
    ("clip fraction", ("clip_fraction",)),
    ("explained variance", ("explained_variance",)),
    ("losses", ("policy_loss", "value_loss")),
    ("tokens/s", ("rollout_tokens_per_s", "update_tokens_per_s")),
)
"""Title and metrics of each panel; one that has no points is left out."""

_COLUMNS = 3


def points(history: History, name: str) -> tuple[list[int], list[float]]:
    """The finite points of a metric: rounds and values."""
    found = [
        (step, metrics[name])
        for step, metrics in history
        if name in metrics and math.isfinite(metrics[name])
    ]
    return [step for step, _ in found], [value for _, value in found]


def draw(history: History, path: Path, *, title: str, best_round: int = 0) -> bool:
    """Save the curves as a PNG file; nothing is drawn, and False returned, without any point.

    Args:
        history: of the run.
        path: of the picture.
        title: above it.
        best_round: marked in the panels of what is evaluated, where it is not 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [
        (label, names) for label, names in PANELS if any(points(history, name)[0] for name in names)
    ]
    if not panels:
        return False
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for place, (label, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        _panel(axes, history, label, names, best_round)
    figure.savefig(path, dpi=110)
    return True


def _panel(axes: Any, history: History, label: str, names: Sequence[str], best: int) -> None:
    axes.set_title(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    shown = [name for name in names if points(history, name)[0]]
    for name in shown:
        steps, values = points(history, name)
        axes.plot(steps, values, marker="o" if name.startswith("eval_") else None, label=name)
        if points(history, f"{name}_low")[0]:
            low, high = (points(history, f"{name}_{side}")[1] for side in ("low", "high"))
            axes.fill_between(steps, low, high, alpha=0.2)
            if best:
                axes.axvline(best, linestyle=":", color="grey")
    if len(shown) > 1:
        axes.legend(fontsize=7)
