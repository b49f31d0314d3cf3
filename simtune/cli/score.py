"""`simtune score`: run rewards over captured episodes, into sidecars beside them."""

from __future__ import annotations

import argparse

from simtune.cli import output
from simtune.cli.progress import Progress

HELP = "Score captured episodes with rewards; the episodes themselves are never changed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--store", metavar="ROOT", default="./simtune-data", help="root of captured episodes"
    )
    parser.add_argument(
        "--reward", action="append", metavar="NAME", help="reward to run, repeatable"
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="plugin to load, repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Score, and print how many, how well, and what failed for which reason."""
    from simtune import plugins
    from simtune.rewards.registration import DEFAULT
    from simtune.rewards.scoring import score_store

    for spec in args.plugin:
        plugins.load(spec)
    with Progress("episodes") as progress:
        summaries = score_store(
            args.store, args.reward or [DEFAULT], on_episode=lambda _: progress.advance()
        )
    if args.json:
        output.json(summaries)
        return 0
    output.table(
        ["reward", "version", "episodes", "scored", "failed", "decisions", "mean"],
        [
            (s.name, s.version, s.episodes, s.scored, s.failed, s.decisions, s.mean)
            for s in summaries
        ],
    )
    for each in summaries:
        for reason, count in each.reasons.items():
            output.line(f"{each.name}: {count} failed: {reason}")
    return 0
