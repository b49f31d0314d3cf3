"""`simtune episodes`: look at what was captured, check it, move it."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

HELP = "Look at captured episodes, check them, move them."

ACTIONS = {
    "ls": ("listing", "one line per episode"),
    "show": ("show", "one episode as a chat, with rewards and scores"),
    "stats": ("stats", "rates, sizes, returns by environment and adapter"),
    "compact": ("compact", "move the finished log into Parquet files"),
    "verify": ("verify", "check every byte and every reference; exit code 1 if one is wrong"),
    "export": ("export", "write episodes to a file"),
    "import": ("importing", "take episodes from a file"),
}
"""Action -> its module, and what it does."""

DEFAULT_ROOT = "./simtune-data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare every action with its options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar=" | ".join(ACTIONS))
    for name, (module, text) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        _module(module).add_arguments(action)
        action.add_argument(
            "--store", default=DEFAULT_ROOT, metavar="ROOT", help="root of captured episodes"
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    code: int = _module(ACTIONS[args.action][0]).run(args)
    return code


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"simtune.cli.episodes.{name}")
