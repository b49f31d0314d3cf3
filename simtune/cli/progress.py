"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

All of it goes to stderr, so that stdout holds only results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows how far some work is; a context manager.

    Args:
        what: name of the work.
        total: how many steps, where that is known from the start.
        silent: show nothing; for a process that is not the main one.
    """

    def __init__(self, what: str, total: int | None = None, *, silent: bool = False) -> None:
        """Remember the names; nothing is shown before `with`."""
        self._what = what
        self._total = total
        self._silent = silent
        self._done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._shown = 0
        self._numbers = ""
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Start the clock and, on a terminal where rich is installed, the bar."""
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty() and not self._silent:
            self._bar = _rich_bar()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, numbers="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()
        elif self._done != self._shown:
            self._line(self._numbers)

    def advance(self) -> None:
        """One step is done."""
        self.update(self._done + 1, self._total, {})

    def update(self, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        """Say how far it is; the signature of the trainers' `on_step`."""
        self._done, self._total = done, total
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:4])
        self._numbers = numbers
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, numbers=numbers)
        elif done == total or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._line(numbers)

    def wait(self, text: str) -> None:
        """Say what the work waits for."""
        if self._bar is not None:
            self._bar.update(self._task, numbers=text)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._line(text)

    def _line(self, numbers: str) -> None:
        if self._silent:
            return
        self._last_line = time.monotonic()
        self._shown = self._done
        elapsed = max(self._last_line - self._started, 1e-9)
        rate = self._done / elapsed
        of = "" if self._total is None else f"/{self._total}"
        left = ""
        if self._total is not None and rate > 0 and self._done < self._total:
            left = f"  {(self._total - self._done) / rate:.0f} s left"
        text = f"{self._what}: {self._done}{of}  {rate:.3g}/s  {elapsed:.0f} s{left}  {numbers}"
        sys.stderr.write(f"{text.rstrip()}\n")
        sys.stderr.flush()


def _rich_bar() -> Any:
    """A rich progress bar, or None where rich is not installed."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )
