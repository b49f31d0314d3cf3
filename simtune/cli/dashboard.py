"""What a terminal shows while PPO trains: curves of return and success, the latest numbers."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from simtune.cli.progress import Progress
from simtune.train.options import PPOOptions, TrainOptions
from simtune.train.parallel import is_main_process

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

CURVES = ("return", "success", "eval_return", "eval_success")
"""Metrics that are drawn; one that a run does not have takes no line."""

NUMBERS = (
    ("length", "valid", "entropy"),
    ("approx_kl", "clip_fraction", "ratio_max"),
    ("policy_loss", "value_loss", "explained_variance"),
    ("rollout_tokens_per_s", "update_tokens_per_s", "seconds"),
    ("episodes_seen", "decisions_seen", "skipped_steps"),
    ("version", "staleness", "dropped_stale"),
    ("dropped_foreign", "dropped_other", "delay_s"),
)
"""Rows of the table of latest values."""

_BARS = "▁▂▃▄▅▆▇█"
_REFRESHES_PER_S = 4


def progress_of(method: str, options: TrainOptions) -> Progress | Dashboard:
    """What shows the progress of a training: a dashboard for PPO on a terminal, else `Progress`.

    Of several processes the main one alone shows anything.
    """
    if not is_main_process():
        return Progress(method, silent=True)
    if isinstance(options, PPOOptions):
        console = _terminal()
        if console is not None:
            return Dashboard(options, console)
    return Progress(method)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as bars between their least and their greatest; gaps where not finite.

    More values than `width` are averaged in groups, so that the whole run is seen.
    """
    size = math.ceil(len(values) / width) if values else 1
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    known = [value for value in means if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    top = len(_BARS) - 1
    return "".join(
        _BARS[round((value - low) / (high - low) * top) if high > low else 0]
        if math.isfinite(value)
        else " "
        for value in means
    )


class Dashboard:
    """Shows a PPO run on a terminal; a context manager with `Progress`'s `update`.

    Args:
        options: of the run.
        console: of rich, on the terminal.
    """

    def __init__(self, options: PPOOptions, console: Console) -> None:
        """Nothing is shown before `with`."""
        from rich.live import Live

        self._options = options
        self._console = console
        self._done, self._total = 0, options.iterations or None
        self._waiting = ""
        self._first: tuple[int, float] | None = None
        self._started = time.monotonic()
        self._latest: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=_REFRESHES_PER_S
        )

    def __enter__(self) -> Self:
        """Start the clock and the display."""
        self._started = time.monotonic()
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        self._live.stop()

    def update(self, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        """A round is done; the signature of the trainers' `on_step`."""
        now = time.monotonic()
        if self._first is None:
            # Before its first round a run loads a model; that says nothing about its rate.
            self._first = (done, now)
        self._done, self._total = done, total or self._options.iterations or None
        self._waiting = ""
        self._latest |= metrics
        for name in CURVES:
            if name in metrics:
                self._seen.setdefault(name, []).append(metrics[name])

    def wait(self, text: str) -> None:
        """Say what the run waits for, until its next round is done."""
        self._waiting = text

    def render(self) -> RenderableType:
        """The whole display, as it is now."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self._head(), style="bold", no_wrap=True)]
        width = max(10, min(60, self._console.width - 44))
        for name, values in self._seen.items():
            line = f"{name:<13}{values[-1]:>9.4g}{_limits(self._latest, name)}  "
            parts.append(Text(line + sparkline(values, width), no_wrap=True))
        if self._latest:
            parts.append(self._table())
        if self._waiting:
            parts.append(Text(self._waiting, style="yellow", no_wrap=True))
        parts.append(Text(f"MLflow {self._where()}", style="dim", overflow="fold"))
        return Group(*parts)

    def _head(self) -> str:
        elapsed = time.monotonic() - self._started
        of = "" if self._total is None else f"/{self._total}"
        text = f"ppo  round {self._done}{of}  {_clock(elapsed)}"
        if self._first is None:
            return f"{text}  loading the model, first round"
        done, since = self._first
        rounds, seconds = self._done - done, time.monotonic() - since
        if rounds == 0:
            return text
        text = f"{text}  {rounds / seconds:.3g} rounds/s"
        if self._total is None:
            return text
        return f"{text}  {_clock((self._total - self._done) * seconds / rounds)} left"

    def _table(self) -> RenderableType:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for row in NUMBERS:
            cells = [
                cell
                for name in row
                if name in self._latest
                for cell in (f"[dim]{name}[/dim]", f"{self._latest[name]:.4g}")
            ]
            if cells:
                table.add_row(*cells)
        return table

    def _where(self) -> str:
        return f"{self._options.tracking_uri}, experiment {self._options.experiment_name}"


def _limits(latest: Mapping[str, float], name: str) -> str:
    """The interval of a metric that has one, 18 columns wide."""
    low, high = (latest.get(f"{name}_{side}") for side in ("low", "high"))
    return f"{'' if low is None else f' [{low:.3g}, {high:.3g}]':<18}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _terminal() -> Any:
    """A rich console on standard error, or None where that is no terminal or rich is missing."""
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True)
    return None if console.is_dumb_terminal else console
