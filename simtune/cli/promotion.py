"""`simtune models promote | rollback | history`: which model is champion, decided by hand."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from simtune.cli import output

if TYPE_CHECKING:
    from simtune.registry import Change, Registry


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare promote, rollback and history."""
    promote = actions.add_parser("promote", help="make a model champion", allow_abbrev=False)
    promote.add_argument("model", metavar="ID", help="id or its beginning, or `latest`")
    promote.add_argument(
        "--other-base",
        action="store_true",
        help="allow another base model than the champion's",
    )
    rollback = actions.add_parser(
        "rollback", help="retire the champion for the one before it", allow_abbrev=False
    )
    rollback.add_argument("--to", metavar="ID", help="a model, or `base` for no adapter")
    for each in (promote, rollback):
        each.add_argument("--reason", default="", metavar="TEXT", help="kept in the history")
        add_tracking_uri(each)
    history = actions.add_parser(
        "history", help="every promotion, refusal and rollback", allow_abbrev=False
    )
    for each in (promote, rollback, history):
        each.add_argument(
            "--models-dir", default="./models", metavar="DIR", help="registry of adapters"
        )
        each.add_argument("--json", action="store_true", help="print JSON")


def add_tracking_uri(parser: argparse._ActionsContainer) -> None:
    """Declare where MLflow is told of a change."""
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow that is told (default: the one the model was trained with)",
    )


def run(args: argparse.Namespace, registry: Registry) -> int:
    """Do it, and tell MLflow."""
    from simtune.registry.promotion import history_of, promote, roll_back

    if args.action == "history":
        show_history(history_of(registry), args.json)
        return 0
    if args.action == "promote":
        made = promote(registry, args.model, reason=args.reason, other_base=args.other_base)
    else:
        made = roll_back(registry, args.to, reason=args.reason)
    tell_mlflow(registry, args.tracking_uri)
    if args.json:
        output.json(made)
    else:
        output.line(f"champion: {made.before or 'base'} -> {made.after or 'base'}")
        if made.reason:
            output.line(f"reason: {made.reason}")
    return 0


def tell_mlflow(registry: Registry, tracking_uri: str | None) -> None:
    """Move MLflow's aliases; that it cannot be reached is said, and no more."""
    from simtune.registry.mlflow_mirror import mirror

    for why in mirror(registry, tracking_uri):
        sys.stderr.write(f"simtune: warning: {why}\n")


def show_history(history: list[Change], as_json: bool) -> None:
    """Print it, oldest first."""
    if as_json:
        output.json(history)
        return
    output.table(
        ["at", "event", "by", "model", "champion", "reason"],
        [
            (one.at, one.event, one.by, one.model, one.after or "base", one.reason)
            for one in history
        ],
    )
