"""`simtune episodes`: look at what was captured."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from simtune.cli import output
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.records import Decision, Episode
    from simtune.store import Store

HELP = "Look at captured episodes."

DEFAULT_ROOT = "./simtune-data"
BAR_WIDTH = 40
BINS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ls, show, stats and compact."""
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ls | show | stats | compact"
    )
    listing = actions.add_parser("ls", help="one line per episode", allow_abbrev=False)
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="last N episodes")
    show = actions.add_parser("show", help="one episode as a chat with rewards", allow_abbrev=False)
    show.add_argument("episode", metavar="ID", help="episode id")
    stats = actions.add_parser("stats", help="counts and returns by environment and adapter")
    compact = actions.add_parser("compact", help="move the finished log into Parquet files")
    for each in (listing, show, stats, compact):
        each.add_argument(
            "--store", default=DEFAULT_ROOT, metavar="ROOT", help="root of captured episodes"
        )
        each.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    from simtune.store import compact, read

    if args.action == "compact":
        report = compact(args.store)
        if args.json:
            output.json(report)
        else:
            output.line(f"{report.rows} rows of {report.segments} segments -> {report.files}")
        return 0
    store = read(args.store)
    if args.action == "ls":
        return _list(store, args.limit, args.json)
    if args.action == "show":
        return _show(store.episode(args.episode), args.json)
    return _stats(store, args.json)


def _list(store: Store, limit: int, as_json: bool) -> int:
    if limit < 1:
        raise OptionError("--limit is too small", expected="at least 1", got=limit)
    episodes: list[dict[str, Any]] = store.summary().to_pylist()
    shown = episodes[-limit:]
    if as_json:
        output.json(shown)
        return 0
    output.table(
        ["episode", "env", "agent", "run", "decisions", "invalid", "reward", "success", "state"],
        [
            (
                e["episode_id"],
                e["env"],
                e["agent_id"],
                e["run_id"],
                e["decisions"],
                e["invalid"],
                e["reward"],
                e["success"],
                _state(e),
            )
            for e in shown
        ],
    )
    if len(shown) < len(episodes):
        output.line(f"the last {len(shown)} of {len(episodes)} episodes; --limit N shows more")
    return 0


def _state(episode: dict[str, Any]) -> str:
    if not episode["ended"]:
        return "running"
    return next((name for name in ("aborted", "terminated", "truncated") if episode[name]), "ended")


def _show(episode: Episode, as_json: bool) -> int:
    if as_json:
        output.json(episode)
        return 0
    output.line(f"episode {episode.episode_id}  env {episode.env}  run {episode.run_id}")
    for decision in episode.decisions:
        _show_decision(decision)
    output.line()
    output.line(f"return {episode.total_reward:g}  outcome {episode.outcome or '-'}")
    if episode.error:
        output.line(f"aborted: {episode.error}")
    return 0


def _show_decision(decision: Decision) -> None:
    output.line()
    for message in decision.prompt:
        output.line(f"[{message['role']}] {message['content']}")
    output.line(f"[{decision.agent_id or 'answer'}] {decision.response}")
    notes = [f"step {decision.step}", f"parsed {decision.parsed!r}", f"reward {decision.reward}"]
    if not decision.valid:
        notes.append(f"invalid: {decision.error or 'no action could be read'}")
    if decision.adapter:
        notes.append(f"adapter {decision.adapter[:12]}")
    output.line("    " + ", ".join(notes))


def _stats(store: Store, as_json: bool) -> int:
    episodes: list[dict[str, Any]] = store.summary().to_pylist()
    groups = _by_adapter(episodes)
    if as_json:
        output.json({"counts": store.count(), "groups": groups})
        return 0
    output.line(", ".join(f"{count} {name}" for name, count in store.count().items()))
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
