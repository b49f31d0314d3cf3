"""Counters of the server, as Prometheus reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How often a time fell below each bound."""

    def __init__(self) -> None:
        self._below = [0] * len(SECONDS)
        self._count = 0
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """One more time."""
        self._count += 1
        self._sum += seconds
        for at, bound in enumerate(SECONDS):
            self._below[at] += seconds <= bound

    def lines(self, name: str) -> list[str]:
        """In Prometheus' text format."""
        buckets = [
            f'{name}_bucket{{le="{bound:g}"}} {below}'
            for bound, below in zip(SECONDS, self._below, strict=True)
        ]
        return [
            *buckets,
            f'{name}_bucket{{le="+Inf"}} {self._count}',
            f"{name}_sum {self._sum:.6f}",
            f"{name}_count {self._count}",
        ]


class Metrics:
    """What the server counts; touched by the event loop's thread only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        self.prompt_tokens = 0
        self.reused_tokens = 0
        self.sampled_tokens = 0
        self.in_flight = 0
        self.duration = Histogram()
        self.first_token = Histogram()

    def in_work(self, count: int) -> ExitStack:
        """Count answers as in work until what is returned is closed, or left as a context."""
        self.in_flight += count
        working = ExitStack()
        working.callback(self._leave, count)
        return working

    def _leave(self, count: int) -> None:
        self.in_flight -= count

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it in Prometheus' text format.

        Args:
            gauges: name -> (help, value), what is read off at this moment.
        """
        lines: list[str] = []
        _family(lines, "simtune_requests_total", "counter", "Requests by route and status.")
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'simtune_requests_total{{route="{route}",status="{status}"}} {count}')
        _family(lines, "simtune_answers_total", "counter", "Answers by adapter and why they ended.")
        for (adapter, finish), count in sorted(self.answers.items()):
            lines.append(f'simtune_answers_total{{adapter="{adapter}",finish="{finish}"}} {count}')
        for name, text, value in (
            ("prompt_tokens_total", "Tokens of prompts.", self.prompt_tokens),
            ("reused_tokens_total", "Tokens of prompts found in a cache.", self.reused_tokens),
            ("sampled_tokens_total", "Tokens sampled.", self.sampled_tokens),
        ):
            _family(lines, f"simtune_{name}", "counter", text)
            lines.append(f"simtune_{name} {value}")
        for name, (text, level) in gauges.items():
            _family(lines, f"simtune_{name}", "gauge", text)
            lines.append(f"simtune_{name} {level:.12g}")
        for name, text, histogram in (
            ("answer_seconds", "Time to a whole answer.", self.duration),
            ("first_token_seconds", "Time to the first token.", self.first_token),
        ):
            _family(lines, f"simtune_{name}", "histogram", text)
            lines += histogram.lines(f"simtune_{name}")
        return "\n".join(lines) + "\n"


def _family(lines: list[str], name: str, kind: str, text: str) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
