"""`simtune episodes verify`: check every byte and every reference of a store."""

from __future__ import annotations

import argparse

from simtune.cli import output
from simtune.cli.progress import Progress

WRONG = 1
"""Exit code where something is wrong with the store."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none of its own."""


def run(args: argparse.Namespace) -> int:
    """Print what is wrong; nothing is changed."""
    from simtune.store import verify

    with Progress("files") as progress:
        found = verify(args.store, on_file=lambda _: progress.advance())
    if args.json:
        output.json(found)
        return WRONG if found.findings else 0
    output.line(
        f"{found.rows} rows in {found.parts} files and {found.segments} segments of the log, "
        f"{found.scores} scores"
    )
    for each in found.findings:
        times = f" ({each.count} times)" if each.count > 1 else ""
        output.line(f"{each.code}  {each.path}: {each.detail}{times}")
        output.line(f"    {each.fix}")
    output.line(f"{len(found.findings)} findings" if found.findings else "nothing is wrong")
    return WRONG if found.findings else 0
