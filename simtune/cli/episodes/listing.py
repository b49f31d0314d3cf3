"""`simtune episodes ls`: one line per episode."""

from __future__ import annotations

import argparse
from typing import Any

from simtune.cli import output
from simtune.cli.episodes.filters import add_filters, summaries
from simtune.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="last N episodes")
    add_filters(parser)


def run(args: argparse.Namespace) -> int:
    """Print the last episodes, in order of their starts."""
    from simtune.store import read

    if args.limit < 1:
        raise OptionError("--limit is too small", expected="at least 1", got=args.limit)
    episodes = summaries(read(args.store), args)
    shown = episodes[-args.limit :]
    if args.json:
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
