"""`simtune episodes stats`: rates, sizes, returns by environment and adapter."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from simtune.cli import output
from simtune.cli.episodes.filters import add_filters, summaries

if TYPE_CHECKING:
    from simtune.store import Usage

BAR_WIDTH = 40
BINS = 8
_UNITS = ("B", "kB", "MB", "GB", "TB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the filters; they choose the returns, not the sizes."""
    add_filters(parser)


def run(args: argparse.Namespace) -> int:
    """Print counts, sizes, rates, and the returns as a histogram."""
    from simtune.store import read, usage

    store = read(args.store)
    counts, used = store.count(), usage(store)
    episodes = summaries(store, args)
    rate = counts["decisions"] / used.seconds if used.seconds else None
    groups = _by_adapter(episodes)
    if args.json:
        output.json(
            {"counts": counts, "usage": used, "decisions_per_second": rate, "groups": groups}
        )
        return 0
    output.line(", ".join(f"{count} {name}" for name, count in counts.items()))
    _show_usage(used, rate)
    output.line()
    output.table(
        ["env", "adapter", "episodes", "decisions", "valid", "mean return"],
        [
            (g["env"], g["adapter"], g["episodes"], g["decisions"], g["valid"], g["mean_return"])
            for g in groups
        ],
    )
    output.line()
    for text in _histogram([episode["reward"] or 0.0 for episode in episodes]):
        output.line(text)
    return 0


def _show_usage(used: Usage, rate: float | None) -> None:
    sizes = {"Parquet": used.parquet_bytes, "log": used.log_bytes, "scores": used.score_bytes}
    shown = ", ".join(f"{_bytes(size)} {what}" for what, size in sizes.items())
    output.line(f"on disk: {shown}; {used.rows_per_file:.0f} rows a file")
    if rate is not None:
        output.line(f"captured over {used.seconds:.4g} s: {rate:.4g} decisions/s")
    if used.prompt_tokens or used.sampled_tokens:
        output.line(f"tokens: {used.prompt_tokens} in prompts, {used.sampled_tokens} sampled")


def _bytes(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.4g} {unit}"


def _by_adapter(episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns by environment and by the adapter of an episode's first decision."""
    groups: dict[tuple[str | None, str | None], list[dict[str, Any]]] = {}
    for episode in episodes:
        adapter = episode["adapter"]
        groups.setdefault((episode["env"], adapter and adapter[:12]), []).append(episode)
    return [_group(env, adapter, found) for (env, adapter), found in groups.items()]


def _group(env: str | None, adapter: str | None, episodes: list[dict[str, Any]]) -> dict[str, Any]:
    decisions = sum(episode["decisions"] for episode in episodes)
    invalid = sum(episode["invalid"] for episode in episodes)
    return {
        "env": env,
        "adapter": adapter,
        "episodes": len(episodes),
        "decisions": decisions,
        "valid": 1 - invalid / decisions if decisions else None,
        "mean_return": sum(e["reward"] or 0.0 for e in episodes) / len(episodes),
    }


def _histogram(returns: list[float]) -> list[str]:
    """Returns in equal bins, a bar each."""
    finite = [value for value in returns if math.isfinite(value)]
    strange = len(returns) - len(finite)
    lines = [f"{strange} returns are not finite numbers"] if strange else []
    if not finite:
        return lines
    low, high = min(finite), max(finite)
    if low == high:
        return [*lines, f"every {'other ' if strange else ''}return is {low:g}"]
    width = (high - low) / BINS
    counts = [0] * BINS
    for value in finite:
        counts[min(int((value - low) / width), BINS - 1)] += 1
    lines += [
        f"{low + i * width:>10.3g}  {'#' * round(BAR_WIDTH * count / max(counts)):<{BAR_WIDTH}} "
        f"{count}"
        for i, count in enumerate(counts)
    ]
    return lines
